"""Exactly-once effects: a handler's writes and the checkpoint are there together, once, or not at all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

from headwater.storage.errors import StaleEpoch, StoreUnavailable, UnexpectedAck
from headwater.storage.leases import Grant, Progress
from tests.integration.registry.conftest import Office
from tests.plugins.waiting import until

Work = Callable[[Office, Grant, Progress, str], Awaitable[None]]


async def in_async(office: Office, grant: Grant, progress: Progress, statement: str) -> None:
    async with office.transactions.open(grant, progress) as conn:
        await conn.execute(statement)


async def in_thread(office: Office, grant: Grant, progress: Progress, statement: str) -> None:
    def work() -> None:
        with office.transactions.open_sync(grant, progress) as conn:
            conn.execute(statement)

    await asyncio.to_thread(work)


@pytest.fixture(params=[in_async, in_thread])
async def work(request: pytest.FixtureRequest, office: Office) -> Work:
    """A delivery whose handler adds to a table, asynchronously or in a thread."""
    async with office.store.connection() as conn:
        await conn.execute("CREATE TABLE effects (number integer)")
    found: Work = request.param
    return found


async def effects(office: Office) -> list[Any]:
    async with office.store.connection() as conn:
        return [number for (number,) in await (await conn.execute("SELECT number FROM effects ORDER BY 1")).fetchall()]


async def test_effects_and_checkpoint_commit_together(office: Office, work: Work) -> None:
    (grant,) = await office.granted()
    await work(office, grant, Progress(3), "INSERT INTO effects VALUES (1)")
    await work(office, grant, Progress(7), "INSERT INTO effects VALUES (2)")
    assert await effects(office) == [1, 2]
    assert await office.checkpoints.load(grant) == Progress(7)


@pytest.mark.parametrize("state", ["53100", "25006"])
async def test_what_the_server_would_refuse_anybody_is_an_outage_and_no_failure_of_the_handler(
    office: Office, work: Work, state: str
) -> None:
    (grant,) = await office.granted()
    with pytest.raises(StoreUnavailable):
        await work(office, grant, Progress(3), f"DO $$ BEGIN RAISE 'refused' USING ERRCODE = '{state}'; END $$")
    assert await office.checkpoints.load(grant) == Progress(0)


async def test_a_handler_that_fails_leaves_neither(office: Office, work: Work) -> None:
    (grant,) = await office.granted()
    with pytest.raises(psycopg.errors.DivisionByZero):
        await work(office, grant, Progress(3), "INSERT INTO effects SELECT 1 / 0")
    assert await effects(office) == []
    assert await office.checkpoints.load(grant) == Progress(0)
    await work(office, grant, Progress(3), "INSERT INTO effects VALUES (1)")
    assert await effects(office) == [1]


@pytest.mark.parity("L3")
async def test_a_stale_epoch_is_refused_before_the_handler_runs(office: Office, work: Work) -> None:
    (stale,) = await office.granted()
    await office.leases.claim([stale.key])
    with pytest.raises(StaleEpoch):
        await work(office, stale, Progress(3), "SELECT 1 / 0")


async def test_a_connection_that_the_server_has_ended_meanwhile_is_no_failure(office: Office, work: Work) -> None:
    (grant,) = await office.granted()
    await work(office, grant, Progress(3), "INSERT INTO effects VALUES (1)")
    async with await psycopg.AsyncConnection.connect(office.store.options.url, autocommit=True) as conn:

        async def ended() -> bool:
            cursor = await conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND application_name = 'headwater'"
            )
            return await cursor.fetchone() is None

        await until(ended)
    await work(office, grant, Progress(7), "INSERT INTO effects VALUES (2)")
    assert await effects(office) == [1, 2]


async def test_a_handler_that_outlives_its_host_in_a_thread_leaves_no_connection_open(office: Office) -> None:
    (grant,) = await office.granted()
    begun, go_on, lent = threading.Event(), threading.Event(), []

    def work() -> None:
        with office.transactions.open_sync(grant, Progress(3)) as conn:
            lent.append(conn)
            begun.set()
            go_on.wait()

    left_behind = asyncio.create_task(asyncio.to_thread(work))
    await asyncio.to_thread(begun.wait)
    office.transactions.close()
    assert not lent[0].closed, "it is in use"
    go_on.set()
    await left_behind
    assert lent[0].closed


async def test_a_delivery_that_comes_back_late_has_no_effect_a_second_time(office: Office, work: Work) -> None:
    (grant,) = await office.granted()
    await work(office, grant, Progress(3), "INSERT INTO effects VALUES (1)")
    with pytest.raises(UnexpectedAck):
        await work(office, grant, Progress(3), "INSERT INTO effects VALUES (1)")
    assert await effects(office) == [1]


@pytest.mark.parametrize("late", ["async", "thread"])
async def test_a_batch_that_comes_back_late_has_no_effect_once_its_first_event_was_handled_alone(
    office: Office, work: Work, late: str
) -> None:
    (grant,) = await office.granted()

    async def comes_back_late() -> None:
        if late == "async":
            async with office.transactions.open(grant, Progress(3)) as conn:
                await conn.execute("INSERT INTO effects VALUES (1), (2), (3)")
                await work(office, grant, Progress(1), "INSERT INTO effects VALUES (1)")
        else:
            with office.transactions.open_sync(grant, Progress(3)) as connection:
                connection.execute("INSERT INTO effects VALUES (1), (2), (3)")
                await work(office, grant, Progress(1), "INSERT INTO effects VALUES (1)")

    with pytest.raises(UnexpectedAck):
        await comes_back_late()
    assert await effects(office) == [1]
    assert await office.checkpoints.load(grant) == Progress(1)


async def test_whoever_asks_what_was_committed_has_ended_what_could_still_be(office: Office, work: Work) -> None:
    (grant,) = await office.granted()

    async def left_behind() -> None:
        async with office.transactions.open(grant, Progress(1)) as conn:
            await conn.execute("INSERT INTO effects VALUES (1)")
            assert await office.checkpoints.load(grant) == Progress(0)
            # Whoever asked parks the event now, or hands it out again.

    with pytest.raises(psycopg.OperationalError):
        await left_behind()
    assert await effects(office) == []
    await work(office, grant, Progress(1), "INSERT INTO effects VALUES (2)")
    assert await effects(office) == [2]


async def test_whoever_asks_what_was_committed_under_an_older_epoch_ends_nothing(office: Office, work: Work) -> None:
    (stale,) = await office.granted()
    (grant,) = await office.leases.claim([stale.key])
    async with office.transactions.open(grant, Progress(1)) as conn:
        with pytest.raises(StaleEpoch):
            await office.checkpoints.load(stale)
        await conn.execute("INSERT INTO effects VALUES (1)")
    await work(office, grant, Progress(2), "INSERT INTO effects VALUES (2)")
    assert await effects(office) == [1, 2]


async def test_a_delivery_of_a_stream_that_was_made_anew_meanwhile_has_no_effect(office: Office, work: Work) -> None:
    (grant,) = await office.granted()
    await work(office, grant, Progress(3, stream_id=7), "INSERT INTO effects VALUES (3)")

    async def comes_back_late() -> None:
        async with office.transactions.open(grant, Progress(4, stream_id=7)) as conn:
            await conn.execute("INSERT INTO effects VALUES (4)")
            await office.checkpoints.rewind(grant.rewound(), Progress(0, stream_id=8))

    with pytest.raises(StaleEpoch):
        await comes_back_late()
    assert await effects(office) == [3]
    assert await office.checkpoints.load(grant.rewound()) == Progress(0, stream_id=8)


async def test_a_delivery_that_was_given_up_has_no_effect_after_a_rewind_to_where_it_begins(
    office: Office, work: Work
) -> None:
    (grant,) = await office.granted()
    await work(office, grant, Progress(3), "INSERT INTO effects VALUES (3)")

    async def comes_back_late() -> None:
        async with office.transactions.open(grant, Progress(5)) as conn:
            await conn.execute("INSERT INTO effects VALUES (5)")
            await office.checkpoints.rewind(grant.rewound(), Progress(3))

    with pytest.raises(StaleEpoch):
        await comes_back_late()
    with pytest.raises(StaleEpoch):
        await work(office, grant, Progress(5), "INSERT INTO effects VALUES (5)")
    assert await effects(office) == [3]
    await work(office, grant.rewound(), Progress(4), "INSERT INTO effects VALUES (4)")
    assert await effects(office) == [3, 4]


async def test_the_next_owner_ends_a_transaction_that_an_older_one_left_open(office: Office, work: Work) -> None:
    (stale,) = await office.granted()
    granted: list[Grant] = []

    async def overtaken() -> None:
        async with office.transactions.open(stale, Progress(3)) as conn:
            await conn.execute("INSERT INTO effects VALUES (1)")
            granted.extend(await office.leases.claim([stale.key]))
            await conn.execute("INSERT INTO effects VALUES (2)")

    with pytest.raises(psycopg.OperationalError):
        await overtaken()
    await work(office, granted[0], Progress(3), "INSERT INTO effects VALUES (3)")
    assert await effects(office) == [3]


async def test_a_transaction_that_has_saved_and_never_commits_gives_the_partition_up(
    office: Office, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stale,) = await office.granted()
    # A session that was told to end does so when it gets its turn: here it is waited for, and not for a moment only.
    sql = office.leases._sql
    patient = sql.end_older_transactions.replace(b'("pid", 50)', b'("pid", 20000)')
    assert patient != sql.end_older_transactions
    monkeypatch.setattr(sql, "end_older_transactions", patient)
    granted: list[Grant] = []

    async def stuck() -> None:
        async with office.transactions.open(stale, Progress(4)) as conn:
            await conn.execute("INSERT INTO effects VALUES (1)")
            await office.checkpoints.save(stale, Progress(3), conn=conn)
            granted.extend(await office.leases.claim([stale.key]))

    with pytest.raises(psycopg.OperationalError):
        await stuck()
    # With the first claim, and not with one after it.
    assert granted[0].progress == Progress(0)
    assert await effects(office) == []
