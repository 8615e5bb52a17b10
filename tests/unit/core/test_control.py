"""Pause, resume, rewind, the end of a lease, streams that are born again, consumers that come and go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from headwater.storage.leases import Halt, Progress
from headwater.subscriptions.core import effects, inputs
from headwater.subscriptions.core.phases import TABLE, Cause, Phase, after
from headwater.subscriptions.options import OnFailure, RetryPolicy
from headwater.subscriptions.testing.builders import recorded

from .steering import Steering, by


@pytest.mark.parity("L31")
def test_a_paused_subscription_delivers_nothing_and_says_why() -> None:
    it = Steering(3)
    it.tell(inputs.Pause("maintenance"))
    it.handle()
    it.later(60)
    assert it.delivered == [[1]]
    assert (it.phase, it.machine.condition.reason) == ("paused", "maintenance")
    assert it.machine.checkpoint == 1, "what was in flight is settled and saved"
    it.tell(inputs.Resume())
    assert it.delivered == [[1], [2]]


@pytest.mark.parity("L31")
def test_a_rewind_waits_for_what_is_in_flight_and_begins_again_there() -> None:
    it = Steering(4, batch_size=2)
    it.handle()
    it.tell(inputs.Rewind(1))
    assert it.in_hand == {0: [3, 4]}
    it.handle()
    rewind = next(each for each in it.all(effects.Save) if each.rewind)
    assert rewind.progress.checkpoint == 1
    assert it.in_hand == {0: [2, 3]}


def test_a_rewind_is_made_before_the_owner_that_was_told_to_has_let_go() -> None:
    it = Steering(4, batch_size=2)
    it.tell(inputs.Rewind(1))
    it.tell(inputs.Drain("another owner goes on"))
    it.handle()
    assert (it.phase, it.machine.checkpoint) == ("finished", 1)
    rewind = next(each for each in it.all(effects.Save) if each.rewind)
    assert rewind.settled == 2, "what was handed out before is a replay for the next owner"


def rewinds(it: Steering) -> list[tuple[int, tuple[int, ...]]]:
    return [(each.progress.checkpoint, each.commands) for each in it.all(effects.Save) if each.rewind]


def test_a_command_is_obeyed_with_the_save_of_its_effect_and_once() -> None:
    it = Steering(4, batch_size=2)
    it.tell(inputs.Rewind(1, command=7))
    it.tell(inputs.Rewind(1, command=7))
    assert rewinds(it) == [], "something is in flight"
    it.handle()
    assert rewinds(it) == [(1, (7,))]
    it.tell(inputs.Rewind(1, command=7))
    it.handle()
    assert rewinds(it) == [(1, (7,))]
    it.tell(inputs.Rewind(0, command=8))
    it.handle()
    assert rewinds(it) == [(1, (7,)), (0, (8,))]


def test_an_owner_that_loses_the_lease_leaves_a_command_that_it_was_told_to_the_next_one() -> None:
    it = Steering(4, batch_size=2)
    it.tell(inputs.Rewind(1, command=7))
    it.tell(inputs.LeaseLost("another owner goes on"))
    assert rewinds(it) == []


def test_of_several_rewinds_that_wait_the_last_one_is_made_and_obeys_them_all() -> None:
    it = Steering(4, batch_size=2)
    it.handle()
    it.tell(inputs.Rewind(1, command=7))
    it.tell(inputs.Rewind(0, command=8))
    it.handle()
    assert rewinds(it) == [(0, (7, 8))]


def test_a_rewind_whose_save_fails_is_saved_again_with_its_command_unless_another_one_follows() -> None:
    it = Steering(4, batch_size=2)
    it.hold = (effects.Save,)
    it.tell(inputs.Rewind(0, command=7))
    it.handle()
    assert rewinds(it) == [(0, (7,))]
    it.tell(inputs.SaveFailed("the database is away"))
    assert rewinds(it) == [(0, (7,))], "not at once"
    it.later(1)
    assert rewinds(it) == [(0, (7,)), (0, (7,))]
    it.tell(inputs.Rewind(2, command=8))
    it.tell(inputs.SaveFailed("the database is away"))
    it.later(1)
    assert rewinds(it)[2:] == [(2, (7, 8))]


def test_a_rewind_whose_save_fails_is_still_made_before_the_owner_lets_go() -> None:
    it = Steering(4, batch_size=2, hold=(effects.Read,))
    it.hold = (effects.Save,)
    it.tell(inputs.Rewind(0))
    it.tell(inputs.Drain("another owner goes on"))
    it.tell(inputs.SaveFailed("the database is away"))
    assert it.phase == "draining"
    it.release()
    it.later(1)
    assert rewinds(it) == [(0, ()), (0, ())]
    assert it.phase == "finished"


def test_a_rewind_can_also_skip_forward() -> None:
    it = Steering(10)
    it.tell(inputs.Rewind(8))
    it.handle()
    assert it.delivered[-1] == [9]


@pytest.mark.parity("T347", "T350", "L2", "L15")
def test_after_the_lease_is_lost_nothing_more_is_asked_for() -> None:
    it = Steering(5)
    asked = len(it.seen)
    it.tell(inputs.LeaseLost("session ended"))
    assert it.phase == "finished"
    it.tell(inputs.Handled(1))
    it.tell(inputs.HeadSeen(9))
    it.tell(inputs.Resume())
    assert [type(effect) for effect in it.seen[asked:]] == [effects.Report]
    assert it.machine.wake_at is None


@pytest.mark.parity("T348", "T349")
def test_the_next_owner_goes_on_where_the_durable_progress_says() -> None:
    it = Steering(3, progress=Progress(2, 2))
    assert it.delivered == [[3]]


@pytest.mark.parity("L6")
def test_a_stream_that_was_deleted_for_good_and_created_again_is_read_from_its_beginning() -> None:
    it = Steering(0, source="orders-1", progress=Progress(3, 3, stream_id=7), hold=(effects.Read,))
    read = it.last(effects.Read)
    it.events = [recorded(50 + n, "orders-1", number=n, version=n) for n in (1, 2, 3, 4)]
    page = replace(it.page(read.after, read.limit), stream_id=8)
    it.tell(inputs.PageRead(read.read_id, page))
    again = it.last(effects.Read)
    assert again.after == 0
    it.tell(inputs.PageRead(again.read_id, replace(it.page(0, 10), stream_id=8)))
    assert it.delivered == [[1]]
    assert it.saved.stream_id == 8


@pytest.mark.parity("L6")
def test_what_was_in_flight_of_the_old_stream_is_not_saved_as_progress_in_the_new_one() -> None:
    it = Steering(
        [recorded(n, "orders-1", number=n, version=n) for n in (1, 2)],
        source="orders-1",
        progress=Progress(0, stream_id=7),
        sieve=by(lambda event: None),
        consumers=2,
        hold=(effects.Read,),
    )
    it.tell(inputs.PageRead(it.last(effects.Read).read_id, replace(it.page(0, 10), stream_id=7)))
    assert it.in_hand == {0: [1], 1: [2]}
    it.tell(inputs.HeadSeen(3))
    it.tell(inputs.PageRead(it.last(effects.Read).read_id, replace(it.page(2, 10), stream_id=8)))
    it.handle()
    it.later(10)
    assert (it.saved.checkpoint, it.saved.stream_id) == (1, 7), "the new stream's first event is not settled"
    it.handle()
    assert (it.saved.checkpoint, it.saved.stream_id) == (0, 8)


def test_a_consumer_that_joins_gets_what_is_waiting_at_once() -> None:
    it = Steering(3, consumers=1, sieve=by(lambda _: None))
    it.tell(inputs.Joined(5))
    assert it.in_hand == {0: [1], 5: [2]}


@pytest.mark.parity("T286", "T285")
def test_what_a_consumer_had_that_left_goes_to_the_others() -> None:
    it = Steering(4, consumers=2, sieve=by(lambda _: None))
    it.tell(inputs.Left(0))
    it.open.pop(1)
    assert it.in_hand == {1: [2]}
    it.handle()
    assert it.in_hand == {1: [1]}
    assert it.last(effects.Deliver).attempt == 2
    assert it.machine.watermark == 0, "2 is settled, and 1 is not"
    it.handle()
    assert it.machine.watermark == 2


@pytest.mark.parity("T324")
def test_a_part_of_a_delivery_can_be_acknowledged_before_the_rest() -> None:
    it = Steering(6, batch_size=3, checkpoint_events=1)
    it.tell(inputs.Handled(1, frozenset([1])))
    assert it.saved.checkpoint == 1
    it.tell(inputs.Handled(1, frozenset([3])))
    assert it.saved.checkpoint == 1, "2 is not settled"
    it.tell(inputs.Handled(1, frozenset([3])))
    assert it.last(effects.Refuse).delivery_id == 1
    it.tell(inputs.Handled(1, frozenset([2])))
    assert it.saved.checkpoint == 3
    assert it.delivered[-1] == [4, 5, 6]


@pytest.mark.parity("T376")
def test_each_acknowledgement_lets_one_more_out() -> None:
    it = Steering(6, consumers=3, sieve=by(lambda _: None), max_in_flight=3, read_size=1)
    for handled in range(1, 7):
        assert it.machine.watermark == handled - 1
        assert [n for batch in it.delivered for n in batch] == list(range(1, min(handled + 2, 6) + 1))
        it.handle()
    assert it.machine.watermark == 6


@pytest.mark.parity("T377")
def test_one_acknowledgement_for_all_lets_all_the_others_out() -> None:
    it = Steering(6, batch_size=3)
    it.handle()
    assert (it.delivered, it.machine.watermark) == ([[1, 2, 3], [4, 5, 6]], 3)


def test_an_unlisted_pair_of_the_table_changes_nothing() -> None:
    for phase in Phase:
        for cause in Cause:
            assert after(phase, cause) is TABLE[phase].get(cause, phase)
    assert after(Phase.PAUSED, Cause.TROUBLE) is Phase.PAUSED
    assert TABLE[Phase.FINISHED] == {}


def test_every_phase_can_be_reached_and_left_except_the_last() -> None:
    reached = {phase for row in TABLE.values() for phase in row.values()}
    assert reached == set(Phase) - {Phase.NEW}
    assert all(TABLE[phase] for phase in Phase if phase is not Phase.FINISHED)


def test_trouble_while_paused_does_not_end_the_pause() -> None:
    it = Steering(1, checkpoint_events=1)
    it.hold = (effects.Save,)
    it.handle()
    it.tell(inputs.Pause("asked to"))
    it.tell(inputs.SaveFailed("no answer"))
    assert it.phase == "paused"
    it.tell(inputs.Resume())
    assert it.phase == "stuck", "the trouble is still there"


@pytest.mark.parity("L15")
@pytest.mark.parametrize(
    ("fact", "phase", "reason"),
    [
        (lambda read: inputs.ReadFailed(read.read_id, "the database is away"), "stuck", "the database is away"),
        (lambda read: inputs.Pause("maintenance"), "paused", "maintenance"),
        (lambda read: inputs.LeaseLost("the session ended"), "finished", "the session ended"),
    ],
)
def test_whatever_keeps_a_subscription_from_delivering_is_told_with_its_reason(
    fact: Callable[[effects.Read], inputs.Input], phase: str, reason: str
) -> None:
    it = Steering(1, hold=(effects.Read,))
    told = len(it.all(effects.Report))
    read = it.held[0]
    assert isinstance(read, effects.Read)
    it.tell(fact(read))
    [report] = it.all(effects.Report)[told:]
    assert report.phase.value == phase
    assert reason in (report.reason or "")


def halts(it: Steering) -> list[tuple[int, str | None]]:
    return [(each.number, None if each.halt is None else each.halt.phase) for each in it.all(effects.Halt)]


def test_a_stop_is_written_down_for_the_next_owner_and_so_is_its_end() -> None:
    it = Steering(2, retry=RetryPolicy(attempts=1, then=OnFailure.STOP))
    it.fail()
    assert halts(it) == [(1, "failed")]
    it.tell(inputs.Resume())
    assert halts(it) == [(1, "failed"), (2, None)]
    it.tell(inputs.Resume())
    assert len(halts(it)) == 2, "it goes on already"


def test_a_stop_in_a_drain_is_the_next_owners_and_the_drain_waits_until_it_is_durable() -> None:
    it = Steering(1, retry=RetryPolicy(attempts=1, then=OnFailure.STOP), hold=(effects.Halt,))
    it.tell(inputs.Drain())
    it.fail()
    assert halts(it) == [(1, "failed")]
    assert it.phase == "draining"
    it.release()
    assert it.phase == "finished"


@pytest.mark.parametrize("phase", ["failed", "paused"])
def test_an_owner_after_a_stop_delivers_nothing_before_it_is_resumed_and_counts_attempts_anew(phase: str) -> None:
    it = Steering(
        3,
        progress=Progress(0, 1, 2),
        halt=Halt(phase, "no customer", age=60.0),
        retry=RetryPolicy(attempts=2),
    )
    it.later(5)
    assert (it.phase, it.machine.condition.reason, it.machine.condition.since) == (phase, "no customer", 40.0)
    assert it.delivered == []
    it.tell(inputs.Resume())
    assert [each.attempt for each in it.all(effects.Deliver)] == [1]
    assert it.saved.attempt == 1, "it is counted durably, and from 1"
    assert halts(it) == [(1, None)]
    it.handle_all()
    assert it.machine.watermark == 3


def test_an_owner_that_finds_it_resumed_goes_on_at_once_with_all_attempts() -> None:
    it = Steering(1, progress=Progress(0, 1, 2), halt=Halt(None, None, 60.0), retry=RetryPolicy(attempts=2))
    assert [each.attempt for each in it.all(effects.Deliver)] == [1]
    assert halts(it) == [(1, None)]
