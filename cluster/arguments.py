"""Options that many commands of the command line have, each written once.

Decides nothing.
"""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Annotated

import typer

from headwater.cluster.options import import_folders
from headwater.storage.checks import check_number
from headwater.storage.errors import InvalidArgument
from headwater.storage.options import StoreOptions

DatabaseUrl = Annotated[
    str | None, typer.Option(envvar=["HEADWATER_DATABASE_URL", "DATABASE_URL"], help="Where the store's database is.")
]
Schema = Annotated[str | None, typer.Option(envvar="HEADWATER_SCHEMA", help="The schema that holds the store.")]
RedisUrl = Annotated[str | None, typer.Option(envvar="HEADWATER_REDIS_URL", help="Where hints of appends go.")]
Archive = Annotated[str | None, typer.Option(envvar="HEADWATER_ARCHIVE", help="The folder of the archive.")]
PartitionSize = Annotated[
    int | None,
    typer.Option(min=1, help="Keep the events in ranges of so many positions."),
]
Json = Annotated[bool, typer.Option("--json", envvar="HEADWATER_JSON", help="Answer in JSON.")]
DryRun = Annotated[bool, typer.Option(help="Say what would be done, and do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Really.")]


def confirm(loss: str, *, yes: bool) -> None:
    """Go on only where it was said that what cannot be undone is meant. Raises InvalidArgument."""
    if not yes:
        raise InvalidArgument("yes", f"{loss}: say --yes")


def store_options(
    database_url: str | None, schema: str | None, redis_url: str | None = None, archive: str | None = None
) -> StoreOptions:
    """Put a store's options together. Raises InvalidArgument without a database."""
    if not database_url:
        raise InvalidArgument("database-url", "say where the database is, or set HEADWATER_DATABASE_URL")
    return StoreOptions.read(database_url, schema=schema, redis_url=redis_url, archive=archive)


def find_users_code() -> None:
    """Let the user's modules be imported from where this program was started, and from the current folder."""
    sys.path[:0] = [folder for folder in import_folders() if folder not in sys.path]


def number_or_time(argument: str, text: str, lowest: int = 0) -> int | datetime:
    """Return what a word means that may be a number, of ``lowest`` or more, or a time. Raises InvalidArgument."""
    try:
        number = int(text)
    except ValueError:
        pass
    else:
        return check_number(argument, number, lowest)
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise InvalidArgument(argument, f"{text!r} is neither a number nor a time like 2026-01-31T12:00") from None
