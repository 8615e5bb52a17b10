"""A new set of partitions takes the old one's place in one transaction, when nobody holds a lease of it any more."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from headwater.cluster.repartition import successor
from headwater.storage.errors import StaleEpoch, StoreUnavailable
from headwater.storage.leases import Grant, Halt, Progress
from headwater.storage.postgres.repartition import Repartition
from headwater.subscriptions.core.seam import share_of
from tests.integration.registry.conftest import Office
from tests.integration.registry.test_commands import park


async def want(office: Office, partitions: int, **options: Any) -> None:
    await office.registry.register("orders", "package.module:handler", options, partitions=partitions)


async def switch(office: Office) -> bool:
    return await Repartition(office.store.pool, office.store.sql).switch("orders", successor, share_of)


async def stop(office: Office, grants: list[Grant], *checkpoints: int) -> None:
    for grant, checkpoint in zip(grants, checkpoints, strict=True):
        await office.checkpoints.save(grant, Progress(checkpoint, checkpoint, delivered=1))
    await office.leases.release(grants)


async def checkpoints(office: Office) -> list[int]:
    return [state.checkpoint for state in await office.registry.states("orders")]


async def test_nothing_changes_while_one_old_owner_holds_its_lease(office: Office) -> None:
    grants = await office.granted(partitions=2)
    await want(office, 3)
    await office.leases.release(grants[:1])
    assert not await switch(office)
    assert [state.repartition_to for state in await office.registry.states("orders")] == [3, 3]
    await office.leases.release(grants[1:])
    assert await switch(office)
    assert [(s.key.partition, s.repartition_to) for s in await office.registry.states("orders")] == [
        (0, None),
        (1, None),
        (2, None),
    ]
    assert not await switch(office)


async def test_the_new_set_begins_where_the_slowest_stopped_and_knows_the_rest(office: Office) -> None:
    await stop(office, await office.granted(partitions=2), 10, 30)
    await want(office, 3)
    assert await switch(office)
    assert await checkpoints(office) == [10, 10, 10]
    grants = await office.leases.claim([state.key for state in await office.registry.states("orders")])
    assert [grant.seam for grant in grants] == [[[None, [10, 30], [0, 0]]]] * 3
    assert sum(state.delivered for state in await office.registry.states("orders")) == 2
    assert [(c.verb, c.outcome) for c in await office.commands.audit("orders")] == [("repartition", "2 became 3")]


async def test_a_rewound_partition_forgets_what_earlier_sets_had_settled(office: Office) -> None:
    await stop(office, await office.granted(partitions=2), 10, 30)
    await want(office, 3)
    assert await switch(office)
    (key, *_) = [state.key for state in await office.registry.states("orders")]
    (grant,) = await office.leases.claim([key])
    await office.checkpoints.rewind(grant.rewound(), Progress(2, 2))
    await office.leases.release([grant])
    (again,) = await office.leases.claim([key])
    assert (again.progress.checkpoint, again.seam) == (2, None)


async def test_registering_what_there_is_takes_the_change_back(office: Office) -> None:
    await office.granted(partitions=2)
    await want(office, 3)
    await want(office, 2)
    assert [state.repartition_to for state in await office.registry.states("orders")] == [None, None]


async def test_another_key_for_several_partitions_makes_a_new_set_too(office: Office) -> None:
    await stop(office, await office.granted(partitions=2), 10, 30)
    await want(office, 2, partition_by="category")
    assert await switch(office)
    assert await checkpoints(office) == [10, 10]
    await want(office, 2, partition_by="category")
    assert not await switch(office)


async def test_another_key_for_the_only_partition_changes_nothing_else(office: Office) -> None:
    await office.granted()
    await want(office, 1, partition_by="category")
    assert [state.repartition_to for state in await office.registry.states("orders")] == [None]


async def test_parked_events_wait_where_the_later_ones_of_their_keys_will_be(office: Office) -> None:
    (grant,) = await office.granted()
    await park(office, grant, "a", "b", "c", "d", "a", None)
    await office.leases.release([grant])
    await want(office, 4)
    assert await switch(office)
    parked = await office.commands.parked("orders")
    assert [p.partition for p in parked] == [share_of(p.partition_key, p.position, 4) for p in parked]
    assert len({p.partition for p in parked}) > 1


async def test_an_old_owner_that_comes_back_writes_nothing(office: Office) -> None:
    (grant,) = await office.granted()
    await office.leases.release([grant])
    await want(office, 2)
    assert await switch(office)
    with pytest.raises(StaleEpoch):
        await office.checkpoints.save(grant, Progress(9))
    assert await office.leases.claim([grant.key]) == []


async def test_a_transaction_that_an_old_owner_left_open_is_ended(office: Office) -> None:
    (grant,) = await office.granted()
    async with office.store.connection() as conn:
        await conn.execute("CREATE TABLE effects (number integer)")

    async def overtaken() -> None:
        async with office.transactions.open(grant, Progress(3)) as conn:
            await conn.execute("INSERT INTO effects VALUES (1)")
            await office.leases.release([grant])
            await want(office, 2)
            assert await switch(office)

    with pytest.raises((psycopg.OperationalError, StoreUnavailable)):
        await overtaken()
    async with office.store.connection() as conn:
        assert await (await conn.execute("SELECT * FROM effects")).fetchall() == []
    assert await checkpoints(office) == [0, 0]


async def test_where_an_old_partition_waits_for_an_operator_all_new_ones_do(office: Office) -> None:
    (grant,) = await office.granted()
    await office.checkpoints.halt(grant, 1, Halt("failed", "no customer"))
    await office.leases.release([grant])
    [before] = await office.registry.states("orders")
    assert (before.halted, before.halt_reason) == ("failed", "no customer")
    await want(office, 3)
    assert await switch(office)
    states = await office.registry.states("orders")
    assert [(each.halted, each.halt_reason, each.since) for each in states] == [
        ("failed", "no customer", before.since)
    ] * 3
    await office.commands.issue("orders", "resume", {}, issued_by="ada", partition=1)
    assert [each.halted for each in await office.registry.states("orders")] == ["failed", None, "failed"]
