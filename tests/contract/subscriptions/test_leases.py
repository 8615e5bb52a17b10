"""What every adapter of leases promises."""

from __future__ import annotations

import time

import pytest

from headwater.storage.errors import StaleEpoch, StoreUnavailable
from headwater.storage.leases import Progress
from tests.contract.subscriptions.worlds import World
from tests.plugins.waiting import until


@pytest.mark.parity("T001", "T154")
async def test_a_free_partition_is_granted_with_its_progress(world: World) -> None:
    (key,) = await world.keys(1, start=4)
    leases = await world.owner("one")
    (grant,) = await leases.claim([key])
    assert (grant.key, grant.owner, grant.epoch) == (key, "one", 1)
    assert grant.progress == Progress(4)
    assert not leases.lost(grant)
    assert leases.valid_until > time.monotonic()


@pytest.mark.parity("T003", "T155", "T351")
async def test_a_partition_that_another_session_holds_is_not_granted(world: World) -> None:
    keys = await world.keys(3)
    one, two = await world.owner("one"), await world.owner("two")
    assert len(await one.claim(keys[:2])) == 2
    assert [grant.key for grant in await two.claim(keys)] == keys[2:]


@pytest.mark.parity("T002", "T155")
async def test_what_a_session_holds_it_is_granted_again_and_the_older_grant_is_over(world: World) -> None:
    keys = await world.keys(1)
    leases = await world.owner("one")
    (first,) = await leases.claim(keys)
    (second,) = await leases.claim(keys)
    assert second.epoch == first.epoch + 1
    assert leases.lost(first)
    assert not leases.lost(second)
    await leases.release([first])
    assert not leases.lost(second)
    assert await (await world.owner("two")).claim(keys) == []
    await leases.release([second])
    assert len(await (await world.owner("three")).claim(keys)) == 1


@pytest.mark.parity("T352")
async def test_a_released_partition_can_be_had_at_once_under_a_higher_epoch(world: World) -> None:
    keys = await world.keys(2)
    one, two = await world.owner("one"), await world.owner("two")
    grants = await one.claim(keys)
    await one.release(grants[:1])
    (again,) = await two.claim(keys)
    assert (again.key, again.epoch) == (keys[0], 2)
    assert one.lost(grants[0])
    assert not one.lost(grants[1])


async def test_a_release_may_be_repeated_and_takes_nothing_from_the_next_owner(world: World) -> None:
    keys = await world.keys(1)
    one, two = await world.owner("one"), await world.owner("two")
    grants = await one.claim(keys)
    await one.release(grants)
    (taken,) = await two.claim(keys)
    await one.release(grants)
    assert not two.lost(taken)
    assert await one.claim(keys) == []


@pytest.mark.parity("T004", "T155")
async def test_what_a_session_held_is_free_when_it_ends(world: World) -> None:
    keys = await world.keys(2)
    one, two = await world.owner("one"), await world.owner("two")
    grants = await one.claim(keys)
    await world.break_session(one)
    assert all(one.lost(grant) for grant in grants)
    assert [grant.epoch for grant in await two.claim(keys)] == [2, 2]


@pytest.mark.parity("L2")
async def test_a_new_session_holds_nothing_of_the_old_one(world: World) -> None:
    keys = await world.keys(2)
    leases = await world.owner("one")
    grants = await leases.claim(keys)
    await world.break_session(leases)
    await world.new_session(leases)
    assert all(leases.lost(grant) for grant in grants)
    await leases.release(grants)
    (again,) = await leases.claim(keys[:1])
    assert again.session > grants[0].session
    assert again.epoch == 2
    with pytest.raises(StaleEpoch):
        await world.checkpoints.save(grants[0], Progress(9))


@pytest.mark.parity("T349")
async def test_the_next_grant_brings_what_others_have_saved_meanwhile(world: World) -> None:
    keys = await world.keys(1)
    one, two = await world.owner("one"), await world.owner("two")
    (grant,) = await one.claim(keys)
    await world.checkpoints.save(grant, Progress(2, 5, 1))
    await world.break_session(one)
    (taken,) = await two.claim(keys)
    assert taken.progress == Progress(2, 5, 1)
    await world.checkpoints.save(taken, Progress(3))
    await two.release([taken])
    await world.new_session(one)
    (back,) = await one.claim(keys)
    assert back.progress == Progress(3)


async def test_claims_fail_while_there_is_no_session(world: World) -> None:
    keys = await world.keys(1)
    leases = await world.owner("one")
    await leases.claim(keys)
    await world.break_session(leases)

    async def refused_or_granted() -> bool:
        # The Postgres session may be back already: then the claim is granted anew, never silently empty.
        try:
            return len(await leases.claim(keys)) == 1
        except StoreUnavailable:
            return True

    await until(refused_or_granted)


async def test_claiming_nothing_grants_nothing(world: World) -> None:
    leases = await world.owner("one")
    assert await leases.claim([]) == []
    await leases.release([])
