"""A parked event that is handled again exactly once: the handler's writes and the settling commit together."""

from __future__ import annotations

import psycopg
import pytest

from headwater.storage.errors import StaleEpoch, UnexpectedAck
from headwater.storage.leases import Grant, ParkedEvent, Progress, Retried
from headwater.subscriptions.testing.builders import recorded
from tests.integration.registry.conftest import Office

MINE = Retried(1, "a")


async def parked(office: Office) -> Grant:
    """Return a grant under which one event was parked and is to be handled again; make a table for effects."""
    (grant,) = await office.granted()
    await office.checkpoints.park(grant, [ParkedEvent(recorded(1, "a"), "a", "failed", "it broke", 5)])
    await office.commands.retry_parked("orders", issued_by="a test")
    async with office.store.pool.connection() as conn:
        await conn.execute("CREATE TABLE effects (position bigint)")
    return grant


async def effects(office: Office) -> int:
    async with office.store.pool.connection() as conn:
        row = await (await conn.execute("SELECT count(*) FROM effects")).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parity("L29", "L36")
async def test_the_writes_and_the_settling_are_committed_together(office: Office) -> None:
    grant = await parked(office)
    async with office.transactions.open(grant, MINE) as conn:
        await conn.execute("INSERT INTO effects VALUES (1)")
    assert await effects(office) == 1
    assert await office.commands.to_retry(grant) == []
    assert await office.checkpoints.parked_keys(grant) == set()


async def test_a_handler_that_fails_leaves_neither(office: Office) -> None:
    grant = await parked(office)
    with pytest.raises(psycopg.errors.DivisionByZero):
        async with office.transactions.open(grant, MINE) as conn:
            await conn.execute("INSERT INTO effects VALUES (1 / 0)")
    assert await effects(office) == 0
    assert [each.position for each in await office.commands.to_retry(grant)] == [1]


async def test_a_second_transaction_for_the_same_event_is_refused_whole(office: Office) -> None:
    grant = await parked(office)
    with office.transactions.open_sync(grant, MINE) as sync_conn:
        sync_conn.execute("INSERT INTO effects VALUES (1)")
    with pytest.raises(UnexpectedAck):
        async with office.transactions.open(grant, MINE) as conn:
            await conn.execute("INSERT INTO effects VALUES (1)")
    assert await effects(office) == 1


async def test_what_was_handled_before_a_rewind_settles_nothing_after_it(office: Office) -> None:
    grant = await parked(office)

    async def comes_back_late() -> None:
        async with office.transactions.open(grant, MINE) as conn:
            await conn.execute("INSERT INTO effects VALUES (1)")
            await office.checkpoints.rewind(grant.rewound(), Progress(0))

    with pytest.raises(StaleEpoch):
        await comes_back_late()
    with pytest.raises(StaleEpoch), office.transactions.open_sync(grant, MINE) as sync_conn:
        sync_conn.execute("INSERT INTO effects VALUES (1)")
    assert await effects(office) == 0
    assert [each.position for each in await office.commands.to_retry(grant)] == [1]


async def test_an_owner_that_was_replaced_settles_nothing(office: Office) -> None:
    stale = await parked(office)
    await office.leases.release([stale])
    (current,) = await office.leases.claim([stale.key])
    with pytest.raises(StaleEpoch):
        async with office.transactions.open(stale, MINE) as conn:
            await conn.execute("INSERT INTO effects VALUES (1)")
    assert await effects(office) == 0
    assert [each.position for each in await office.commands.to_retry(current)] == [1]
