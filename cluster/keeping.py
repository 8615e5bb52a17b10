"""The commands that keep a large store: ranges of events, their archive, retention, and the roles of the database.

Says things only, as the rest of the command line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Annotated

import typer

from headwater.cluster import show
from headwater.cluster.arguments import (
    Archive,
    DatabaseUrl,
    DryRun,
    Json,
    Schema,
    number_or_time,
    store_options,
)
from headwater.storage.errors import InvalidArgument
from headwater.storage.options import StoreOptions
from headwater.storage.postgres import retention, roles
from headwater.storage.postgres.archiving import Archivist, RangeStatus, open_archive
from headwater.storage.postgres.partitioning import partition
from headwater.storage.postgres.store import PostgresEventStore

keeping = typer.Typer()


@keeping.command("partition")
def partition_store(
    size: Annotated[int, typer.Option(min=1, help="How many positions in a range.")],
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
) -> None:
    """Keep the events in ranges of positions from now on. Old ones can be archived then; works while in use."""
    done = asyncio.run(partition(store_options(database_url, schema), size))
    show.record({"partitioned": done, "size": size}, json=json)


@keeping.command()
def ranges(database_url: DatabaseUrl = None, schema: Schema = None, json: Json = False) -> None:
    """List the ranges of events. With the files that archived ones are in."""
    found = _ask(store_options(database_url, schema), Archivist.ranges)
    show.rows(found, json=json, empty="There are none.", leave_out=("problem",))


@keeping.command()
def archive(
    before: Annotated[str, typer.Option(help="Whole ranges before this position or time.")],
    readers_restarted: Annotated[
        bool,
        typer.Option(
            "--readers-restarted",
            help="No program runs that opened the store before it was partitioned.",
        ),
    ] = False,
    archive: Archive = None,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Move old ranges of events into files of the archive. They are read from there."""
    target = number_or_time("before", before)

    async def ask(archivist: Archivist) -> list[RangeStatus]:
        if dry_run:
            return await archivist.candidates(target)
        return await archivist.archive(target, readers_restarted=readers_restarted)

    moved = _ask(store_options(database_url, schema, archive=archive), ask)
    show.rows(moved, json=json, empty="No whole range stands before that.", leave_out=("problem",))


@keeping.command()
def verify(
    archive: Archive = None, database_url: DatabaseUrl = None, schema: Schema = None, json: Json = False
) -> None:
    """Compare the whole archive with what was written. The exit status is 1 when a file is damaged."""
    checked = _ask(store_options(database_url, schema, archive=archive), Archivist.verify)
    show.rows(checked, json=json, empty="Nothing is archived.")
    if any(each.state == "damaged" for each in checked):
        raise typer.Exit(1)


@keeping.command()
def restore(
    after: Annotated[int, typer.Option(min=0, help="Ranges with events after this.")] = 0,
    archive: Archive = None,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
) -> None:
    """Bring archived ranges back into the database. The newest come first; their files stay."""
    back = _ask(store_options(database_url, schema, archive=archive), lambda archivist: archivist.restore(after))
    show.rows(back, json=json, empty="Nothing is archived after that.", leave_out=("events", "file", "problem"))


@keeping.command()
def erase(archive: Archive = None, database_url: DatabaseUrl = None, schema: Schema = None, json: Json = False) -> None:
    """Write files of the archive anew. Those of which events were deleted for good since they were archived."""
    rewritten = _ask(store_options(database_url, schema, archive=archive), Archivist.erase)
    show.rows(rewritten, json=json, empty="Nothing had to be erased.", leave_out=("problem",))


@keeping.command()
def retain(
    stream: Annotated[str | None, typer.Option(help="This stream.")] = None,
    category: Annotated[str | None, typer.Option(help="All streams of it.")] = None,
    max_age_days: Annotated[float | None, typer.Option(min=0, max=365_000, help="How old events may be.")] = None,
    max_count: Annotated[int | None, typer.Option(min=0, help="How many versions of a stream stay.")] = None,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Remove the beginnings of streams for good. That is what is older, or more, than a policy allows."""
    max_age = None if max_age_days is None else timedelta(days=max_age_days)
    policy = retention.Retention(stream=stream, category=category, max_age=max_age, max_count=max_count)
    options = replace(store_options(database_url, schema), hard_deletes=True)

    async def ask() -> list[retention.Truncation]:
        async with await PostgresEventStore.open(options=options) as store:
            return await (retention.plan if dry_run else retention.retain)(store, policy)

    show.rows(asyncio.run(ask()), json=json, empty="Everything may stay.")


@keeping.command("roles")
def database_roles(
    make: Annotated[bool, typer.Option("--make", help="Make what is missing.")] = False,
    grant: Annotated[str | None, typer.Option(help="append, run or admin.")] = None,
    revoke: Annotated[str | None, typer.Option(help="append, run or admin.")] = None,
    login: Annotated[str | None, typer.Option(help="The login that gets or loses it.")] = None,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
) -> None:
    """List the store's roles and who is in them. Or make them, or put a login into one, or take it out."""
    kind = grant or revoke
    if (grant and revoke) or bool(kind) != bool(login):
        raise InvalidArgument("roles", "say --grant ROLE --login NAME, or --revoke ROLE --login NAME")
    options = store_options(database_url, schema)

    async def ask() -> list[roles.StoreRole]:
        if make:
            await roles.ensure_roles(options)
        if kind and login:
            await roles.change_member(options, kind, login, remove=revoke is not None)
        return await roles.list_roles(options)

    show.rows(asyncio.run(ask()), json=json, empty="There are none: make them by --make, as a user who may do that.")


def _ask(options: StoreOptions, question: Callable[[Archivist], Awaitable[list[RangeStatus]]]) -> list[RangeStatus]:
    async def ask() -> list[RangeStatus]:
        async with open_archive(options) as archivist:
            return await question(archivist)

    return asyncio.run(ask())
