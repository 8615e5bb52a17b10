"""The roles that the migrations make: what each may do, and what it may not."""

from __future__ import annotations

import logging
import secrets
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from headwater.storage.errors import ConfigurationError, InvalidArgument
from headwater.storage.model import ALL, AppendCondition, Filter, ImportedEvent, NewEvent, Snapshot, StreamAppend
from headwater.storage.options import StoreOptions
from headwater.storage.postgres import roles, schema
from headwater.storage.postgres.archiving import open_archive
from headwater.storage.postgres.partitioning import partition
from headwater.storage.postgres.store import PostgresEventStore
from headwater.subscriptions.options import SubscriptionOptions
from tests.integration.subscriptions.following import following
from tests.plugins.databases import new_database
from tests.plugins.events import events

PASSWORD = secrets.token_hex(8)

Login = Callable[..., str]
"""Makes a login and gives the URL by which it connects."""


@pytest.fixture(params=["database_url", "partitioned_url"], ids=["whole", "partitioned"])
def empty_store_url(request: pytest.FixtureRequest) -> str:
    """The URL, for the owner, of a store of each kind."""
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
async def url(empty_store_url: str) -> str:
    """The same, with three events of a stream, one of another, and a link."""
    url = empty_store_url
    async with await PostgresEventStore.open(url) as store:
        await store.append("s", events(3, tags=["t"]))
        await store.append("other", events(1))
        await store.link("links", await store.read("s", limit=1))
    return url


@contextmanager
def logins() -> Iterator[Login]:
    """Make logins for the length of the block, with no rights but those of the roles they are put into."""
    made: list[tuple[str, str]] = []

    def make(url: str, *kinds: str, createrole: bool = False) -> str:
        name = f"headwater_login_{secrets.token_hex(6)}"
        may = sql.SQL("CREATEROLE" if createrole else "NOCREATEROLE")
        create = sql.SQL("CREATE ROLE {} LOGIN {} PASSWORD {}").format(sql.Identifier(name), may, sql.Literal(PASSWORD))
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(create)
            made.append((name, url))
            for kind in kinds:
                [role] = (
                    conn.execute('SELECT "name" FROM "headwater"."roles" WHERE "kind" = %s', (kind,)).fetchone() or []
                )
                conn.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(name)))
        parts = urlsplit(url)
        return parts._replace(netloc=f"{name}:{PASSWORD}@{parts.netloc.rpartition('@')[2]}").geturl()

    try:
        yield make
    finally:
        for name, url in made:
            with psycopg.connect(url, autocommit=True) as conn:
                # What a migration of its own made goes with it, and the rights that it gave.
                conn.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(name)))
                conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def login() -> Iterator[Login]:
    with logins() as make:
        yield make


@asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[PostgresEventStore]:
    async with await PostgresEventStore.open(url, pool_size=2, **settings) as store:
        yield store


async def refused(call: Awaitable[object]) -> None:
    with pytest.raises(ConfigurationError, match="permission denied"):
        await call


def statements_refused(url: str, *statements: str) -> None:
    """Check that a login may not do any of these, by itself or through a SET ROLE."""
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in statements:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement.encode())


def may_create(url: str, login: str) -> None:
    """Let a login make schemas."""
    name = sql.Identifier(urlsplit(login).username or "")
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(sql.Identifier(conn.info.dbname), name))


TAMPERING = (
    'UPDATE "headwater"."events" SET "data" = NULL',
    'DELETE FROM "headwater"."events"',
    'TRUNCATE "headwater"."events"',
    'INSERT INTO "headwater"."events" SELECT * FROM "headwater"."events"',
    'UPDATE "headwater"."head" SET "position" = 0',
    'SELECT FROM "headwater"."head" FOR UPDATE',
    'UPDATE "headwater"."streams" SET "version" = 0',
    'DELETE FROM "headwater"."links"',
    'DELETE FROM "headwater"."event_tags"',
    'DELETE FROM "headwater"."event_ids"',
    'UPDATE "headwater"."ranges" SET "file" = NULL',
    'INSERT INTO "headwater"."archived_erasures" ("stream", "before_version", "up_to_position") VALUES (\'s\', 9, 9)',
    'DELETE FROM "headwater"."migrations"',
    'UPDATE "headwater"."roles" SET "name" = session_user',
    'DELETE FROM "headwater"."appends_at_commit"',
    'CREATE TABLE "headwater"."mine" ()',
    'CREATE FUNCTION "headwater"."mine"() RETURNS integer LANGUAGE sql RETURN 1',
    'ALTER TABLE "headwater"."events" DISABLE TRIGGER ALL',
    'ALTER FUNCTION "headwater"."refuse_change_v1"() OWNER TO session_user',
    'DROP SCHEMA "headwater" CASCADE',
    'SELECT "headwater"."delete_stream_v1"(\'s\', -1, true)',
    'SELECT "headwater"."truncate_stream_v1"(\'s\', 3)',
    'SELECT "headwater"."remove_events_v1"(\'s\', NULL)',
    'SELECT "headwater"."begin_import_v1"(ARRAY[\'s\'], ARRAY[5], ARRAY[1], 5, NULL)',
    'SELECT "headwater"."grant_roles_v1"()',
    'SELECT "headwater"."make_roles_v1"()',
    'SELECT "headwater"."make_range_v1"(1000, 2000)',
    'SELECT "headwater"."attach_range_v1"(1, 16)',
    'SELECT "headwater"."partition_events_v1"()',
    "SELECT \"headwater\".\"archive_range_v1\"(1, 0, 'f', 'h', 0, NULL, NULL)",
    'SELECT "headwater"."forget_archived_v1"(ARRAY[1]::bigint[])',
)


async def test_the_append_role_appends_and_links_and_no_more(url: str, login: Login) -> None:
    mine = login(url, "append")
    async with opened(mine, hard_deletes=True) as store:
        written = await store.append("s", again := events(40), 3)
        assert (await store.append("s", again, 3)).repeated
        await store.append_to_many([StreamAppend("a", events(1)), StreamAppend("b", events(2, tags=["t"]))])
        await store.append("c", events(1), condition=AppendCondition(Filter(streams=("c",)), 0))
        assert await store.link("links", [again[0].id]) == 2
        assert await store.head() == written.last_position + 4
        async with store.pool.connection() as conn, conn.transaction():
            await store.append_at_commit("d", events(1), conn=conn)
        assert await store.import_events([ImportedEvent("e", event) for event in events(3)]) == 3
        for call in (
            store.read("s"),
            store.read(ALL),
            store.read_page("s", 0, 1),
            store.read_snapshot("s"),
            store.record_snapshot(Snapshot("s", 1, "State", {})),
            store.stream_info("s"),
            store.list_streams(),
            store.delete_stream("s"),
            store.delete_stream("s", hard=True),
            store.truncate_stream("s", 2),
            store.undelete_stream("s"),
        ):
            await refused(call)
    statements_refused(
        mine,
        *TAMPERING,
        'SELECT "data" FROM "headwater"."events"',
        """SELECT "headwater"."begin_import_v1"(ARRAY['s'], ARRAY[1], ARRAY[1], 1, NULL)""",
        'SELECT * FROM "headwater"."streams"',
        'SELECT * FROM "headwater"."snapshots"',
        'SELECT * FROM "headwater"."subscriptions"',
        'SELECT * FROM "headwater"."parked_events"',
        'SELECT * FROM "headwater"."appends_at_commit"',
        'INSERT INTO "headwater"."commands" ("subscription_id", "verb", "issued_by") VALUES (1, \'pause\', \'me\')',
    )
    async with opened(url) as store:
        assert (await store.stream_info("d")).version == 1


async def test_the_run_role_reads_and_runs_subscriptions_and_cannot_write_events(url: str, login: Login) -> None:
    mine = login(url, "run")
    async with opened(mine, hard_deletes=True) as store:
        assert len(await store.read("s")) == len(await store.read_all(where=Filter(tags=("t",)))) == 3
        assert len(await store.read("links")) == 1
        assert (await store.stream_info("s")).version == 3
        assert await store.position_at((await store.read("s"))[0].created_at) == 0
        await store.record_snapshot(Snapshot("s", 3, "State", {"n": 3}))
        await store.record_snapshot(Snapshot("s", 3, "State", {"n": 4}))
        assert (await store.read_snapshot("s")).data == {"n": 4}
        assert await store.delete_snapshots("s") == 1
        async with following(store, "mine", SubscriptionOptions()) as subscription:
            await subscription.has_settled(4)
            assert subscription.numbers == [1, 2, 3, 4]
        for call in (
            store.append("s", events(1)),
            store.link("links", [uuid.UUID(int=1)]),
            store.delete_stream("s"),
            store.delete_stream("s", hard=True),
            store.truncate_stream("s", 2),
            store.undelete_stream("s"),
        ):
            await refused(call)
    statements_refused(mine, *TAMPERING, 'INSERT INTO "headwater"."appends_at_commit" SELECT')


async def test_the_admin_role_deletes_and_migrates_and_what_it_makes_is_the_roles(
    url: str, login: Login, tmp_path: Path
) -> None:
    mine = login(url, "admin")
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute('DELETE FROM "headwater"."migrations" WHERE "number" = 6')
        owner.execute('DROP TABLE "headwater"."appends_at_commit"; DROP FUNCTION "headwater"."append_at_commit_v1"')
    options = StoreOptions(url=mine, hard_deletes=True, archive=str(tmp_path / "archive"))
    assert [row.number for row in await schema.migrate(options) or []] == [6]
    await partition(options, 16)
    async with opened(mine, hard_deletes=True) as store:
        await store.append("s", events(30))
        assert await store.import_events([ImportedEvent("s", event) for event in events(30)]) == 30
        await store.truncate_stream("s", 2)
        await store.delete_stream("s")
        await store.undelete_stream("s")
        await store.delete_stream("other", hard=True)
    async with open_archive(options) as archivist:
        size = (await archivist.ranges())[0].last_position
        if size == 16:
            assert await archivist.archive(17)
            assert await archivist.restore()
    with psycopg.connect(url, autocommit=True) as owner:
        owners = owner.execute(
            "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'headwater'::regnamespace"
        ).fetchall()
        assert owners == owner.execute('SELECT "name" FROM "headwater"."roles" WHERE "kind" = \'admin\'').fetchall()
    async with opened(login(url, "append")) as store, opened(login(url, "run")) as reader:
        await store.append("s", events(1), 63)
        async with store.pool.connection() as conn, conn.transaction():
            await store.append_at_commit("d", events(1), conn=conn)
        assert len(await reader.read("s")) == 63


async def test_a_login_without_a_role_may_do_nothing(url: str, login: Login) -> None:
    mine = login(url)
    with pytest.raises(ConfigurationError, match="permission denied"):
        async with opened(mine):
            pass
    statements_refused(mine, *TAMPERING, 'SELECT FROM "headwater"."migrations"')


async def test_nobody_can_lend_the_appends_rights_to_something_else(url: str, login: Login) -> None:
    mine = login(url, "append")
    with psycopg.connect(mine, autocommit=True) as conn:
        # Functions and operators of one's own, in the schema that is looked into first, are not found by the append.
        conn.execute("CREATE TEMP TABLE events (x integer); CREATE TEMP TABLE head (position bigint)")
        conn.execute(
            "CREATE FUNCTION pg_temp.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'as %', current_user; END $$"
        )
        conn.execute("SET search_path = pg_temp, pg_catalog")
        conn.execute("SET headwater.allow_change = 'on'")
        conn.execute(
            'SELECT * FROM "headwater"."append_v1"(ARRAY[\'x\'], ARRAY[1], ARRAY[-1::bigint], ARRAY[1], ARRAY[1], '
            "ARRAY[1], "
            "ARRAY[gen_random_uuid()], ARRAY['T'], ARRAY['1'::json], NULL, NULL, NULL, NULL, NULL, NULL)"
        )
        pinned = conn.execute(
            "SELECT bool_and('search_path=pg_catalog, pg_temp' = ANY (proconfig)), count(*) FROM pg_proc "
            "WHERE pronamespace = 'headwater'::regnamespace AND prosecdef"
        ).fetchone()
        assert pinned is not None
        assert pinned[0]
        assert pinned[1] > 5
    with psycopg.connect(url) as conn:
        for_all = conn.execute(
            "SELECT proname FROM pg_proc, aclexplode(proacl) AS acl "
            "WHERE pronamespace = 'headwater'::regnamespace AND acl.grantee = 0"
        ).fetchall()
        assert for_all == []
        powers = conn.execute(
            "SELECT bool_or(rolsuper OR rolcreaterole OR rolcreatedb OR rolcanlogin OR rolreplication OR rolbypassrls) "
            'FROM pg_roles JOIN "headwater"."roles" ON rolname = "name"'
        ).fetchone()
        assert powers == (False,)


async def test_a_user_who_may_not_make_roles_is_told_and_everything_else_works(
    database_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    with new_database(database_server) as url, logins() as login:
        mine = login(url)
        may_create(url, mine)
        with caplog.at_level(logging.WARNING):
            async with opened(mine, migrate=True, hard_deletes=True) as store:
                await store.append("s", events(3))
                await store.truncate_stream("s", 2)
        assert "may not create roles" in caplog.text
        assert await roles.list_roles(StoreOptions(url=mine)) == []
        await partition(StoreOptions(url=mine), 10)
        async with opened(mine) as store:
            await store.append("s", events(30))
            assert len(await store.read("s")) == 32


async def test_a_user_who_may_not_make_schemas_is_told(empty_database_url: str) -> None:
    with logins() as login, pytest.raises(ConfigurationError, match="permission denied for database"):
        await schema.migrate(StoreOptions(url=login(empty_database_url)))


async def test_a_user_who_may_make_roles_need_not_be_a_superuser(database_server: str) -> None:
    with new_database(database_server) as url, logins() as login:
        mine = login(url, createrole=True)
        may_create(url, mine)
        options = StoreOptions(url=mine, hard_deletes=True)
        await schema.migrate(options)
        assert {role.kind for role in await roles.list_roles(options)} == {"append", "run", "admin"}
        async with opened(mine, hard_deletes=True) as store:
            await store.append("s", events(3))
            await store.delete_stream("s", hard=True)
        writer = login(url)
        name = urlsplit(writer).username or ""
        await roles.change_member(options, "append", name)
        async with opened(writer) as store:
            await store.append("s", events(3))
        # Since Postgres 16 whoever makes a role may say who is in it, and is listed, too.
        assert name in next(role.members for role in await roles.list_roles(options) if role.kind == "append")
        await roles.change_member(options, "append", name, remove=True)
        with pytest.raises(ConfigurationError, match="permission denied"):
            async with opened(writer):
                pass


async def test_two_stores_in_a_database_and_two_databases_have_roles_of_their_own(
    database_server: str, database_url: str
) -> None:
    long = "x" * 63
    with new_database(database_server) as elsewhere, logins() as login:
        stores = [
            StoreOptions(url=url, schema=name)
            for url in (database_url, elsewhere)
            for name in ("headwater", "other", long, long[1:] + "y")
        ]
        names = set()
        for options in stores:
            await schema.migrate(options)
            names |= {role.name for role in await roles.ensure_roles(options)}
        assert len(names) == 3 * len(stores)
        mine = login(database_url, "append")
        for options in stores[1:]:
            other = urlsplit(mine)._replace(path=urlsplit(options.url).path).geturl()
            with pytest.raises(ConfigurationError, match="permission denied"):
                async with opened(other, schema=options.schema):
                    pass
        for options in stores[1:4]:
            await schema.drop(options)
        with psycopg.connect(database_url) as conn:
            there = {name for (name,) in conn.execute("SELECT rolname FROM pg_roles")}
        assert len(names & there) == 3 * len(stores) - 9


async def test_a_copied_database_keeps_the_grants_of_the_one_it_is_of(
    database_server: str, template_database: str, database_url: str
) -> None:
    with new_database(database_server, template_database) as copy, logins() as login:
        one, two = [await roles.list_roles(StoreOptions(url=url)) for url in (database_url, copy)]
        assert [role.name for role in one] == [role.name for role in two]
        async with opened(login(copy, "append")) as store:
            await store.append("s", [NewEvent("T")])
        assert await schema.drop(StoreOptions(url=copy))
    # The roles of the one it is of have not gone with it.
    assert len(await roles.list_roles(StoreOptions(url=database_url))) == 3


async def test_what_is_no_role_and_no_login_is_refused(database_url: str) -> None:
    options = StoreOptions(url=database_url)
    with pytest.raises(InvalidArgument, match="append, run, admin"):
        await roles.change_member(options, "owner", "postgres")
    with pytest.raises(ConfigurationError, match="does not exist"):
        await roles.change_member(options, "run", 'no"body; DROP ROLE x')


@pytest.mark.parametrize(
    ("counts", "units", "append_of"),
    [
        ([-2, 1], [1, 1], [1, 2]),
        ([1, 1], [1], [1, 2]),
        ([1, 1], [2, 0], [1, 2]),
        ([1, 1], [1, 1], [2, 1]),
        ([1, 1], [1, 1], [1, 3]),
        ([2, 1], [1, 1], [1, 2]),
        ([1, 1], [1, 1], [1]),
    ],
    ids=["below zero", "appends of no unit", "an empty unit", "out of order", "no such append", "too many", "too few"],
)
async def test_who_may_append_cannot_set_the_order_back_by_arrays_that_contradict_one_another(
    url: str, login: Login, counts: list[int], units: list[int], append_of: list[int]
) -> None:
    call = """
        SELECT * FROM "headwater"."append_v1"(
            ARRAY['s', 'other'], ARRAY[1, 2], ARRAY[7, -1]::bigint[], %s::integer[], %s::integer[], %s::integer[],
            %s::uuid[], ARRAY['A', 'B'], ARRAY['1', '2']::json[], NULL, NULL, NULL, NULL, NULL, NULL)
    """
    ids = [uuid.uuid4(), uuid.uuid4()]
    async with opened(login(url, "append")) as store, store.pool.connection() as conn:
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            await conn.execute(call, [counts, units, append_of, ids])
        [outcome] = await (await conn.execute(call, [[1, 1], [1, 1], [1, 2], ids])).fetchall()
        assert outcome[2] == [1, 0], "the first expects another version, the second is written"
    async with opened(url) as store:
        assert [event.version for event in await store.read("other")] == [1, 2]
