"""Replays, rewinds and replacements belong to single partitions: while they last, the number of these cannot change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest

from headwater.cluster.directory import SupervisorDirectory
from headwater.storage.errors import SubscriptionConflict
from headwater.storage.leases import Boundary, Grant, Progress
from headwater.storage.postgres.placement import PostgresPlacement
from headwater.storage.postgres.repartition import Repartition
from headwater.storage.postgres.replacing import Replacements
from headwater.storage.postgres.replaying import Replays
from tests.integration.registry.conftest import Office
from tests.integration.registry.test_repartition import checkpoints, stop, switch, want
from tests.integration.registry.test_replacing import at_once, row

Prepare: TypeAlias = Callable[[Office, Grant], Awaitable[None]]


def replacements(office: Office) -> Replacements:
    return Replacements(office.store.pool, office.store.sql)


async def replay(office: Office) -> list[int]:
    return await Replays(office.store.pool, office.store.sql).issue(
        "orders", 0, None, side_effects=True, issued_by="ada"
    )


async def version(office: Office, name: str) -> None:
    await office.registry.register(name, "m:h", {}, wanted="stopped")


async def replaying(office: Office, grant: Grant) -> None:
    await replay(office)


async def followed(office: Office, grant: Grant) -> None:
    await version(office, "next")
    await replacements(office).begin("orders", "next", issued_by="ada")


async def following(office: Office, grant: Grant) -> None:
    await version(office, "before")
    (before,) = await office.leases.claim([state.key for state in await office.registry.states("before")])
    await office.checkpoints.save(before, Progress(20, 20))
    await office.leases.release([before, grant])
    await replacements(office).begin("before", "orders", issued_by="ada")


async def replaced(office: Office, grant: Grant) -> None:
    await followed(office, grant)
    for new in await office.leases.claim([state.key for state in await office.registry.states("next")]):
        await office.checkpoints.report(new, "running", None)
    steps = replacements(office)
    assert await steps.step(await row(steps), at_once) == "stop old"
    await office.leases.release([grant])
    assert await steps.step(await row(steps), at_once) == "take over"


async def rewind_asked_for(office: Office, grant: Grant) -> None:
    await office.commands.issue("orders", "rewind", {"to": 3}, issued_by="ada")


async def rewound(office: Office, grant: Grant) -> None:
    await office.checkpoints.rewind(grant.rewound(), Progress(3, 3), settled=10, side_effects=False)


CASES = [
    pytest.param(replaying, "replay", "until its replay has ended", id="replay"),
    pytest.param(followed, "replacement", "while 'next' follows it", id="followed"),
    pytest.param(following, "replacement", "taken over from 'before'", id="following"),
    pytest.param(replaced, "replacement", "another version has replaced it", id="closed"),
    pytest.param(rewind_asked_for, "rewind", "rewound as it was asked to", id="rewind asked for"),
    pytest.param(rewound, "rewind", "up to 10", id="rewind under way"),
]


async def settled(office: Office) -> Grant:
    """Let the subscription settle everything up to 10 with its one partition."""
    (grant,) = await office.granted()
    await office.checkpoints.save(grant, Progress(10, 10))
    return grant


async def force(office: Office, partitions: int) -> None:
    """Want another number as a program does that knows nothing of obstacles."""
    async with office.store.connection() as conn:
        await conn.execute(
            'UPDATE "headwater"."subscriptions" SET "repartition_to" = %s, "options" = %s WHERE "name" = %s',
            [partitions, f'{{"partitions": {partitions}, "partition_by": "other:key"}}', "orders"],
        )


@pytest.mark.parametrize(("prepare", "wait_for", "says"), CASES)
async def test_another_number_is_refused_while_something_needs_the_partitions_that_there_are(
    office: Office, prepare: Prepare, wait_for: str, says: str
) -> None:
    await prepare(office, await settled(office))
    with pytest.raises(SubscriptionConflict, match=says) as refused:
        await want(office, 4)
    assert refused.value.wait_for == wait_for
    with pytest.raises(SubscriptionConflict, match=says):
        await Repartition(office.store.pool, office.store.sql).check("orders")
    record = await office.registry.find("orders")
    assert record is not None
    assert (record.partitions, record.repartition_to, record.options) == (1, None, {})
    await want(office, 1)


@pytest.mark.parametrize(("prepare", "wait_for", "says"), CASES)
async def test_a_change_that_has_become_impossible_is_taken_back_and_the_old_partitions_go_on(
    office: Office, prepare: Prepare, wait_for: str, says: str
) -> None:
    grant = await settled(office)
    await prepare(office, grant)
    before = await office.registry.states("orders")
    open_before = await office.commands.open([grant.key.lock_id])
    await force(office, 4)
    await office.leases.release([grant])
    with pytest.raises(SubscriptionConflict, match=says) as refused:
        await switch(office)
    assert refused.value.wait_for == wait_for
    assert not await switch(office), "it is wanted no more"
    after = await office.registry.states("orders")
    assert [(s.key, s.checkpoint, s.repartition_to) for s in after] == [(s.key, s.checkpoint, None) for s in before]
    assert after[0].options == {"partitions": 1, "partition_by": None}, "what the old partitions are split by"
    assert await office.commands.open([grant.key.lock_id]) == open_before
    audited = next(c for c in await office.commands.audit("orders") if c.verb == "repartition")
    assert (audited.outcome or "").startswith("taken back: it keeps its 1 partitions")
    claimed = await office.leases.claim([state.key for state in after])
    assert len(claimed) == (0 if prepare is replaced else 1)
    if prepare is rewound:
        assert await office.checkpoints.boundary(claimed[0]) == Boundary(10, side_effects=False)


async def test_a_rewind_that_is_through_is_no_obstacle(office: Office) -> None:
    grant = await settled(office)
    await rewound(office, grant)
    await office.checkpoints.save(grant.rewound(), Progress(10, 10))
    await office.leases.release([grant])
    await want(office, 2)
    assert await switch(office)
    assert await checkpoints(office) == [10, 10]


async def test_nothing_is_asked_of_partitions_that_are_about_to_change(office: Office) -> None:
    await settled(office)
    await want(office, 4)
    await version(office, "next")
    for asked in (
        replay(office),
        office.commands.issue("orders", "rewind", {"to": 3}, issued_by="ada"),
        office.commands.issue("orders", "move", {"node": "a"}, issued_by="ada"),
        replacements(office).begin("orders", "next", issued_by="ada"),
        replacements(office).begin("next", "orders", issued_by="ada"),
    ):
        with pytest.raises(SubscriptionConflict, match="until it has its 4 partitions") as refused:
            await asked
        assert refused.value.wait_for == "repartition"
    await want(office, 1)
    assert await replay(office)


@pytest.mark.parametrize("turn", range(5))
async def test_of_a_replay_and_another_number_that_are_asked_for_at_once_one_is_refused(
    office: Office, turn: int
) -> None:
    await settled(office)
    asked = [want(office, 4), replay(office)]
    answers = await asyncio.gather(*(asked if turn % 2 else asked[::-1]), return_exceptions=True)
    assert [type(each) for each in answers].count(SubscriptionConflict) == 1


async def test_what_is_open_for_the_old_partitions_ends_with_an_outcome(office: Office) -> None:
    grants = await office.granted(partitions=2)
    await office.commands.issue("orders", "move", {"node": "a"}, issued_by="ada", partition=1)
    await want(office, 4)
    await office.commands.issue("orders", "resume", issued_by="ada", partition=0)
    await office.leases.release(grants)
    assert await switch(office)
    assert await office.commands.open([state.key.lock_id for state in await office.registry.states("orders")]) == []
    assert [(c.verb, c.outcome) for c in await office.commands.audit("orders")] == [
        ("repartition", "2 became 4"),
        ("resume", "resumed: the new partitions begin as running"),
        ("move", "not done: the partitions were changed before"),
    ]


async def test_a_replacement_waits_until_what_earlier_partitions_had_settled_is_passed(office: Office) -> None:
    await stop(office, await office.granted(partitions=2), 10, 30)
    await want(office, 1)
    assert await switch(office)
    await version(office, "next")
    with pytest.raises(SubscriptionConflict, match="until it has passed 30") as refused:
        await replacements(office).begin("orders", "next", issued_by="ada")
    assert refused.value.wait_for == "repartition"
    (grant,) = await office.leases.claim([state.key for state in await office.registry.states("orders")])
    await office.checkpoints.save(grant, Progress(30, 30))
    await replacements(office).begin("orders", "next", issued_by="ada")


async def test_a_rewind_waits_until_what_earlier_partitions_had_settled_is_passed(office: Office) -> None:
    await stop(office, await office.granted(partitions=2), 10, 30)
    await want(office, 1)
    assert await switch(office)

    async def ask(to: int, *, dry_run: bool = False) -> None:
        await office.commands.issue("orders", "rewind", {"to": to}, issued_by="ada", dry_run=dry_run)

    for to in (0, 10, 29):
        for dry_run in (True, False):
            with pytest.raises(SubscriptionConflict, match="until it has passed 30") as refused:
                await ask(to, dry_run=dry_run)
            assert refused.value.wait_for == "repartition"
    assert "rewind" not in [each.verb for each in await office.commands.audit("orders")]
    await ask(30)  # skips all that the marks tell of
    (grant,) = await office.leases.claim([state.key for state in await office.registry.states("orders")])
    await office.checkpoints.save(grant, Progress(30, 30))
    await ask(0, dry_run=True)
    assert [each.arguments for each in await office.commands.open([grant.key.lock_id])] == [{"to": 30}]
    await ask(0)
    assert [each.arguments for each in await office.commands.open([grant.key.lock_id])] == [{"to": 30}, {"to": 0}]


async def test_one_change_that_is_taken_back_holds_up_no_other(office: Office) -> None:
    pool, sql = office.store.pool, office.store.sql
    directory = SupervisorDirectory(
        PostgresPlacement(pool, sql), Repartition(pool, sql), office.leases, Replacements(pool, sql)
    )
    grant = await settled(office)
    await replay(office)
    await office.registry.register("others", "m:h", {})
    await office.registry.register("others", "m:h", {"partitions": 2}, partitions=2)
    await force(office, 4)
    await office.leases.release([grant])
    assert await directory.repartition() == ["others"]
    assert await directory.repartition() == []
