"""The commands about subjects' keys: forgetting a subject, and wrapping keys anew.

Says things only, as the rest of the command line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any, TypeVar

import typer

from headwater.cluster import show
from headwater.cluster.arguments import DatabaseUrl, DryRun, Json, Schema, Yes, confirm, find_users_code, store_options
from headwater.storage.encryption.options import Encryption
from headwater.storage.postgres.store import PostgresEventStore

T = TypeVar("T")

EncryptionPath = Annotated[
    str | None,
    typer.Option(envvar="HEADWATER_ENCRYPTION", help="Import path of the store's encryption, if it has its own keys."),
]


def forget(
    subject: Annotated[str, typer.Argument(help="Whose data.")],
    yes: Yes = False,
    encryption: EncryptionPath = None,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Destroy the key of a subject. What was encrypted under it can never be read again."""
    confirm(f"what is stored of {subject!r} can never be read again", yes=yes or dry_run)

    async def destroy(store: PostgresEventStore) -> dict[str, Any]:
        known = await store.payloads.knows(subject)
        forgotten = not dry_run and await store.forget(subject)
        return {"subject": subject, "known": known, "forgotten": forgotten, "dry_run": dry_run}

    show.record(_in_store(database_url, schema, encryption, destroy), json=json)


def rewrap(
    encryption: EncryptionPath = None,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
) -> None:
    """Wrap every subject's key with the newest master key. Afterwards the older ones are not needed any more."""

    async def wrap(store: PostgresEventStore) -> dict[str, Any]:
        return {"rewrapped": await store.payloads.rewrap_keys()}

    show.record(_in_store(database_url, schema, encryption, wrap, Encryption), json=json)


def _in_store(
    database_url: str | None,
    schema: str | None,
    encryption: str | None,
    work: Callable[[PostgresEventStore], Awaitable[T]],
    otherwise: Callable[[], Encryption] | None = None,
) -> T:
    """Do something with an open store; without the path of an encryption, with the one that ``otherwise`` makes."""
    options = replace(store_options(database_url, schema), types=None, codec=None, encryption=encryption)
    find_users_code()

    async def run() -> T:
        made = otherwise() if otherwise is not None and encryption is None else None
        async with await PostgresEventStore.open(options=options, encryption=made) as store:
            return await work(store)

    return asyncio.run(run())
