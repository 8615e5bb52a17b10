"""What every adapter promises about parked events that are to be handled again."""

from __future__ import annotations

import orjson
import pytest

from headwater.storage.errors import StaleEpoch
from headwater.storage.leases import Grant, ParkedEvent, Progress
from headwater.subscriptions.ports import Leases
from tests.contract.subscriptions.worlds import World, event


async def parked(world: World, owner: Leases | None = None) -> Grant:
    """Return a grant under which three events of one key, one of another, and one without a key were parked."""
    owner = owner or await world.owner("one")
    (grant,) = await owner.claim(await world.keys(1))
    await world.checkpoints.park(
        grant,
        [
            ParkedEvent(event(1), "a", "failed", "it broke", 5),
            ParkedEvent(event(2), "a", "behind", None, 0),
            ParkedEvent(event(3), "b", "failed", "it broke", 5),
            ParkedEvent(event(4), None, "failed", "it broke", 5),
            ParkedEvent(event(5), "a", "behind", None, 0),
        ],
    )
    return grant


async def positions(world: World, grant: Grant) -> list[int]:
    return [each.position for each in await world.parking.to_retry(grant)]


async def payload(world: World, grant: Grant, position: int) -> object:
    """Begin a retry; return the corrected payload that comes with it, or None."""
    begun = await world.parking.begin_retry(grant, position)
    assert begun is not None
    return None if begun.edited is None else orjson.loads(begun.edited)


async def test_nothing_is_handled_again_unless_somebody_asks(world: World) -> None:
    assert await positions(world, await parked(world)) == []


@pytest.mark.parity("L29")
async def test_what_was_asked_for_comes_in_order_with_key_and_attempts(world: World) -> None:
    grant = await parked(world)
    await world.retry_parked(grant.key)
    found = await world.parking.to_retry(grant)
    assert [each[:3] for each in found] == [(1, "a", 5), (2, "a", 0), (3, "b", 5), (4, None, 5), (5, "a", 0)]
    assert len(await world.parking.to_retry(grant, limit=2)) == 2


async def test_what_was_handled_is_settled_and_its_key_is_free_when_all_are(world: World) -> None:
    grant = await parked(world)
    await world.retry_parked(grant.key)
    for position in (1, 2, 5):
        assert await world.checkpoints.parked_keys(grant) == {"a", "b"}
        await world.parking.retried(grant, position, "a")
        await world.parking.retried(grant, position, "a")
    assert await world.checkpoints.parked_keys(grant) == {"b"}
    assert await positions(world, grant) == [3, 4]


async def test_after_a_failure_it_and_the_later_ones_of_its_key_wait_again(world: World) -> None:
    grant = await parked(world)
    await world.retry_parked(grant.key)
    await world.parking.retried(grant, 1, "a", "still broken")
    assert await positions(world, grant) == [3, 4]
    await world.retry_parked(grant.key)
    assert (await world.parking.to_retry(grant))[0][:3] == (1, "a", 6)


async def test_what_waited_behind_an_event_comes_by_itself_once_that_is_settled(world: World) -> None:
    grant = await parked(world)
    await world.retry_parked(grant.key)
    await world.parking.retried(grant, 1, "a")
    await world.checkpoints.park(grant, [ParkedEvent(event(6), "a", "behind", None, 0)])
    assert await positions(world, grant) == [2, 3, 4, 5, 6]
    await world.parking.retried(grant, 2, "a", "broken, too")
    assert await positions(world, grant) == [3, 4], "now the others wait behind this one"


async def test_an_owner_that_was_replaced_settles_nothing(world: World) -> None:
    one, two = await world.owner("one"), await world.owner("two")
    stale = await parked(world, one)
    await world.retry_parked(stale.key)
    await one.release([stale])
    (current,) = await two.claim([stale.key])
    with pytest.raises(StaleEpoch):
        await world.parking.retried(stale, 1, "a")
    assert (await positions(world, current))[0] == 1


async def test_a_corrected_payload_comes_with_the_retry_until_the_event_is_settled(world: World) -> None:
    grant = await parked(world)
    await world.edit_parked(grant.key, 1, {"mended": True})
    await world.retry_parked(grant.key)
    assert await payload(world, grant, 1) == {"mended": True}
    assert await payload(world, grant, 3) is None
    await world.parking.retried(grant, 1, "a", "still broken")
    await world.retry_parked(grant.key)
    assert await payload(world, grant, 1) is not None, "the correction stays"
    await world.parking.retried(grant, 1, "a")
    await world.checkpoints.park(grant, [ParkedEvent(event(1), "a", "failed", "after a rewind", 1)])
    await world.retry_parked(grant.key)
    assert await payload(world, grant, 1) is None, "parked anew it is what is stored"


async def test_an_attempt_that_is_begun_is_counted_until_somebody_says_how_it_ended(world: World) -> None:
    grant = await parked(world)
    await world.retry_parked(grant.key)
    for begun in (1, 2):
        assert await world.parking.begin_retry(grant, 1) is not None
        assert (await world.parking.to_retry(grant))[0] == (1, "a", 5 + begun, begun, 1, 0)
    await world.parking.retried(grant, 1, "a", "still broken")
    await world.retry_parked(grant.key)
    assert (await world.parking.to_retry(grant))[0] == (1, "a", 7, 0, 1, 0)


async def test_what_waits_behind_an_event_or_is_parked_no_more_is_not_begun(world: World) -> None:
    grant = await parked(world)
    assert await world.parking.begin_retry(grant, 1) is None, "nobody asked for it"
    assert await world.parking.begin_retry(grant, 2) is None, "it waits behind the first"
    await world.retry_parked(grant.key)
    await world.parking.retried(grant, 1, "a", "still broken")
    assert await world.parking.begin_retry(grant, 2) is None, "it waits again"
    await world.parking.retried(grant, 1, "a")
    assert await world.parking.begin_retry(grant, 1) is None, "it is settled"
    assert await world.parking.begin_retry(grant, 2) is not None
    assert await world.parking.begin_retry(grant, 99) is None


async def asked_for(world: World, grant: Grant) -> list[tuple[int, int]]:
    """Ask for everything that is parked; return position and number of what is to be handled again."""
    await world.retry_parked(grant.key)
    return [(each.position, each.number) for each in await world.parking.to_retry(grant)]


async def test_a_rewind_closes_what_has_no_key_and_is_handed_out_again(world: World) -> None:
    grant = await parked(world)
    await world.checkpoints.park(grant, [ParkedEvent(event(each), None, "failed", "it broke", 5) for each in (6, 7)])
    await world.edit_parked(grant.key, 7, {"mended": True})
    await world.retry_parked(grant.key)
    await world.parking.begin_retry(grant, 7)
    grant = grant.rewound()
    await world.checkpoints.rewind(grant, Progress(4, 4), settled=9)
    assert await positions(world, grant) == [1, 2, 3, 4, 5], "4 is not handed out again; 5 has a key"
    assert await world.parking.begin_retry(grant, 6) is None
    assert await world.checkpoints.parked_keys(grant) == {"a", "b"}
    await world.checkpoints.park(grant, [ParkedEvent(event(7), None, "failed", "again", 1)])
    assert await positions(world, grant) == [1, 2, 3, 4, 5], "parked anew, and nobody has asked for it"
    await world.retry_parked(grant.key)
    assert (await world.parking.to_retry(grant))[-1] == (7, None, 1, 0, 7, 0)
    assert await payload(world, grant, 7) is None, "parked anew it is what is stored"


async def test_a_rewind_under_a_stale_epoch_closes_nothing(world: World) -> None:
    one, two = await world.owner("one"), await world.owner("two")
    stale = await parked(world, one)
    await world.retry_parked(stale.key)
    await one.release([stale])
    (current,) = await two.claim([stale.key])
    for progress in (Progress(0), Progress(0, stream_id=8)):
        with pytest.raises(StaleEpoch):
            await world.checkpoints.rewind(stale.rewound(), progress)
    assert (await world.parking.to_retry(current))[3] == (4, None, 5, 0, 4, 0)


async def test_a_retry_that_was_begun_or_settled_before_a_rewind_is_not_counted_after_it(world: World) -> None:
    grant = await parked(world)
    await world.checkpoints.rewind(grant.rewound(), Progress(0))
    await world.checkpoints.park(grant.rewound(), [ParkedEvent(event(4), None, "failed", "again", 1)])
    await world.retry_parked(grant.key)
    before = await world.parking.to_retry(grant.rewound())
    assert [each.position for each in before] == [1, 2, 3, 4, 5]
    for error in (None, "it broke"):
        with pytest.raises(StaleEpoch):
            await world.parking.retried(grant, 4, None, error)
    with pytest.raises(StaleEpoch):
        await world.parking.begin_retry(grant, 4)
    assert await world.parking.to_retry(grant.rewound()) == before


async def test_what_was_parked_of_a_stream_that_was_made_anew_waits_for_no_checkpoint(world: World) -> None:
    grant = await parked(world)
    await world.checkpoints.save(grant, Progress(5, 5, stream_id=7))
    grant = grant.rewound()
    await world.checkpoints.rewind(grant, Progress(0, stream_id=8))
    assert await asked_for(world, grant) == [(each, 0) for each in (1, 2, 3, 4, 5)]
    await world.checkpoints.save(grant, Progress(5, 5, stream_id=8))
    await world.checkpoints.rewind(grant.rewound(), Progress(0, stream_id=8))
    assert await asked_for(world, grant) == [(each, 0) for each in (1, 2, 3, 4, 5)], "none of them counts in it"


async def test_a_rewind_before_the_first_save_makes_no_stream_anew(world: World) -> None:
    grant = await parked(world)
    await world.checkpoints.rewind(grant.rewound(), Progress(0, stream_id=7))
    assert await asked_for(world, grant) == [(1, 1), (2, 2), (3, 3), (5, 5)]


async def test_what_is_parked_again_stands_where_its_source_has_it_now(world: World) -> None:
    grant = await parked(world)
    await world.retry_parked(grant.key)
    await world.parking.retried(grant, 3, "b")
    again = [ParkedEvent(event(each)._replace(number=each + 10), None, "failed", "again", 1) for each in (1, 3)]
    await world.checkpoints.park(grant, again)
    await world.retry_parked(grant.key)
    found = await world.parking.to_retry(grant)
    assert [each for each in found if each.number > 10] == [(1, "a", 5, 0, 11, 0), (3, None, 1, 0, 13, 0)]


async def test_what_was_begun_by_an_owner_that_died_is_known_to_the_next(world: World) -> None:
    one, two = await world.owner("one"), await world.owner("two")
    stale = await parked(world, one)
    await world.retry_parked(stale.key)
    await world.parking.begin_retry(stale, 1)
    await one.release([stale])
    (current,) = await two.claim([stale.key])
    with pytest.raises(StaleEpoch):
        await world.parking.begin_retry(stale, 1)
    assert (await world.parking.to_retry(current))[0] == (1, "a", 6, 1, 1, 0)


async def test_what_was_given_up_about_a_retry_changes_nothing_after_what_was_written_since(world: World) -> None:
    grant = await parked(world)
    await world.retry_parked(grant.key)
    assert await world.parking.begin_retry(grant.numbered(2), 1) is not None
    with pytest.raises(StaleEpoch):
        await world.parking.begin_retry(grant.numbered(1), 1)
    assert [each.begun for each in await world.parking.to_retry(grant, limit=1)] == [1]
    await world.parking.retried(grant.numbered(4), 1, "a")
    with pytest.raises(StaleEpoch):
        await world.parking.retried(grant.numbered(3), 1, "a", "it broke")
    assert await positions(world, grant) == [2, 3, 4, 5], "the later ones of its key are still asked for"
