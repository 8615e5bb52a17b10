"""What a host is told to own or to stand by for."""

from __future__ import annotations

from contextlib import AsyncExitStack

from headwater import NewEvent
from headwater.cluster.directory import HostDirectory, host_facts
from headwater.storage.leases import PartitionKey
from headwater.storage.postgres.leases import LeaseSession, Presence
from headwater.storage.postgres.placement import PostgresPlacement
from tests.integration.registry.conftest import LONG, Office


async def test_a_standby_stands_by_until_its_successor_is_ready(office: Office) -> None:
    placement = PostgresPlacement(office.store.pool, office.store.sql)
    (grant,) = await office.granted()
    async with AsyncExitStack() as stack:
        for name in ("first", "second"):
            session = LeaseSession(office.store.options, host=name, presence=Presence(node=name), lease=LONG)
            await session.open()
            stack.push_async_callback(session.close)
        generation = await office.leases.supervise()
        assert generation is not None

        async def standing(host: str) -> bool:
            _, _, rows = await placement.assigned(host)
            return [row.key for row in rows] == [grant.key]

        await placement.assign(generation, [(grant.key.lock_id, "host", "first")])
        await placement.ready("first", [grant.key])
        await placement.assign(generation, [(grant.key.lock_id, "host", "second")])
        assert await standing("first")
        assert await standing("second")
        await placement.ready("second", [grant.key])
        assert not await standing("first")
        assert await standing("second")


async def test_a_standby_that_is_not_wanted_any_more_lets_go_also_without_a_successor(office: Office) -> None:
    placement = PostgresPlacement(office.store.pool, office.store.sql)
    (grant,) = await office.granted()
    session = LeaseSession(office.store.options, host="first", presence=Presence(node="first"), lease=LONG)
    await session.open()
    try:
        generation = await office.leases.supervise()
        assert generation is not None
        await placement.assign(generation, [(grant.key.lock_id, "host", "first")])
        await placement.ready("first", [grant.key])
        await placement.assign(generation, [(grant.key.lock_id, "host", None)])
        _, _, rows = await placement.assigned("first")
        assert rows == []
    finally:
        await session.close()


async def test_the_troubles_of_a_host_are_read_with_it_until_they_are_over(office: Office) -> None:
    placement = PostgresPlacement(office.store.pool, office.store.sql)
    facts = {"labels": {"zone": "a"}}
    session = LeaseSession(office.store.options, host="first", presence=Presence(node="first", facts=facts), lease=LONG)
    await session.open()
    try:
        directory = HostDirectory(placement, *[None] * 3)  # type: ignore[arg-type]  # no commands are asked for
        for reasons in ({PartitionKey("totals", 0, 7): "it cannot be imported: \0\ud800"}, {}):
            await directory.assigned("first")
            await directory.troubles("first", reasons)
            [found] = [host_facts(row) for row in await placement.hosts() if row.host == "first"]
            assert {lock_id: reason.rstrip("?") for lock_id, reason in found.troubles.items()} == {
                key.lock_id: "it cannot be imported: " for key in reasons
            }
            assert found.labels == {"zone": "a"}
    finally:
        await session.close()


async def test_the_supervisor_sees_the_same_lag_as_operators_whatever_the_source_counts_in(office: Office) -> None:
    for name, source in (("all", "$all"), ("nothing yet", "order-1"), ("behind", "order-2")):
        await office.registry.register(name, "package.module:handler", {}, source=source)
    for stream, size in (("order-2", 3), ("other-1", 20)):
        await office.store.append(stream, [NewEvent("Placed", {}) for _ in range(size)])
    told = {row.key: row.lag for row in await PostgresPlacement(office.store.pool, office.store.sql).partitions()}
    assert told == {state.key: state.lag for state in await office.registry.states()}
    assert sorted(told.values()) == [0, 3, 23]
