"""The command ``headwater audit``: who asked for what, when, why, and what became of it.

Shows only; what is asked for stays as rows wherever it was asked from.
"""

from __future__ import annotations

from datetime import UTC
from typing import Annotated, Any

import typer

from headwater.cluster import show
from headwater.cluster.arguments import DatabaseUrl, Json, Schema, find_users_code, number_or_time
from headwater.cluster.asking import ask
from headwater.storage.errors import InvalidArgument
from headwater.storage.registry import CommandRecord


def _brief(record: CommandRecord) -> dict[str, Any]:
    """Return what a person sees of a command at first."""
    where = record.subscription if record.partition is None else f"{record.subscription}/{record.partition}"
    outcome = record.outcome or ("open" if record.applied_at is None else "done")
    return {
        "when": f"{record.issued_at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}",
        "by": record.issued_by,
        "subscription": where,
        "command": record.verb,
        "outcome": outcome,
    }


def _details(record: CommandRecord) -> str | None:
    """Return what exactly was asked for, and why."""
    asked = {name: value for name, value in record.arguments.items() if name not in ("reason", "edit_id")}
    said = ", ".join(f"{name} {show.payload(value)}" for name, value in asked.items())
    if record.edit is not None:
        said += f": {show.payload(record.edit.before)} -> {show.payload(record.edit.after)}"
    return "; ".join(filter(None, [said, record.arguments.get("reason")])) or None


def audit(
    subscription: Annotated[str | None, typer.Argument(help="Only this subscription.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 100,
    since: Annotated[str | None, typer.Option(help="None from before this time.")] = None,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
) -> None:
    """List what was asked for, the newest first. By whom, when, why, and what became of it."""
    begin = None if since is None else number_or_time("since", since)
    if isinstance(begin, int):
        raise InvalidArgument("since", f"{since!r} is no time like 2026-01-31T12:00")
    find_users_code()  # how a corrected payload is looked at, HEADWATER_ENCRYPTION may say
    found = ask(database_url, schema, lambda client: client.audit(subscription, limit=limit, since=begin))
    if json:
        show.rows(found, json=True)
    else:
        show.briefly(
            [_brief(each) for each in found],
            [_details(each) for each in found],
            empty="Nothing was asked for.",
            called="asked for",
        )
