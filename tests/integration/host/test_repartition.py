"""The number of partitions changes under load, an owner is killed meanwhile: nothing lost, repeated or reordered."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator

import psycopg
import pytest

from headwater import NewEvent
from tests.integration.host.conftest import Shop
from tests.plugins.waiting import until

STREAMS = 20
AHEAD = 3000
"""Events: no more than can be caught up with soon, however slow the processes are beside the writer."""


class Writer:
    """Appends to many streams until the block ends, never far ahead of what is handled."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.appended = 0
        self.stopped = False

    async def run(self) -> None:
        while not self.stopped:
            if self.appended % 50 == 0:
                await until(self._is_near, deadline=60, what="waiting until the events that there are are handled")
            await self.shop.store.append(f"order-{self.appended % STREAMS}", [NewEvent("Placed", {}) for _ in range(3)])
            self.appended += 1
            await asyncio.sleep(0)

    async def _is_near(self) -> bool:
        async with self.shop.store.connection() as conn:
            row = await (await conn.execute('SELECT count(*) FROM "log"')).fetchone()
        assert row is not None
        return self.stopped or 3 * self.appended - int(row[0]) <= AHEAD

    async def more(self, appends: int = 30) -> None:
        wanted = self.appended + appends
        await until(lambda: self.appended >= wanted, what="waiting for more appends")


@pytest.fixture
def writer(shop: Shop) -> Writer:
    with psycopg.connect(shop.url) as conn:
        conn.execute(
            'CREATE TABLE "log" ("id" bigserial, "stream" text, "version" bigint, "partition" int, "partitions" int)'
        )
    return Writer(shop)


@contextlib.asynccontextmanager
async def appending(writer: Writer) -> AsyncIterator[None]:
    task = asyncio.create_task(writer.run())
    try:
        yield
        await writer.more()
    finally:
        writer.stopped = True
        await task


async def partitions(shop: Shop) -> list[str]:
    return [p.phase for p in await shop.client.partitions("split")]


async def running(shop: Shop, number: int) -> None:
    async def all_run() -> bool:
        return await partitions(shop) == ["running"] * number

    await until(all_run, what=f"waiting for {number} partitions")


def check(shop: Shop, writer: Writer) -> None:
    with psycopg.connect(shop.url) as conn:
        rows = conn.execute('SELECT "stream", "version" FROM "log" ORDER BY "id"').fetchall()
    by_stream: dict[str, list[int]] = defaultdict(list)
    for stream, version in rows:
        by_stream[stream].append(version)
    assert sum(len(versions) for versions in by_stream.values()) == 3 * writer.appended
    assert all(versions == list(range(1, len(versions) + 1)) for versions in by_stream.values())


async def test_up_and_down_under_load_with_an_owner_killed_in_the_middle(shop: Shop, writer: Writer) -> None:
    shop.processes.start("a", "b", app="split:app")
    await shop.settled("a", "b")  # both have registered what their app says
    async with appending(writer):
        await writer.more()
        assert await shop.client.repartition("split", 4) in (1, 4)
        await running(shop, 4)
        await writer.more()
        owners = await shop.settled("a", "b")
        await shop.client.repartition("split", 3)
        shop.processes.kill(owners["split", 0] or "")
        await running(shop, 3)
        await writer.more()
    await shop.caught_up()
    check(shop, writer)
    assert sum(p.delivered + p.redelivered for p in await shop.client.partitions()) >= 3 * writer.appended


async def test_the_supervisors_loss_in_the_middle_changes_nothing(shop: Shop, writer: Writer) -> None:
    shop.processes.start("a", app="split:app")
    await running(shop, 1)
    async with appending(writer):
        await shop.client.repartition("split", 4)
        shop.processes.kill("a")
        assert await shop.client.repartition("split", 4, dry_run=True) in (1, 4)
        shop.processes.start("b", app="split:app", environment={"SPLIT_PARTITIONS": "4"})
        await running(shop, 4)
        await writer.more()
    await shop.caught_up()
    check(shop, writer)


async def test_registering_the_app_with_another_number_brings_it_about(shop: Shop, writer: Writer) -> None:
    shop.processes.start("a", app="split:app", environment={"SPLIT_PARTITIONS": "4"})
    await running(shop, 4)
    async with appending(writer):
        await writer.more()
        shop.processes.start("b", app="split:app", environment={"SPLIT_PARTITIONS": "3"})
        await running(shop, 3)
        await shop.settled("a", "b")
    await shop.caught_up()
    check(shop, writer)
