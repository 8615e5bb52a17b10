"""What is delivered, to whom, in which order and when."""

from __future__ import annotations

import pytest

from headwater.storage.leases import Progress
from headwater.storage.model import EventPage
from headwater.subscriptions.core import effects, inputs
from headwater.subscriptions.core.sieve import Sieve
from headwater.subscriptions.testing.builders import recorded

from .steering import Steering, by, streams


@pytest.mark.parity("T340")
def test_one_consumer_gets_everything_in_order_a_batch_at_a_time() -> None:
    it = Steering(10, batch_size=3)
    it.handle_all()
    assert it.delivered == [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10]]
    assert it.machine.watermark == 10


@pytest.mark.parity("T319")
def test_stored_events_come_in_full_batches_and_new_ones_after_them() -> None:
    it = Steering(10, batch_size=3)
    it.handle_all()
    it.append(*(recorded(n) for n in range(11, 16)))
    it.handle_all()
    assert it.delivered == [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10], [11, 12, 13], [14, 15]]


@pytest.mark.parity("T321", "T322")
@pytest.mark.parametrize("begin", [0, 2])
def test_events_of_all_streams_come_one_after_the_other_acknowledgement(begin: int) -> None:
    it = Steering(streams("a", "b", "a", "b"), progress=Progress(begin))
    for position in range(begin + 1, 5):
        assert it.delivered[-1] == [position]
        assert it.in_hand == {0: [position]}, "one at a time"
        it.handle()
    assert it.delivered == [[position] for position in range(begin + 1, 5)]


@pytest.mark.parity("T344")
def test_forty_stored_events_and_what_is_appended_meanwhile_and_afterwards_come_in_order() -> None:
    it = Steering(40, batch_size=10, read_size=10)
    for last in (10, 20):
        assert it.delivered[-1][-1] == last
        it.handle()
        assert it.machine.watermark == last
    it.append(*(recorded(n) for n in range(41, 51)))
    for last in (30, 40, 50):
        assert it.delivered[-1][-1] == last
        it.handle()
        assert it.machine.watermark == last
    it.append(*(recorded(n) for n in range(51, 56)))
    it.handle()
    assert it.machine.watermark == 55
    assert [number for batch in it.delivered for number in batch] == list(range(1, 56))


@pytest.mark.parity("T341")
def test_events_that_are_appended_while_catching_up_follow_in_order() -> None:
    it = Steering(5, batch_size=3, read_size=3)
    it.handle()
    it.append(*(recorded(n) for n in range(6, 9)))
    it.handle_all()
    assert [number for batch in it.delivered for number in batch] == list(range(1, 9))


@pytest.mark.parity("T309", "T328")
def test_delivery_begins_after_the_checkpoint() -> None:
    it = Steering(5, progress=Progress(3), batch_size=10)
    assert it.delivered == [[4, 5]]


@pytest.mark.parity("T323", "E21")
def test_a_hint_about_what_was_read_already_leads_to_nothing() -> None:
    it = Steering(3, batch_size=10)
    reads = len(it.all(effects.Read))
    it.tell(inputs.HeadSeen(2))
    it.tell(inputs.HeadSeen(3))
    assert len(it.all(effects.Read)) == reads


@pytest.mark.parity("T323")
def test_a_page_that_comes_a_second_time_is_ignored() -> None:
    it = Steering(6, batch_size=3, read_size=3, hold=(effects.Read,))
    first = it.held.pop()
    assert isinstance(first, effects.Read)
    it.tell(inputs.PageRead(first.read_id, it.page(0, 3)))
    asked = len(it.seen)
    it.tell(inputs.PageRead(first.read_id, it.page(0, 3)))
    assert (it.delivered, it.seen[asked:]) == ([[1, 2, 3]], [])
    it.release()
    it.handle_all()
    assert it.delivered == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parity("T342", "L13")
def test_an_invented_head_leads_to_one_look_and_not_to_a_busy_loop() -> None:
    it = Steering(3, batch_size=10)
    reads = len(it.all(effects.Read))
    it.tell(inputs.HeadSeen(1_000_000))
    assert len(it.all(effects.Read)) == reads + 1
    assert it.delivered == [[1, 2, 3]]
    it.append(*(recorded(n) for n in range(4, 7)))
    it.handle_all()
    assert it.delivered == [[1, 2, 3], [4, 5, 6]], "what is really there comes, in order"


@pytest.mark.parity("T357", "L5")
def test_without_any_hint_the_poll_finds_new_events() -> None:
    it = Steering(0)
    it.append(recorded(1), hint=False)
    assert it.delivered == []
    it.later(it.options.poll_interval.total_seconds())
    assert it.delivered == [[1]]


@pytest.mark.parity("T346")
def test_the_checkpoint_passes_holes_and_what_the_filter_left_out() -> None:
    it = Steering([recorded(3), recorded(7)], batch_size=10)
    it.handle_all()
    it.later(1)
    assert it.saved.checkpoint == 7
    it.tell(inputs.HeadSeen(20))
    it.events.append(recorded(20))
    it.tell(inputs.HeadSeen(20))
    assert it.machine.watermark == 19


@pytest.mark.parity("T313")
def test_a_selector_leaves_events_out_and_the_checkpoint_passes_them() -> None:
    it = Steering(6, batch_size=10, sieve=Sieve(selector=lambda event: event.number % 2))
    assert it.delivered == [[1, 3, 5]]
    it.handle_all()
    it.later(1)
    assert it.saved.checkpoint == 6


@pytest.mark.parity("T289")
def test_the_watermark_passes_what_a_selector_leaves_out_as_soon_as_what_is_before_it_is_settled() -> None:
    it = Steering(5, sieve=Sieve(selector=lambda event: event.number % 3 == 0))
    assert (it.delivered, it.machine.watermark) == ([[3]], 2)
    it.handle()
    assert it.machine.watermark == 5
    it.append(*(recorded(n) for n in range(6, 12)))
    it.handle()
    assert it.machine.watermark == 8
    it.handle()
    assert (it.delivered, it.machine.watermark) == ([[3], [6], [9]], 11)


@pytest.mark.parity("T282", "T283", "T295")
@pytest.mark.parametrize("stored", [0, 5])
def test_events_without_order_go_to_whoever_is_free(stored: int) -> None:
    it = Steering(stored, consumers=3, sieve=by(lambda _: None))
    if not stored:
        it.append(*(recorded(n) for n in range(1, 6)))
    assert it.in_hand == {0: [1], 1: [2], 2: [3]}
    it.handle(2)
    assert it.in_hand == {0: [1], 1: [4], 2: [3]}
    it.handle(4)
    assert it.in_hand == {0: [1], 1: [5], 2: [3]}


@pytest.mark.parity("T284")
def test_the_watermark_moves_only_over_what_is_settled_without_a_gap() -> None:
    it = Steering(6, consumers=6, sieve=by(lambda _: None))
    for number, watermark in ((2, 0), (1, 2), (3, 3), (6, 3), (5, 3), (4, 6)):
        it.handle(number)
        assert it.machine.watermark == watermark


@pytest.mark.parity("T293", "T354", "T355")
def test_one_key_keeps_to_one_consumer_while_it_is_in_flight() -> None:
    it = Steering(streams("a", "a", "a", "a"), consumers=2, batch_size=2)
    assert it.in_hand == {0: [1, 2]}
    it.handle()
    assert it.in_hand == {1: [3, 4]}


@pytest.mark.parity("T294", "T353")
def test_two_keys_are_handled_side_by_side_each_in_order() -> None:
    it = Steering(streams("a", "b", "a", "b", "a"), consumers=3, batch_size=3)
    assert it.in_hand == {0: [1, 3, 5], 1: [2, 4]}
    odd_and_even = by(lambda event: str(event.number % 2))
    it = Steering(6, consumers=3, sieve=odd_and_even, batch_size=3)
    assert it.in_hand == {0: [1, 3, 5], 1: [2, 4, 6]}, "and the third has nothing to do"


@pytest.mark.parity("T356", "L4")
def test_a_key_is_never_with_two_consumers_when_there_are_more_keys_than_consumers() -> None:
    it = Steering(streams("A", "B", "C", "A"), consumers=2, batch_size=3, read_size=3)
    assert it.in_hand[0] == [1, 2, 3]
    assert all(4 not in events for events in it.in_hand.values()), "A is in flight with consumer 0"
    it.handle()
    assert 4 in next(iter(it.in_hand.values()))


@pytest.mark.parity("T340", "L26")
def test_no_more_is_read_than_may_be_in_flight() -> None:
    it = Steering(20, batch_size=5, read_size=5, max_in_flight=5)
    assert it.machine.unsettled == 5
    assert it.machine.at_capacity
    it.handle_all()
    assert [number for batch in it.delivered for number in batch] == list(range(1, 21))
    assert not it.machine.at_capacity


@pytest.mark.parity("L23")
def test_the_next_page_is_read_while_this_one_is_handled() -> None:
    it = Steering(20, batch_size=5, read_size=5, max_in_flight=10)
    assert it.delivered == [[1, 2, 3, 4, 5]]
    assert it.machine.unsettled == 10


@pytest.mark.parity("T364", "T365")
@pytest.mark.parametrize("begin", [0, 2])
def test_a_new_subscription_stands_where_it_begins_and_is_about_to_look(begin: int) -> None:
    it = Steering(5, progress=Progress(begin), hold=(effects.Read,))
    assert (it.machine.checkpoint, it.machine.watermark, it.machine.in_flight) == (begin, begin, 0)
    assert it.last(effects.Read).after == begin
    assert it.delivered == []


@pytest.mark.parity("T370", "T371")
def test_what_is_stored_comes_in_one_batch_and_after_its_acknowledgement_it_is_live() -> None:
    it = Steering(3, batch_size=10)
    assert it.delivered == [[1, 2, 3]]
    assert (it.machine.head, it.machine.watermark, it.machine.in_flight) == (3, 0, 3)
    it.handle()
    assert (it.machine.head, it.machine.watermark, it.machine.in_flight) == (3, 3, 0)
    assert not it.machine.catching_up
    it.later(60)
    assert it.delivered == [[1, 2, 3]]


@pytest.mark.parity("T378")
def test_at_capacity_it_goes_on_catching_up_when_there_is_room_again() -> None:
    it = Steering(6, read_size=3, max_in_flight=3, batch_size=3)
    assert (it.machine.at_capacity, it.machine.catching_up, it.delivered) == (True, True, [[1, 2, 3]])
    it.handle()
    assert it.delivered == [[1, 2, 3], [4, 5, 6]]
    it.handle()
    assert (it.machine.at_capacity, it.machine.catching_up) == (False, False)


def test_catching_up_and_live_follow_from_what_was_read() -> None:
    it = Steering(6, read_size=3, max_in_flight=3, batch_size=3)
    assert it.machine.catching_up
    assert (it.machine.watermark, it.machine.in_flight) == (0, 3)
    it.handle_all()
    assert not it.machine.catching_up
    assert (it.machine.watermark, it.machine.in_flight) == (6, 0)


@pytest.mark.parity("L13")
def test_an_empty_page_with_a_higher_head_is_not_read_again_at_once() -> None:
    it = Steering(0, hold=(effects.Read,))
    first = it.held.pop()
    assert isinstance(first, effects.Read)
    it.tell(inputs.PageRead(first.read_id, EventPage([], 0, 50)))
    assert it.held == []


@pytest.mark.parity("T290")
def test_the_checkpoint_moves_although_a_selector_leaves_everything_out() -> None:
    it = Steering(1, sieve=Sieve(selector=lambda _: False))
    it.later(1)
    assert (it.delivered, it.saved.checkpoint) == ([], 1)
    it.append(*(recorded(n) for n in range(2, 4)))
    it.later(1)
    assert (it.delivered, it.saved.checkpoint) == ([], 3)
    it.append(*(recorded(n) for n in range(4, 7)))
    it.later(1)
    assert (it.delivered, it.saved.checkpoint) == ([], 6)


@pytest.mark.parity("T369")
@pytest.mark.parametrize("begin", [0, 2])
def test_with_nothing_stored_beyond_where_it_begins_it_is_live_at_once(begin: int) -> None:
    it = Steering(begin, progress=Progress(begin))
    assert (it.machine.checkpoint, it.machine.watermark, it.machine.in_flight) == (begin, begin, 0)
    assert not it.machine.catching_up
    assert it.delivered == []
    it.append(recorded(begin + 1))
    assert it.delivered == [[begin + 1]]


@pytest.mark.parity("T372")
def test_news_while_catching_up_are_only_noted() -> None:
    it = Steering(6, read_size=3, max_in_flight=3, batch_size=3)
    reads = len(it.all(effects.Read))
    it.append(recorded(7))
    assert (len(it.all(effects.Read)), it.delivered) == (reads, [[1, 2, 3]])
    it.handle_all()
    assert it.delivered == [[1, 2, 3], [4, 5, 6], [7]]


@pytest.mark.parity("T379")
def test_a_full_subscription_reads_only_what_has_room_again() -> None:
    it = Steering(9, read_size=3, max_in_flight=3)
    for handled in range(7):
        assert it.machine.unsettled <= 3, "never more than may be in flight"
        assert it.delivered[-1] == [handled + 1]
        it.handle()
    it.handle_all()
    assert it.machine.watermark == 9
