"""What the commands that operate a deployment have in common: their options, and asking one question of it.

Shows nothing itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import typer

from headwater.cluster import show
from headwater.cluster.arguments import store_options
from headwater.cluster.client import Client
from headwater.cluster.options import ClusterOptions
from headwater.storage.errors import SubscriptionNotFound

T = TypeVar("T")

Subscription = Annotated[str, typer.Argument(help="The subscription's name.")]
Partition = Annotated[int | None, typer.Option(help="Only this partition.")]
Reason = Annotated[str, typer.Option(help="Why; kept with the command.")]


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


def because(reason: str) -> dict[str, str]:
    """Return a reason as the argument that is kept with a command; none when there is none."""
    return {"reason": reason} if reason else {}


def ask(database_url: str | None, schema: str | None, question: Callable[[Client], Awaitable[T]]) -> T:
    """Open a client, ask, and close it."""

    async def asked() -> T:
        client = await Client.open(ClusterOptions(store=store_options(database_url, schema)))
        try:
            return await question(client)
        except SubscriptionNotFound as error:
            if error.known is not None:
                raise
            raise SubscriptionNotFound(error.subscription, await _names(client)) from None
        finally:
            await client.close()

    return asyncio.run(asked())


async def _names(client: Client) -> tuple[str, ...]:
    return tuple(sorted({each.subscription for each in await client.partitions()}))
