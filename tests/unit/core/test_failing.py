"""What becomes of events that are not handled."""

from __future__ import annotations

from datetime import timedelta

import pytest

from headwater.storage.leases import Progress
from headwater.subscriptions.core import effects, inputs
from headwater.subscriptions.core.retry import delay
from headwater.subscriptions.core.sieve import Sieve
from headwater.subscriptions.options import OnFailure, RetryPolicy
from headwater.subscriptions.testing.builders import recorded

from .steering import Steering, streams

TWICE = RetryPolicy(attempts=2)


def parked(it: Steering) -> list[tuple[int, str, str | None, int]]:
    return [
        (each.event.number, each.reason, each.error, each.attempts)
        for effect in it.all(effects.Park)
        for each in effect.parked
    ]


@pytest.mark.parity("L29")
def test_a_failed_event_is_tried_again_after_a_growing_delay() -> None:
    it = Steering(1, retry=RetryPolicy(attempts=3, first_delay=timedelta(seconds=1), factor=2, jitter=0))
    it.fail()
    it.later(0.9)
    assert len(it.delivered) == 1
    it.later(0.2)
    assert [each.attempt for each in it.all(effects.Deliver)] == [1, 2]
    it.fail()
    it.later(1.9)
    assert len(it.delivered) == 2
    it.later(0.2)
    assert [each.attempt for each in it.all(effects.Deliver)] == [1, 2, 3]


def test_the_delay_is_bounded_and_jittered() -> None:
    policy = RetryPolicy(first_delay=timedelta(seconds=1), factor=10, max_delay=timedelta(seconds=5), jitter=0.5)
    assert delay(policy, 1, lambda: 0.0) == 1
    assert delay(policy, 1000, lambda: 0.0) == 5
    assert delay(policy, 1000, lambda: 0.999) == pytest.approx(2.5, abs=0.01)


def test_while_an_event_is_tried_again_in_order_delivery_waits_and_says_why() -> None:
    it = Steering(3)
    it.fail(error="no such customer")
    assert it.open == {}
    assert it.phase == "stuck"
    assert "no such customer" in (it.machine.condition.reason or "")
    it.later(5)
    it.handle()
    assert it.phase == "running"


def test_the_last_attempt_of_a_batch_is_made_event_by_event_and_only_the_culprit_is_parked() -> None:
    it = Steering(streams("a", "b", "c", "d"), batch_size=4, retry=TWICE)
    it.fail()
    it.later(1)
    assert it.delivered[-1] == [1]
    it.handle()
    assert it.delivered[-1] == [2]
    it.fail(error="poison")
    it.handle_all()
    assert it.delivered[-2:] == [[3], [4]]
    assert parked(it) == [(2, "failed", "poison", 2)]


def test_later_events_of_a_parked_key_are_parked_behind_it_and_other_keys_go_on() -> None:
    it = Steering(streams("a", "b", "a", "c", "a"), retry=RetryPolicy(attempts=1))
    it.fail()
    it.handle_all()
    assert [number for batch in it.delivered for number in batch] == [1, 2, 4]
    assert [(number, reason) for number, reason, _, _ in parked(it)] == [(1, "failed"), (3, "behind"), (5, "behind")]
    assert it.machine.watermark == 5
    it.append(recorded(6, "a"), recorded(7, "b"))
    it.handle_all()
    assert parked(it)[-1][:2] == (6, "behind")
    assert it.delivered[-1] == [7]


def test_keys_with_parked_events_stay_blocked_under_the_next_owner_until_they_are_freed() -> None:
    it = Steering(streams("a", "b"), parked_keys=["a"])
    assert it.delivered == [[2]]
    assert parked(it)[0][:2] == (1, "behind")
    it.tell(inputs.KeysFreed(frozenset("a"), it.machine.parked))
    it.append(recorded(3, "a"))
    it.handle_all()
    assert it.delivered[-1] == [3]


def test_a_parked_event_is_not_settled_before_it_is_durably_parked() -> None:
    it = Steering(1, retry=RetryPolicy(attempts=1), hold=(effects.Park,))
    it.fail()
    it.later(1)
    assert it.machine.watermark == 0
    it.tell(inputs.ParkFailed(it.held[-1].token, "no answer"))  # type: ignore[union-attr]
    it.later(5)
    assert len(it.all(effects.Park)) == 2
    it.release()
    assert it.machine.watermark == 1


def test_nothing_is_parked_behind_an_event_before_that_is_durably_parked() -> None:
    it = Steering(streams("a", "b"), retry=RetryPolicy(attempts=1), hold=(effects.Park,))
    it.fail()
    it.handle_all()
    it.append(recorded(3, "a"), recorded(4, "a"))
    it.later(1)
    assert parked(it) == [(1, "failed", "broken", 1)]
    it.tell(inputs.ParkFailed(it.held[-1].token, "no answer"))  # type: ignore[union-attr]
    it.later(5)
    assert [(number, reason) for number, reason, _, _ in parked(it)[1:]] == [
        (1, "failed"),
        (3, "behind"),
        (4, "behind"),
    ]
    assert len(it.all(effects.Park)) == 2
    it.tell(inputs.Parked(it.all(effects.Park)[0].token))
    assert it.machine.watermark == 0, "an answer that came too late"
    it.release()
    assert it.machine.watermark == 4


def test_an_event_can_be_skipped_instead() -> None:
    it = Steering(2, retry=RetryPolicy(attempts=1, then=OnFailure.SKIP))
    it.fail(error="no use")
    it.handle_all()
    assert [(each.event.number, each.error) for each in it.all(effects.Skipped)] == [(1, "no use")]
    assert it.machine.watermark == 2


def test_a_stop_keeps_the_event_and_the_reason_until_it_is_resumed() -> None:
    it = Steering(2, retry=RetryPolicy(attempts=1, then=OnFailure.STOP))
    it.fail(error="stop here")
    assert it.phase == "failed"
    assert "stop here" in (it.machine.condition.reason or "")
    it.later(60)
    assert it.machine.watermark == 0
    it.tell(inputs.Resume())
    assert it.phase == "running"
    it.handle_all()
    assert it.delivered == [[1], [1], [2]]


def test_an_error_that_no_retry_can_mend_ends_the_attempts_at_once() -> None:
    it = Steering(1, retry=RetryPolicy(attempts=5))
    it.fail(mendable=False)
    assert parked(it)[0][0] == 1


@pytest.mark.parity("L7", "L11")
def test_a_selector_that_raises_is_a_failure_of_that_event_alone() -> None:
    def selector(event: object) -> bool:
        if getattr(event, "number", 0) == 2:
            raise ValueError("cannot say")
        return True

    it = Steering(streams("a", "b", "c"), sieve=Sieve(selector=selector), batch_size=10)
    assert it.delivered == [[1, 3]]
    assert parked(it) == [(2, "failed", "ValueError: cannot say", 1)]


@pytest.mark.parity("L7")
def test_a_read_error_is_retried_for_ever_and_seen_from_outside() -> None:
    it = Steering(1, hold=(effects.Read,))
    for _ in range(20):
        read = it.held.pop()
        assert isinstance(read, effects.Read)
        it.tell(inputs.ReadFailed(read.read_id, "connection refused"))
        assert it.phase == "stuck"
        assert "connection refused" in (it.machine.condition.reason or "")
        it.later(6)
    it.release()
    assert it.phase == "running"
    assert it.delivered == [[1]]


@pytest.mark.parity("L3", "E18")
def test_a_failed_save_is_seen_from_outside_and_tried_again() -> None:
    it = Steering(1, checkpoint_events=1, progress=Progress(0))
    it.hold = (effects.Save,)
    it.handle()
    it.tell(inputs.SaveFailed("disk full"))
    assert it.phase == "stuck"
    assert it.machine.checkpoint == 0
    it.hold = ()
    it.later(6)
    assert it.machine.checkpoint == 1
    assert it.phase == "running"


def test_the_breaker_pauses_when_every_event_fails() -> None:
    it = Steering(50, retry=RetryPolicy(attempts=1, then=OnFailure.SKIP), breaker=3)
    for _ in range(3):
        it.fail()
    assert it.phase == "paused"
    assert "breaker" in (it.machine.condition.reason or "")
    assert it.machine.watermark == 3
    it.tell(inputs.Resume())
    it.handle()
    it.fail()
    it.fail()
    assert it.phase == "running", "a success in between starts the count again"


ONCE = RetryPolicy(attempts=1)


def fail_all(it: Steering, *, but: str = "") -> None:
    """Let everything fail that is delivered from now on, but events of one stream."""
    while it.open and it.phase != "paused":
        [event] = next(iter(it.open.values())).events
        it.handle() if event.stream == but else it.fail(error=f"no {event.stream}")


@pytest.mark.parametrize("consumers", [0, 3])
@pytest.mark.parametrize("source", ["$all", "a"])
def test_the_breaker_pauses_when_nothing_of_the_only_key_gets_through(source: str, consumers: int) -> None:
    it = Steering(streams(*"a" * 500), retry=ONCE, breaker=20, source=source, consumers=consumers)
    fail_all(it)
    assert it.phase == "paused"
    assert "no a" in (it.machine.condition.reason or "")
    assert len(parked(it)) == 1, "what nobody has tried is not parked: it comes again when it is resumed"
    assert it.machine.watermark == 1


def test_the_breaker_counts_live_events_of_the_only_key_that_go_behind_one_by_one() -> None:
    it = Steering(streams("a"), retry=ONCE, breaker=20)
    it.fail()
    for position in range(2, 30):
        it.append(recorded(position, "a"))
        if it.phase == "paused":
            break
    assert (it.phase, position) == ("paused", 20)


@pytest.mark.parametrize("consumers", [0, 3])
def test_the_breaker_pauses_when_nothing_of_ten_keys_gets_through(consumers: int) -> None:
    it = Steering(streams(*"abcdefghij" * 100), retry=ONCE, breaker=20, consumers=consumers)
    fail_all(it)
    assert it.phase == "paused"
    assert len(parked(it)) <= 20
    it.later(60)
    assert it.machine.watermark <= 20


def test_the_breaker_pauses_when_ten_keys_fail_that_got_on_before_though_others_that_did_are_idle() -> None:
    names = [chr(ord("a") + n) for n in range(26)]
    it = Steering(streams(*names * 2), retry=ONCE, breaker=20)
    it.handle_all()
    position = len(it.events)
    while it.phase != "paused" and position < 500:
        position += 1
        it.append(recorded(position, names[position % 10]))
        fail_all(it)
    assert it.phase == "paused"
    assert position - 52 <= 40


@pytest.mark.parametrize("consumers", [0, 3])
def test_one_poisoned_key_that_is_busy_holds_up_no_other_one_that_is_idle(consumers: int) -> None:
    it = Steering(streams(*"abc" * 10, *"a" * 40), retry=ONCE, breaker=20, consumers=consumers)
    for _ in range(30):
        it.handle()
    fail_all(it)
    for position in range(71, 200):
        it.append(recorded(position, "a"))
    assert it.phase == "running"
    it.append(recorded(200, "b"))
    it.handle_all()
    assert it.delivered[-1] == [200]
    assert it.machine.watermark == 200


def test_an_owner_that_finds_one_key_poisoned_goes_on_for_the_others() -> None:
    it = Steering(streams(*"a" * 100), retry=ONCE, breaker=20, parked_keys=["a"])
    assert it.phase == "running"
    it.append(recorded(101, "b"))
    it.handle_all()
    assert it.delivered == [[101]]


def test_nothing_is_broken_off_before_all_that_was_read_is_tried() -> None:
    it = Steering(streams("a", "b", "c", "d", *"abcd" * 50, "e"), retry=ONCE, breaker=20)
    fail_all(it, but="e")
    assert it.phase == "running"
    assert it.delivered[-1] == [205]


@pytest.mark.parametrize("consumers", [0, 3])
def test_what_a_broken_off_key_has_left_goes_on_in_order_when_it_is_resumed(consumers: int) -> None:
    it = Steering(streams(*"a" * 50), retry=ONCE, breaker=20, consumers=consumers)
    fail_all(it)
    it.tell(inputs.KeysFreed(frozenset("a"), it.machine.parked))  # what was parked is mended, and settled
    it.append(recorded(51, "a"))
    it.tell(inputs.Resume())
    it.handle_all()
    assert [number for batch in it.delivered for number in batch] == list(range(1, 52))
    assert it.machine.watermark == 51


def test_resumed_without_that_it_waits_behind_and_the_breaker_counts_anew() -> None:
    it = Steering(streams(*"a" * 50), retry=ONCE, breaker=20)
    fail_all(it)
    it.tell(inputs.Resume())
    assert [(number, reason) for number, reason, *_ in parked(it)][:3] == [(1, "failed"), (2, "behind"), (3, "behind")]
    it.later(1)
    assert it.phase == "running"
    for position in range(51, 80):
        it.append(recorded(position, "a"))
    assert it.phase == "paused"


def test_what_may_be_parked_already_is_not_handed_out_though_its_key_is_free() -> None:
    it = Steering(streams("b", "a", "a"), retry=ONCE, breaker=3, hold=(effects.Park,))
    it.handle()
    it.fail()
    park = it.last(effects.Park)
    assert [each.event.number for each in park.parked] == [2, 3]
    it.tell(inputs.ParkFailed(park.token, "no answer"))
    for position, stream in enumerate("cdef", 4):
        it.append(recorded(position, stream))
        if it.open:
            it.fail()
    assert it.phase == "paused"
    it.tell(inputs.KeysFreed(frozenset("a"), it.machine.parked))
    it.tell(inputs.Resume())
    it.later(5)
    it.release()
    assert 3 not in [number for batch in it.delivered for number in batch]


def test_a_drain_of_what_was_broken_off_leaves_the_rest_to_the_next_owner() -> None:
    it = Steering(streams(*"a" * 50), retry=ONCE, breaker=20)
    fail_all(it)
    it.tell(inputs.Drain())
    assert (it.phase, it.machine.checkpoint) == ("finished", 1)


@pytest.mark.parametrize("then", [OnFailure.PARK, OnFailure.STOP])
def test_the_attempt_that_is_not_made_after_owners_that_died_is_not_counted(then: OnFailure) -> None:
    it = Steering(1, progress=Progress(0, 1, 2), retry=RetryPolicy(attempts=2, then=then))
    assert it.delivered == []
    if then is OnFailure.PARK:
        assert [attempts for *_, attempts in parked(it)] == [2]
    else:
        assert "failed 2 times" in (it.machine.condition.reason or "")


@pytest.mark.parity("T285", "T286", "L37")
def test_what_a_lost_consumer_had_is_delivered_again_to_another_in_order() -> None:
    it = Steering(streams("a", "a", "b"), consumers=2)
    it.fail(1, lost=True)
    assert it.in_hand == {1: [3]}
    it.handle()
    it.later(0.5)
    assert it.in_hand == {1: [1]}, "consumer 0 rests, and event 2 waits for event 1"


@pytest.mark.parity("T343", "E8", "L18")
def test_a_late_answer_to_an_earlier_attempt_changes_nothing() -> None:
    it = Steering(1)
    first = it.last(effects.Deliver).delivery_id
    it.fail()
    it.later(1)
    it.tell(inputs.Handled(first))
    assert it.last(effects.Refuse).delivery_id == first
    assert it.machine.watermark == 0
    it.tell(inputs.Handled(999))
    assert it.machine.watermark == 0


@pytest.mark.parity("L17")
def test_hints_while_a_read_waits_to_be_retried_lead_to_no_further_attempt() -> None:
    it = Steering(1, hold=(effects.Read,))
    read = it.held.pop()
    assert isinstance(read, effects.Read)
    it.tell(inputs.ReadFailed(read.read_id, "connection refused"))
    wake_at, reads = it.machine.wake_at, len(it.all(effects.Read))
    for head in range(1, 21):
        it.tell(inputs.HeadSeen(head))
    assert (it.machine.wake_at, len(it.all(effects.Read))) == (wake_at, reads)
    assert wake_at is not None
    it.later(wake_at - it.now)
    assert len(it.all(effects.Read)) == reads + 1
