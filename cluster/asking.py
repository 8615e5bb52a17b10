"""What the commands of the command line have in common: their options, and asking one question of a deployment.

Shows nothing itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, TypeVar

import typer

from headwater.cluster import show
from headwater.cluster.client import Client
from headwater.cluster.options import ClusterOptions
from headwater.storage.errors import InvalidArgument
from headwater.storage.options import StoreOptions

T = TypeVar("T")

DatabaseUrl = Annotated[
    str | None, typer.Option(envvar=["HEADWATER_DATABASE_URL", "DATABASE_URL"], help="Where the store's database is.")
]
Schema = Annotated[str | None, typer.Option(envvar="HEADWATER_SCHEMA", help="The schema that holds the store.")]
RedisUrl = Annotated[str | None, typer.Option(envvar="HEADWATER_REDIS_URL", help="Where hints of appends go.")]
Json = Annotated[bool, typer.Option("--json", envvar="HEADWATER_JSON", help="Answer in JSON.")]
DryRun = Annotated[bool, typer.Option(envvar="HEADWATER_DRY_RUN", help="Say what would be done, and do nothing.")]
Subscription = Annotated[str, typer.Argument(help="The subscription's name.")]
Partition = Annotated[int | None, typer.Option(envvar="HEADWATER_PARTITION", help="Only this partition.")]
Reason = Annotated[str, typer.Option(envvar="HEADWATER_REASON", help="Why; kept with the command.")]


def command(
    database_url: str | None,
    schema: str | None,
    subscription: str,
    verb: str,
    arguments: dict[str, Any],
    partition: int | None,
    *,
    json: bool,
    dry_run: bool,
) -> None:
    """Write an operator's command, or check only that it could be."""

    async def put(client: Client) -> Any:
        return await client.command(subscription, verb, arguments, partition=partition, dry_run=dry_run)

    number = ask(database_url, schema, put)
    answer = {"subscription": subscription, "command": verb, "arguments": arguments, "partition": partition}
    show.record({**answer, "number": number, "dry_run": dry_run}, json=json)


def ask(database_url: str | None, schema: str | None, question: Callable[[Client], Awaitable[T]]) -> T:
    """Open a client, ask, and close it."""

    async def asked() -> T:
        client = await Client.open(ClusterOptions(store=store_at(database_url, schema)))
        try:
            return await question(client)
        finally:
            await client.close()

    return asyncio.run(asked())


def store_at(database_url: str | None, schema: str | None, redis_url: str | None = None) -> StoreOptions:
    """Return where the store is. Raises InvalidArgument, ConfigurationError."""
    if not database_url:
        raise InvalidArgument("database-url", "say where the database is, or set HEADWATER_DATABASE_URL")
    return StoreOptions.read(database_url, schema=schema, redis_url=redis_url)


def number_or_time(text: str) -> int | datetime:
    """Read what an operator typed as a place. Raises InvalidArgument."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise InvalidArgument("to", f"{text!r} is neither a number nor a time like 2026-01-31T12:00") from None
