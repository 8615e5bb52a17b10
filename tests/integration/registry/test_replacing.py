"""The steps of a replacement, as rows: fenced, made once, and never from a half-done state."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from headwater.cluster.client import Client
from headwater.cluster.options import ClusterOptions
from headwater.cluster.succession import next_step
from headwater.storage.errors import StaleEpoch, SubscriptionConflict
from headwater.storage.leases import Boundary, Grant, Halt, Progress
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.replacing import ReplacementRow, Replacements, Step, Versions
from tests.integration.registry.conftest import Office
from tests.plugins.events import events


async def begun(office: Office, *, partitions: int = 1) -> tuple[Replacements, list[Grant]]:
    """Register two versions, let the old one come to 10, and let the new one follow it."""
    await office.store.append("order-1", events(20))
    old = await office.granted("old", partitions=partitions)
    for grant in old:
        await office.checkpoints.save(grant, Progress(10, 12, 1))
    await office.registry.register("new", "m:h", {}, partitions=partitions, wanted="stopped")
    replacements = Replacements(office.store.pool, office.store.sql)
    await replacements.begin("old", "new", issued_by="ada")
    for grant in await claim(office, "new"):
        await office.checkpoints.report(grant, "running", None)
    return replacements, old


async def row(replacements: Replacements) -> ReplacementRow:
    return (await replacements.latest())[0]


def at_once(versions: Versions) -> Step | None:
    """Decide as planners do, without the rest between two phases."""
    return next_step(replace(versions, seconds=60.0))


async def claim(office: Office, name: str) -> list[Grant]:
    return await office.leases.claim([state.key for state in await office.registry.states(name)])


async def test_an_owner_that_does_not_know_of_the_boundary_writes_nothing_more(office: Office) -> None:
    await office.store.append("order-1", events(5))
    old = await office.granted("old")
    await office.checkpoints.save(old[0], Progress(5))
    (unaware,) = await office.granted("new")
    replacements = Replacements(office.store.pool, office.store.sql)
    await replacements.begin("old", "new", issued_by="ada")
    with pytest.raises(StaleEpoch):
        await office.checkpoints.save(unaware, Progress(0, 4000, 1))
    (aware,) = await claim(office, "new")
    assert await office.checkpoints.boundary(aware) == Boundary(5, final=False, side_effects=False)
    await office.checkpoints.save(old[0], Progress(7))
    assert (await office.checkpoints.boundary(aware)).until == 7


async def test_the_boundary_becomes_final_where_the_old_version_is_closed(office: Office) -> None:
    replacements, old = await begun(office, partitions=2)
    assert await replacements.step(await row(replacements), at_once) == "stop old"
    assert await replacements.step(await row(replacements), at_once) is None, "its owner drains it"
    await office.checkpoints.save(old[0], Progress(11, 11))
    await office.checkpoints.save(old[1], Progress(12, 12))
    await office.leases.release(old)
    steps = await asyncio.gather(*(replacements.step(each, at_once) for each in [await row(replacements)] * 4))
    assert sorted(steps, key=str) == [None, None, None, "take over"]
    assert (await row(replacements)).phase == "done"
    assert await claim(office, "old") == [], "nobody is granted the lease of a closed partition"
    grants = sorted(await claim(office, "new"), key=lambda grant: grant.key.partition)
    boundaries = [await office.checkpoints.boundary(grant) for grant in grants]
    assert boundaries == [Boundary(11, side_effects=False), Boundary(12, side_effects=False)]
    with pytest.raises(SubscriptionConflict):
        await office.registry.set_wanted("old", "running", issued_by="ada")


async def test_a_version_that_was_replaced_has_no_lag(office: Office, database_url: str) -> None:
    replacements, old = await begun(office)
    await replacements.step(await row(replacements), at_once)
    await office.checkpoints.save(old[0], Progress(20, 20))
    await office.leases.release(old)
    assert await replacements.step(await row(replacements), at_once) == "take over"
    (new,) = await claim(office, "new")
    await office.store.append("order-1", events(5))
    await office.checkpoints.save(new, Progress(23))
    async with await Client.open(ClusterOptions(store=StoreOptions(url=database_url))) as client:
        lag = {each.subscription: (each.phase, each.lag) for each in await client.partitions()}
        assert lag["old"] == ("finished", 0)
        assert lag["new"][1] == 2
        (finished,) = await client.partitions("old")
        assert (finished.checkpoint, finished.lag_seconds) == (20, 0)
        assert (await client.status()).lag == 2


async def test_an_old_version_whose_owner_was_killed_goes_on_first(office: Office) -> None:
    replacements, old = await begun(office)
    await replacements.step(await row(replacements), at_once)
    await office.leases.release(old)  # without the last save: 11 and 12 may have reached the handler
    assert await replacements.step(await row(replacements), at_once) == "resume old"
    assert (await row(replacements)).phase == "catching up"
    assert (await office.registry.find("old")).wanted == "running"  # type: ignore[union-attr]
    assert await replacements.step(await row(replacements), at_once) is None, "before somebody owns it again"
    (again,) = await claim(office, "old")
    assert await replacements.step(await row(replacements), at_once) is None, "before it has sorted out what was begun"
    await office.checkpoints.save(again, Progress(12, 12))
    assert await replacements.step(await row(replacements), at_once) == "stop old"
    await office.leases.release([again])
    assert await replacements.step(await row(replacements), at_once) == "take over"


async def test_what_the_old_version_had_handled_before_it_was_rewound_is_a_replay_for_the_new_one(
    office: Office,
) -> None:
    replacements, old = await begun(office)
    await office.checkpoints.save(old[0], Progress(15, 15))
    await office.checkpoints.rewind(old[0].rewound(), Progress(10, 10), settled=15)
    await replacements.step(await row(replacements), at_once)
    await office.leases.release(old)
    assert await replacements.step(await row(replacements), at_once) == "take over"
    (new,) = await claim(office, "new")
    assert await office.checkpoints.boundary(new) == Boundary(15, side_effects=False)


async def test_what_an_old_version_counted_in_a_stream_that_was_made_anew_is_no_boundary(office: Office) -> None:
    replacements, old = await begun(office)
    await office.checkpoints.save(old[0], Progress(12, 12, stream_id=7))
    (new,) = await claim(office, "new")
    await office.checkpoints.rewind(new.rewound(), Progress(0, stream_id=8))
    assert (await office.checkpoints.boundary(new)).until == 0
    await replacements.step(await row(replacements), at_once)
    await office.leases.release(old)
    assert await replacements.step(await row(replacements), at_once) == "take over"
    assert await office.checkpoints.boundary(new) == Boundary(0), "nobody has handled anything of this stream"


async def test_a_version_that_was_replaced_can_replace_the_other_one_again(office: Office) -> None:
    replacements, old = await begun(office)
    await replacements.step(await row(replacements), at_once)
    await office.checkpoints.save(old[0], Progress(12, 12))
    await office.leases.release(old)
    await replacements.step(await row(replacements), at_once)
    (new,) = await claim(office, "new")
    await office.checkpoints.save(new, Progress(20, 20))
    await replacements.begin("new", "old", issued_by="ada")
    (back,) = await claim(office, "old")
    assert await office.checkpoints.boundary(back) == Boundary(20, final=False, side_effects=False)


async def test_a_new_version_that_the_failure_policy_had_stopped_goes_on_when_it_replaces_again(office: Office) -> None:
    replacements, _ = await begun(office)
    (new,) = await claim(office, "new")
    await office.checkpoints.halt(new, 1, Halt("failed", "no customer"))
    assert await replacements.cancel("new", issued_by="ada")
    await replacements.begin("old", "new", issued_by="ada")
    (again,) = await claim(office, "new")
    halt = await office.checkpoints.halted(again)
    assert halt is not None
    assert halt.phase is None, "it goes on, and attempts count anew"
    [state] = await office.registry.states("new")
    assert (state.halted, state.halt_reason) == (None, None)


async def test_what_is_followed_cannot_be_deleted(office: Office) -> None:
    replacements, _ = await begun(office)
    for name in ("old", "new"):
        for dry_run in (True, False):
            with pytest.raises(SubscriptionConflict, match="under way"):
                await office.registry.delete(name, dry_run=dry_run)
    assert await replacements.cancel("new", issued_by="ada")
    assert not await replacements.cancel("new", issued_by="ada")
    with pytest.raises(SubscriptionConflict, match="follows it"):
        await office.registry.delete("old")
    assert await office.registry.delete("new")
    assert await office.registry.delete("old")


async def test_a_version_that_only_ran_before_it_followed_takes_nothing_over(office: Office) -> None:
    await office.store.append("order-1", events(5))
    await office.granted("old")
    for grant in await office.granted("new"):
        await office.checkpoints.report(grant, "running", None)
    replacements = Replacements(office.store.pool, office.store.sql)
    await replacements.begin("old", "new", issued_by="ada")
    (new,) = await claim(office, "new")
    assert await replacements.step(await row(replacements), at_once) is None
    await office.checkpoints.report(new, "stuck", "the handler cannot be started")
    assert await replacements.step(await row(replacements), at_once) is None
    await office.checkpoints.report(new, "running", None)
    assert await replacements.step(await row(replacements), at_once) == "stop old"


async def test_a_refusal_of_a_new_version_changes_nothing_of_it(office: Office) -> None:
    for name in ("old", "new"):
        await office.granted(name)
    await office.registry.register("elsewhere", "m:h", {}, source="order-1")
    await office.registry.register("wider", "m:h", {}, partitions=2)
    replacements = Replacements(office.store.pool, office.store.sql)
    await replacements.begin("old", "new", issued_by="ada")
    before = await office.registry.subscriptions()
    for version in ("new", "elsewhere", "wider", "third"):
        with pytest.raises(SubscriptionConflict):
            await replacements.begin("old", version, issued_by="ada", handler="m:other")
    assert await office.registry.subscriptions() == before
