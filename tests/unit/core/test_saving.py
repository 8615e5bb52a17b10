"""What the durable progress says, and when: attempts counted before the handler runs, checkpoints after it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from headwater.storage.leases import Progress
from headwater.subscriptions.core import effects, inputs
from headwater.subscriptions.options import Delivery, OnFailure, RetryPolicy

from .steering import Steering, streams


def test_nothing_is_delivered_before_the_durable_progress_says_that_it_may_be() -> None:
    it = Steering(3, batch_size=3, hold=(effects.Save,))
    assert it.delivered == []
    assert it.saved == Progress(0, it.saved.in_flight_to, 1)
    assert it.saved.in_flight_to >= 3
    it.release()
    assert it.delivered == [[1, 2, 3]]


@pytest.mark.parity("L25")
def test_in_steady_state_no_delivery_waits_for_a_save() -> None:
    it = Steering(5000, batch_size=100, read_size=500, max_in_flight=1000, checkpoint_events=100)
    it.hold = (effects.Save,)
    while it.open and len(it.delivered) < 8:
        it.handle()
    assert len(it.delivered) == 8, "although the save that the first batch led to is still under way"
    assert len(it.held) == 1
    it.release()
    it.handle_all()
    assert len(it.all(effects.Save)) <= 1 + 50, "one at the start, and one for each batch"


@pytest.mark.parity("T335")
def test_with_a_threshold_of_one_every_settled_event_is_saved() -> None:
    it = Steering(3, checkpoint_events=1)
    for number in (1, 2, 3):
        it.handle()
        assert it.saved.checkpoint == number


@pytest.mark.parity("T336")
def test_the_checkpoint_waits_for_its_number_of_events() -> None:
    it = Steering(9, checkpoint_events=6, checkpoint_interval=timedelta(hours=1))
    for _ in range(5):
        it.handle()
    assert it.machine.checkpoint == 0
    it.handle()
    assert it.machine.checkpoint == 6
    it.handle()
    assert it.machine.checkpoint == 6


@pytest.mark.parity("T337", "L1")
def test_the_checkpoint_is_saved_after_its_interval_and_changes_nothing_else() -> None:
    it = Steering(
        300,
        checkpoint_events=1000,
        checkpoint_interval=timedelta(seconds=10),
        read_size=20,
        max_in_flight=40,
        batch_size=4,
    )
    for _ in range(4):
        it.handle()
    it.later(9.9)
    assert it.machine.checkpoint == 0, "neither so many events nor so much time"
    it.later(0.2)
    assert (it.machine.checkpoint, it.machine.catching_up) == (16, True)
    it.handle_all()
    assert [number for batch in it.delivered for number in batch] == list(range(1, 301))


def test_what_is_settled_last_is_saved_at_once_but_once_in_an_interval() -> None:
    it = Steering(1, checkpoint_interval=timedelta(seconds=10))
    it.handle()
    assert it.machine.checkpoint == 1, "nothing else is to be done, and somebody may wait for it"
    for number in (2, 3):
        it.append(*Steering(number).events[-1:])
        it.handle()
    assert it.machine.checkpoint == 1
    it.later(10)
    assert it.machine.checkpoint == 3
    it.later(60)
    it.append(*Steering(5).events[3:])
    it.handle()
    assert it.machine.checkpoint == 3, "there is more to be done"
    it.handle()
    assert it.machine.checkpoint == 5


def test_a_save_that_is_due_soon_is_made_with_what_was_just_settled_and_not_with_the_next_event() -> None:
    it = Steering(1, checkpoint_interval=timedelta(seconds=10))
    it.handle()
    it.later(8.9)
    it.append(*Steering(2).events[1:])
    it.handle()
    assert it.machine.checkpoint == 1, "there is time"
    it.later(0.2)
    it.append(*Steering(3).events[2:])
    assert it.machine.checkpoint == 1, "an event is on its way"
    it.handle()
    assert it.machine.checkpoint == 3


def test_a_save_is_not_made_early_while_there_is_more_to_be_done() -> None:
    it = Steering(1, checkpoint_interval=timedelta(seconds=10))
    it.handle()
    it.later(9.5)
    it.append(*Steering(3).events[1:])
    it.handle()
    assert it.machine.checkpoint == 1
    it.later(0.6)
    assert it.machine.checkpoint == 1, "what comes in between waits for the interval"
    it.handle()
    assert it.machine.checkpoint == 3


@pytest.mark.parity("T338", "T339")
def test_draining_saves_what_is_settled_and_finishes() -> None:
    it = Steering(5, checkpoint_events=100, checkpoint_interval=timedelta(hours=1))
    it.handle()
    it.tell(inputs.Drain())
    assert it.phase == "draining"
    it.handle()
    assert it.phase == "finished"
    assert it.saved == Progress(2, 2)
    assert it.delivered == [[1], [2]]


def test_a_drain_waits_for_what_is_in_flight_only_so_long() -> None:
    it = Steering(1, drain_timeout=timedelta(seconds=5))
    it.tell(inputs.Drain())
    it.later(4)
    assert it.phase == "draining"
    it.later(2)
    assert it.phase == "finished"


def test_when_it_has_become_quiet_the_progress_says_that_nothing_is_in_flight() -> None:
    it = Steering(3, batch_size=3)
    it.handle()
    it.later(5)
    assert it.saved == Progress(3, 3)
    saves = len(it.all(effects.Save))
    it.later(60)
    assert len(it.all(effects.Save)) == saves


def test_after_a_crash_the_suspect_range_is_delivered_in_small_pieces_each_counted_first() -> None:
    it = Steering(64, progress=Progress(0, 32, 1), batch_size=10)
    assert it.delivered == [[1, 2]]
    assert it.saved == Progress(0, 2, 2)
    it.handle()
    assert it.saved == Progress(2, 4, 2)
    while it.machine.watermark < 32:
        it.handle()
    assert it.delivered[-1] == list(range(33, 43)), "what was not suspect is delivered as usual"
    assert it.last(effects.Deliver).attempt == 1


def test_a_handler_that_kills_its_process_reaches_the_limit_and_its_neighbours_go_on() -> None:
    deadly, limit = 5, 3
    progress, calls = Progress(0), 0
    for _ in range(20):
        it = Steering(streams(*"abcdefgh"), progress=progress, batch_size=4, retry=RetryPolicy(attempts=limit))
        while it.open and deadly not in next(iter(it.in_hand.values())):
            it.handle()
        if not it.open:
            break
        calls += 1
        progress = it.saved
    assert calls <= limit + 2
    (park,) = it.all(effects.Park)
    assert [(each.event.number, each.reason) for each in park.parked] == [(deadly, "failed")]
    assert it.machine.watermark == 8


def test_what_was_appended_after_the_grant_is_never_suspect() -> None:
    it = Steering(2, progress=Progress(2, 1000, 3), retry=RetryPolicy(attempts=1, then=OnFailure.STOP))
    it.append(*Steering(3).events[2:])
    assert it.delivered == [[3]]
    assert it.last(effects.Deliver).attempt == 1


def test_a_promise_that_is_being_lowered_covers_no_delivery() -> None:
    it = Steering(1)
    it.handle()
    it.later(0.5)
    it.hold = (effects.Save,)
    it.later(2)
    assert it.saved == Progress(1, 1), "quiet: the promise is taken back, and that is under way"
    it.append(*Steering(2).events[1:])
    assert it.delivered == [[1]]
    it.release()
    assert it.delivered == [[1], [2]]


class TestExactlyOnce:
    """The handler's own transaction saves the progress."""

    def test_each_delivery_carries_the_progress_to_commit(self) -> None:
        it = Steering(5, batch_size=2, delivery=Delivery.EXACTLY_ONCE)
        commits = []
        while it.open:
            commit = it.last(effects.Deliver).commit
            assert isinstance(commit, Progress)
            commits.append(commit.checkpoint)
            it.handle()
        assert commits == [2, 4, 5]
        assert it.machine.checkpoint == 5

    def test_no_save_is_made_beside_a_delivery(self) -> None:
        it = Steering(50, batch_size=2, delivery=Delivery.EXACTLY_ONCE, checkpoint_events=1)
        before = len(it.all(effects.Save))
        it.later(10)
        assert len(it.all(effects.Save)) == before

    def test_after_an_unknown_outcome_the_durable_progress_tells_whether_it_was_committed(self) -> None:
        it = Steering(4, batch_size=2, delivery=Delivery.EXACTLY_ONCE, retry=RetryPolicy(attempts=2))
        it.fail()
        assert it.all(effects.Reload)
        it.tell(inputs.Reloaded(Progress(2, 100, 1)))
        assert it.delivered == [[1, 2], [3, 4]]
        it.fail()
        it.tell(inputs.Reloaded(Progress(2, 100, 1)))
        it.later(1)
        assert it.delivered[-1] == [3]

    def test_what_a_handler_wants_to_become_of_its_events_is_done_once_it_is_known_that_nothing_was_committed(
        self,
    ) -> None:
        it = Steering(2, delivery=Delivery.EXACTLY_ONCE)
        it.fail(then=OnFailure.SKIP)
        it.tell(inputs.Reloaded(Progress(0, 1, 1)))
        assert [each.event.number for each in it.all(effects.Skipped)] == [1]
        assert it.delivered == [[1], [2]]


class TestAtMostOnce:
    """The checkpoint is durable before the handler runs."""

    def test_the_checkpoint_is_durable_before_the_delivery(self) -> None:
        it = Steering(4, batch_size=2, delivery=Delivery.AT_MOST_ONCE, hold=(effects.Save,))
        save = it.last(effects.Save)
        assert (save.progress.checkpoint, save.durable) == (2, True)
        assert it.delivered == []
        it.release()
        assert it.delivered == [[1, 2]]

    @pytest.mark.parametrize("fact", [inputs.Drain(), inputs.Pause("maintenance")])
    def test_what_the_checkpoint_has_passed_is_delivered_before_a_drain_or_a_pause(self, fact: inputs.Input) -> None:
        it = Steering(6, batch_size=2, delivery=Delivery.AT_MOST_ONCE, hold=(effects.Save,))
        it.tell(fact)
        it.release()
        assert it.delivered == [[1, 2]], "nobody else will"
        it.handle()
        assert (it.delivered, it.machine.checkpoint) == ([[1, 2]], 2)
        assert it.phase == ("finished" if isinstance(fact, inputs.Drain) else "paused")

    def test_what_the_checkpoint_has_passed_when_the_last_consumer_leaves_is_taken_back(self) -> None:
        it = Steering(6, batch_size=2, delivery=Delivery.AT_MOST_ONCE)
        it.hold = (effects.Save,)
        it.handle()
        it.tell(inputs.Left(0, frozenset()))
        it.tell(inputs.Drain())
        it.release()
        assert it.delivered == [[1, 2]]
        assert (it.last(effects.Save).back, it.machine.checkpoint, it.phase) == (True, 2, "finished")

    def test_of_what_was_delivered_the_consumer_that_leaves_takes_along_only_what_it_has_taken(self) -> None:
        it = Steering(4, batch_size=4, delivery=Delivery.AT_MOST_ONCE, retry=RetryPolicy(then=OnFailure.SKIP))
        it.tell(inputs.Left(0, frozenset([1])))
        it.tell(inputs.Joined(1))
        assert [each.event.number for each in it.all(effects.Skipped)] == [1]
        it.handle(2)
        assert (it.delivered[1], it.last(effects.Deliver).attempt) == ([2], 1)

    def test_of_what_a_consumer_that_leaves_may_have_seen_nothing_comes_again(self) -> None:
        it = Steering(2, batch_size=2, delivery=Delivery.AT_MOST_ONCE, retry=RetryPolicy(then=OnFailure.SKIP))
        it.tell(inputs.Left(0))
        it.tell(inputs.Joined(1))
        assert it.delivered == [[1, 2]]

    def test_a_checkpoint_of_which_it_is_unknown_whether_it_was_saved_is_made_certain_before_a_drain_ends(self) -> None:
        it = Steering(4, batch_size=2, delivery=Delivery.AT_MOST_ONCE, hold=(effects.Save,))
        it.tell(inputs.Drain())
        it.tell(inputs.SaveFailed("no answer, though it took effect"))
        assert it.phase == "draining"
        it.release()
        it.later(1)
        assert it.delivered == [[1, 2]]
        it.handle()
        assert (it.delivered, it.machine.checkpoint, it.phase) == ([[1, 2]], 2, "finished")

    def test_without_a_consumer_such_a_checkpoint_is_taken_back(self) -> None:
        it = Steering(4, batch_size=2, delivery=Delivery.AT_MOST_ONCE, hold=(effects.Save,))
        it.tell(inputs.Left(0, frozenset()))
        it.tell(inputs.Drain())
        it.tell(inputs.SaveFailed("no answer, though it took effect"))
        it.release()
        it.later(1)
        assert (it.delivered, it.saved, it.phase) == ([], Progress(0, 0), "finished")
        assert it.last(effects.Save).back

    def test_nobody_gets_what_is_being_taken_back_or_may_have_been(self) -> None:
        it = Steering(4, batch_size=2, delivery=Delivery.AT_MOST_ONCE)
        it.tell(inputs.Left(0, frozenset()))
        it.hold = (effects.Save,)
        it.tell(inputs.Drain())
        assert it.last(effects.Save).back
        it.tell(inputs.Joined(1))
        it.tell(inputs.SaveFailed("no answer, though it may take effect"))
        it.release()
        it.later(1)
        assert (it.delivered, it.phase) == ([[1, 2]], "finished"), "the next owner hands it out"
        assert (it.last(effects.Save).back, it.machine.checkpoint) == (True, 0)

    def test_a_failed_delivery_is_not_repeated(self) -> None:
        it = Steering(2, delivery=Delivery.AT_MOST_ONCE, retry=RetryPolicy(attempts=5, then=OnFailure.SKIP))
        it.fail()
        it.later(60)
        assert it.delivered == [[1], [2]]

    def test_after_a_crash_nothing_is_delivered_again(self) -> None:
        it = Steering(2, progress=Progress(1, 1), delivery=Delivery.AT_MOST_ONCE)
        assert it.delivered == [[2]]
