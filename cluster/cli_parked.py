"""The command ``headwater parked``: look at what a subscription has set aside, and decide what becomes of it.

Says things only; the client does them.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import orjson
import typer

from headwater.cluster import show
from headwater.cluster.arguments import DatabaseUrl, DryRun, Json, Schema, find_users_code
from headwater.cluster.asking import Reason, Subscription, ask
from headwater.cluster.client import Client
from headwater.storage.errors import InvalidArgument
from headwater.storage.parking import ParkedChange
from headwater.storage.registry import ParkedDetails, ParkedEdit, ParkedFilter, ParkedRecord

LISTED = 1000
"""So many are listed, unless a limit is given."""

SHOWN = 20
"""Up to so many positions a person sees; by ``--json`` there are all."""


def parked(
    subscription: Subscription,
    retry: Annotated[bool, typer.Option("--retry", help="Deliver them again.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Take a retry back.")] = False,
    discard: Annotated[bool, typer.Option("--discard", help="Give them up.")] = False,
    edit: Annotated[str | None, typer.Option(help="JSON that the handler gets instead, at the next retry.")] = None,
    position: Annotated[int | None, typer.Option(help="Only this event; alone: everything about it.")] = None,
    key: Annotated[str | None, typer.Option(help="Only this partition key.")] = None,
    stream: Annotated[str | None, typer.Option(help="Only this stream.")] = None,
    type: Annotated[str | None, typer.Option(help="Only this event type.")] = None,
    error: Annotated[str | None, typer.Option(help="Only errors with this text.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many; without: 1,000 in a list, or all.")] = None,
    rate: Annotated[float | None, typer.Option(help="Deliver again at most so many a second.")] = None,
    release: Annotated[
        bool, typer.Option("--release", help="With --discard: deliver what waited behind them.")
    ] = False,
    reason: Reason = "",
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """List what a subscription has set aside. Deliver it again, corrected or not, or give it up."""
    if sum((retry, cancel, discard, edit is not None)) > 1:
        raise InvalidArgument("parked", "one of --retry, --cancel, --discard and --edit, not several")
    if release and not discard:
        raise InvalidArgument("release", "--release says what becomes of those behind what --discard gives up")
    if rate is not None and not retry:
        raise InvalidArgument("rate", "--rate says how fast --retry delivers")
    if reason and not (retry or cancel or discard or edit is not None):
        raise InvalidArgument(
            "reason", "--reason says why something is done: with --retry, --cancel, --discard or --edit"
        )
    if limit is not None and (cancel or edit is not None):
        raise InvalidArgument("limit", "--limit is for a list, for --retry and for --discard")
    find_users_code()  # how an encrypted event is looked at, HEADWATER_ENCRYPTION may say
    where = ParkedFilter(
        positions=None if position is None else (position,), key=key, stream=stream, type=type, error=error
    )

    async def change(client: Client) -> ParkedChange:
        if cancel:
            return await client.cancel_retry(subscription, where, reason=reason, dry_run=dry_run)
        if discard:
            return await client.discard_parked(
                subscription, where, limit=limit, release=release, reason=reason, dry_run=dry_run
            )
        return await client.retry_parked(subscription, where, limit=limit, rate=rate, reason=reason, dry_run=dry_run)

    if edit is not None:
        _edit(database_url, schema, subscription, position, _json(edit), reason, json=json, dry_run=dry_run)
    elif retry or cancel or discard:
        verb = "cancel" if cancel else "discard" if discard else "retry"
        done = ask(database_url, schema, change)
        show.record({"subscription": subscription, **_counted(verb, done, json=json), "dry_run": dry_run}, json=json)
    elif position is not None:
        details = ask(database_url, schema, lambda client: client.parked_event(subscription, position))
        fields = asdict(details)
        show.record({**fields.pop("parked"), **(fields if json else _for_people(details))}, json=json)
    else:
        rows = ask(database_url, schema, lambda client: client.parked(subscription, where, limit=limit or LISTED))
        if json:
            show.rows(rows, json=True)
        else:
            show.briefly(
                list(map(_brief, rows)), [row.error for row in rows], empty="Nothing is parked.", called="error"
            )


def _brief(row: ParkedRecord) -> dict[str, object]:
    """Return what a person sees of a parked event at first; the rest by ``--json``, or when looking at it alone."""
    return {
        "position": row.position,
        "key": row.partition_key,
        "status": row.status,
        "reason": row.reason,
        "attempts": row.attempts,
        "stream": row.stream,
        "type": row.type,
    }


def _counted(verb: str, change: ParkedChange, *, json: bool) -> dict[str, object]:
    """Say what was done to how many, what the handler gets because of it, and what stays."""
    counts: dict[str, object] = {"command": verb, "number": len(change.positions)}
    if verb == "retry":
        counts |= {"earlier": change.earlier, "behind": change.behind}
    else:
        counts |= {"to_deliver": len(change.to_deliver), "under_way": len(change.under_way)}
    if verb != "cancel":
        counts["left"] = change.left
    for name in ("positions", "to_deliver", "under_way") if json else ("positions",):
        listed = getattr(change, name)
        if json or len(listed) <= SHOWN:
            counts[name if name == "positions" else f"{name}_positions"] = listed
    return counts


def _for_people(details: ParkedDetails) -> dict[str, object]:
    """Say what the event holds, what its handler gets instead, and who decided that."""
    deleted = details.parked.stream is None
    shown: dict[str, object] = {
        "data": None if deleted else show.payload(details.data),
        "metadata": None if deleted else show.payload(details.metadata),
    }
    if details.edits:
        shown["corrected_data"] = show.payload(details.edits[-1].after)
        shown["edits"] = "\n".join(map(_told, details.edits))
    return shown


def _told(edit: ParkedEdit) -> str:
    why = f" ({edit.reason})" if edit.reason else ""
    return (
        f"{show.when(edit.edited_at)} {edit.edited_by}{why}: {show.payload(edit.before)} -> {show.payload(edit.after)}"
    )


def _edit(
    database_url: str | None,
    schema: str | None,
    subscription: str,
    position: int | None,
    data: object,
    reason: str,
    *,
    json: bool,
    dry_run: bool,
) -> None:
    if position is None:
        raise InvalidArgument("position", "say which event is to be edited: --position")

    async def edited(client: Client) -> object:
        before = await client.parked_event(subscription, position)
        if not dry_run:
            await client.edit_parked(subscription, position, data, reason=reason)
        return before.edits[-1].after if before.edits else before.data

    before = ask(database_url, schema, edited)
    if not json:
        before, data = show.payload(before), show.payload(data)
    answer = {"subscription": subscription, "command": "edit", "position": position, "before": before, "after": data}
    show.record({**answer, "dry_run": dry_run}, json=json)


def _json(text: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument("edit", f"{text!r} is not JSON: {error}") from None
