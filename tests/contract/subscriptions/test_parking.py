"""What every adapter promises about parked events that are to be handled again."""

from __future__ import annotations

import orjson
import pytest

from headwater.storage.errors import StaleEpoch
from headwater.storage.leases import Grant, ParkedEvent
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
    edited = [each.edited for each in await world.parking.to_retry(grant)]
    assert [payload is not None for payload in edited] == [True, False, False, False, False]
    assert orjson.loads(edited[0] or b"") == {"mended": True}
    await world.parking.retried(grant, 1, "a", "still broken")
    await world.retry_parked(grant.key)
    assert (await world.parking.to_retry(grant))[0].edited is not None, "the correction stays"
    await world.parking.retried(grant, 1, "a")
    await world.checkpoints.park(grant, [ParkedEvent(event(1), "a", "failed", "after a rewind", 1)])
    await world.retry_parked(grant.key)
    assert (await world.parking.to_retry(grant))[0].edited is None, "parked anew it is what is stored"
