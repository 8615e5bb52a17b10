"""A store that an older program made: nothing of it is lost by migrating, and the result is the same as a fresh one."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import psycopg
import pytest

from headwater.storage.model import ALL, Snapshot
from headwater.storage.options import StoreOptions
from headwater.storage.postgres import schema
from headwater.storage.postgres.statements import migrations
from headwater.storage.postgres.store import PostgresEventStore
from headwater.subscriptions.options import CURRENT, SubscriptionOptions
from tests.integration.subscriptions.following import following
from tests.plugins.events import events

FIRST_COMPLETE = 4
"""The number of the migration from which on a store can do all that these tests need."""

REGISTERED = """
    WITH "s" AS (
        INSERT INTO "headwater"."subscriptions" ("name", "handler", "source", "options")
        VALUES (%(name)s, 'tests:handler', %(source)s, '{}') RETURNING "subscription_id", "source"
    )
    INSERT INTO "headwater"."partitions" ("subscription_id", "checkpoint", "in_flight_to", "stream_id")
    SELECT "subscription_id", 10, 10, "stream_id"
    FROM "s" LEFT JOIN "headwater"."streams" ON "streams"."name" = "s"."source"
"""
"""What an older program wrote for a subscription that has settled ten events."""

SHAPE = """
    SELECT 'column', table_name || '.' || column_name, data_type || coalesce(column_default, '') || is_nullable
    FROM information_schema.columns WHERE table_schema = 'headwater'
    UNION ALL SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'headwater'
    UNION ALL
    SELECT 'function', proname || pg_get_function_identity_arguments(pg_proc.oid), pg_get_functiondef(pg_proc.oid)
    FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace WHERE nspname = 'headwater'
    UNION ALL SELECT 'trigger', tgname, pg_get_triggerdef(pg_trigger.oid)
    FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = 'headwater' AND NOT tgisinternal
    UNION ALL SELECT 'constraint', conname, pg_get_constraintdef(pg_constraint.oid)
    FROM pg_constraint JOIN pg_namespace ON pg_namespace.oid = connamespace WHERE nspname = 'headwater'
    ORDER BY 1, 2, 3
"""


async def shape(url: str) -> list[Any]:
    """Return everything that the schema is made of."""
    async with await psycopg.AsyncConnection.connect(url) as conn:
        return await (await conn.execute(SHAPE.encode())).fetchall()


def an_older_program(monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    """Know the migrations up to one only."""
    older = tuple(migration for migration in migrations() if migration.number <= last)
    monkeypatch.setattr(schema, "migrations", lambda: older)


@pytest.mark.parity("T077", "T072")
@pytest.mark.parametrize("last", [migration.number for migration in migrations()[:-1]])
async def test_a_migrated_schema_equals_a_fresh_one(
    empty_database_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    options = StoreOptions(url=empty_database_url)
    with monkeypatch.context() as patch:
        an_older_program(patch, last)
        await schema.migrate(options)
    pending = [row.number for row in await schema.status(options) if row.applied_at is None]
    assert pending == [migration.number for migration in migrations() if migration.number > last]
    await schema.migrate(options)
    assert await shape(empty_database_url) == await shape(database_url)


@pytest.mark.parity("T078", "T079", "T080", "T081", "T082", "T083", "T084")
async def test_what_an_older_program_stored_is_there_after_migrating(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscriptions = {
        "all": SubscriptionOptions(),
        "all-new": SubscriptionOptions(start=CURRENT),
        "stream": SubscriptionOptions(source="s"),
        "stream-new": SubscriptionOptions(source="s", start=CURRENT),
    }
    with monkeypatch.context() as patch:
        an_older_program(patch, FIRST_COMPLETE)
        async with await PostgresEventStore.open(empty_database_url, migrate=True) as store:
            await store.append("s", events(10))
            await store.link("links", await store.read("s"))
            for version in range(1, 11):
                await store.record_snapshot(Snapshot(f"source-{version}", version, "State", {"n": version}))
            before = await store.read(ALL), await store.read("links")
            async with store.connection() as conn:
                for name, options in subscriptions.items():
                    await conn.execute(REGISTERED, {"name": name, "source": options.source})

    async with await PostgresEventStore.open(empty_database_url, migrate=True) as store:
        assert (await store.read(ALL), await store.read("links")) == before
        assert [(await store.read_snapshot(f"source-{n}")).data for n in range(1, 11)] == [
            {"n": n} for n in range(1, 11)
        ]
        await store.append("s", events(1))
        for name, options in subscriptions.items():
            async with following(store, name, options) as subscription:
                await subscription.has_settled(11)
                assert subscription.numbers == [11], name


@pytest.mark.parity("T073", "T075")
def test_the_list_of_migrations_says_by_its_status_whether_one_is_pending(
    empty_database_url: str, database_url: str
) -> None:
    for url, status in ((empty_database_url, 1), (database_url, 0)):
        command = [sys.executable, "-m", "headwater", "migrations", "--json", "--database-url", url]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (status, "")
        assert "append" in done.stdout
