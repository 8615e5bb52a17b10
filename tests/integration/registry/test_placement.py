"""What a host is told to own or to stand by for."""

from __future__ import annotations

from contextlib import AsyncExitStack

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
            _, rows = await placement.assigned(host)
            return [row.key for row in rows] == [grant.key]

        await placement.assign(generation, [(grant.key.lock_id, "host", "first")])
        await placement.ready("first", [grant.key])
        await placement.assign(generation, [(grant.key.lock_id, "host", "second")])
        assert await standing("first")
        assert await standing("second")
        await placement.ready("second", [grant.key])
        assert not await standing("first")
        assert await standing("second")
