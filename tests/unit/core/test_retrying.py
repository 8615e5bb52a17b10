"""Parked events that are handled again, beside the stream."""

from __future__ import annotations

import pytest

from headwater.storage.leases import Progress, Retried
from headwater.storage.model import EventPage, RecordedEvent
from headwater.subscriptions.core import effects, inputs
from headwater.subscriptions.core.retrying import ParkedRetry
from headwater.subscriptions.options import Delivery
from headwater.subscriptions.testing.builders import recorded

from .steering import Steering, streams


def retry(*events: RecordedEvent) -> inputs.RetryParked:
    return inputs.RetryParked(tuple(ParkedRetry(event, event.stream, 5, event.number) for event in events))


PASSED = Progress(9)
"""A checkpoint behind which the parked events of these tests stand."""


def outcomes(it: Steering) -> list[tuple[int, str | None]]:
    return [(each.position, each.error) for each in it.all(effects.Retry)]


@pytest.mark.parity("L29")
def test_parked_events_are_handled_again_one_at_a_time_in_order() -> None:
    it = Steering(0, progress=PASSED, parked_keys=["a"])
    it.tell(retry(recorded(1, "a"), recorded(2, "a"), recorded(3, "b")))
    assert it.delivered == [[1]]
    assert it.last(effects.Deliver).attempt == 6
    it.handle_all()
    assert it.delivered == [[1], [2], [3]]
    assert outcomes(it) == [(1, None), (2, None), (3, None)]


def test_after_a_failure_later_ones_of_the_same_key_wait_again() -> None:
    it = Steering(0, progress=PASSED, parked_keys=["a"])
    it.tell(retry(recorded(1, "a"), recorded(2, "a"), recorded(3, "b")))
    it.fail(error="still broken")
    it.handle_all()
    assert it.delivered == [[1], [3]]
    assert outcomes(it) == [(1, "still broken"), (3, None)]


def test_a_retry_waits_until_the_only_consumer_is_free_and_the_stream_goes_on_after_it() -> None:
    it = Steering([recorded(10, "b"), recorded(11, "b")], progress=PASSED)
    it.tell(retry(recorded(1, "a")))
    assert len(it.delivered) == 1
    it.handle()
    assert it.last(effects.Deliver).events[0].stream == "a"
    it.handle_all()
    assert it.machine.watermark == 11


def test_the_checkpoint_does_not_depend_on_retries() -> None:
    it = Steering(3, parked_keys=["x"])
    it.handle_all()
    it.tell(retry(recorded(1, "x")))
    it.later(5)
    assert it.machine.checkpoint == 3


def test_an_exactly_once_retry_is_settled_in_the_handlers_own_transaction() -> None:
    it = Steering(0, progress=PASSED, parked_keys=["a"], delivery=Delivery.EXACTLY_ONCE)
    it.tell(retry(recorded(1, "a")))
    assert it.last(effects.Deliver).commit == Retried(1, "a")


def test_a_drain_waits_for_a_retry_that_is_in_flight_and_leaves_the_others() -> None:
    it = Steering(0, progress=PASSED, parked_keys=["a"])
    it.tell(retry(recorded(1, "a"), recorded(2, "a")))
    it.tell(inputs.Drain())
    assert it.phase == "draining"
    it.handle()
    assert it.phase == "finished"
    assert outcomes(it) == [(1, None)]


def test_a_key_stays_blocked_when_something_was_parked_while_it_was_found_free() -> None:
    it = Steering(0, progress=PASSED, parked_keys=["a"])
    before = it.machine.parked
    it.append(recorded(10, "a"))
    it.tell(inputs.KeysFreed(frozenset("a"), before))
    assert it.machine.blocked_keys == {"a"}
    it.tell(inputs.KeysFreed(frozenset("a"), it.machine.parked))
    assert it.machine.blocked_keys == frozenset()


def test_what_a_consumer_had_that_left_is_tried_again_by_another() -> None:
    it = Steering(0, progress=PASSED, consumers=2, parked_keys=["a"])
    it.tell(retry(recorded(1, "a")))
    it.open.clear()
    it.tell(inputs.Left(0))
    assert it.in_hand == {1: [1]}


def test_a_key_stays_blocked_while_something_of_it_is_about_to_be_parked() -> None:
    it = Steering(0, progress=PASSED, parked_keys=["a", "b"], hold=(effects.Park,))
    it.append(recorded(10, "a"))
    it.tell(inputs.KeysFreed(frozenset("ab"), it.machine.parked))
    assert it.machine.blocked_keys == {"a"}


def test_an_event_that_the_checkpoint_has_not_passed_waits_until_it_has() -> None:
    it = Steering(streams("b", "a"), progress=Progress(0), parked_keys=["a"])
    it.tell(retry(recorded(2, "a")))
    assert it.delivered == [[1]], "the event is read again, and found parked: handled first, it would be parked anew"
    it.handle()
    it.later(1)
    assert it.delivered == [[1], [2]]


def test_the_next_one_waits_until_it_is_written_down_how_the_last_one_went() -> None:
    it = Steering(0, progress=PASSED, parked_keys=["a"], hold=(effects.Retry,))
    it.tell(retry(recorded(1, "a"), recorded(2, "a")))
    it.handle()
    assert it.delivered == [[1]]
    it.tell(inputs.Drain())
    assert it.phase == "draining", "the next owner would handle the event again"
    it.release()
    assert it.phase == "finished"
    assert it.delivered == [[1]]


def test_what_is_withdrawn_gives_its_consumer_back_and_takes_the_later_ones_of_its_key_along() -> None:
    it = Steering(0, progress=PASSED, parked_keys=["a"])
    it.tell(retry(recorded(1, "a"), recorded(2, "a"), recorded(3, "b")))
    it.open.clear()
    it.tell(inputs.Withdrawn(it.last(effects.Deliver).delivery_id))
    assert it.in_hand == {0: [3]}
    it.handle()
    assert outcomes(it) == [(3, None)]


def test_what_was_found_before_a_stream_was_made_anew_is_looked_for_anew() -> None:
    held = (effects.Read, effects.Save)
    it = Steering(0, source="a", progress=Progress(2, 2, stream_id=7), parked_keys=["a"], hold=held)
    old = retry(recorded(9, "a"))
    it.tell(old)
    assert it.delivered == [], "the checkpoint has not passed it"
    it.tell(inputs.PageRead(it.last(effects.Read).read_id, EventPage([], 2, 2, stream_id=8)))
    assert it.last(effects.Save).rewind
    it.tell(old)
    assert it.machine.retrying, "the rewind is not durable yet"
    it.tell(inputs.Saved())
    assert not it.machine.retrying, "its number is one of the old incarnation: it would wait for ever"
    it.tell(old)
    assert not it.machine.retrying, "found before the rewind, told after it"
    it.tell(inputs.RetryParked((ParkedRetry(recorded(9, "a"), "a", 5, 0),), it.machine.rewinds))
    assert it.delivered == [[9]]


def test_an_at_most_once_event_that_is_about_to_be_parked_again_is_not_handled_again_before() -> None:
    """An owner died that had parked it, and the checkpoint had not passed it: settled first, it is parked anew."""
    again, other = streams("a", "b")
    it = Steering([again, other], parked_keys=["a"], delivery=Delivery.AT_MOST_ONCE, hold=(effects.Park,))
    it.handle()
    assert it.machine.checkpoint == 2
    it.tell(retry(again))
    assert it.delivered == [[2]]
    it.release()
    assert it.delivered == [[2], [1]]
