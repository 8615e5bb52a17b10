"""The commands that hand events out again: ``rewind``, ``replay`` and ``replace``, and their lists.

They say things only; the client does them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from headwater.cluster import show
from headwater.cluster.arguments import DatabaseUrl, DryRun, Json, Schema, find_users_code, number_or_time
from headwater.cluster.asking import Partition, Reason, Subscription, ask
from headwater.cluster.client import Client
from headwater.storage.errors import InvalidArgument
from headwater.storage.postgres.replacing import OPEN
from headwater.subscriptions.imports import resolve

SideEffects = Annotated[
    bool,
    typer.Option(
        "--side-effects/--no-side-effects",
        help="Whether handlers may have effects outside while they replay.",
    ),
]

DETAILS = ("command_id", "issued_at", "started_at", "ended_at", "last_error")
"""What a person sees of a replay only by ``--json``."""


def rewind(
    subscription: Subscription,
    to: Annotated[str, typer.Option(help="Begin after this number, or at this time; 0: with the first event.")],
    side_effects: SideEffects = True,
    partition: Partition = None,
    reason: Reason = "",
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Deliver again from a number or a time on. Or skip forward to it.

    The answer, also that of a dry run, says how many numbers of the source come again, and how many are skipped: those
    between a partition's checkpoint and the number; of several partitions, the most of one.
    """
    place = number_or_time("to", to, lowest=0)

    async def rewound(client: Client) -> tuple[int, list[int]]:
        number = await client.number_at(subscription, place)
        found = await client.partitions(subscription)
        await client.rewind(
            subscription, number, side_effects=side_effects, partition=partition, reason=reason, dry_run=dry_run
        )
        return number, [each.checkpoint for each in found if partition in (None, each.partition)]

    number, checkpoints = ask(database_url, schema, rewound)
    answer = {"subscription": subscription, "command": "rewind", "arguments": {"to": number}, "partition": partition}
    counts = {
        "again": max(max(checkpoint - number, 0) for checkpoint in checkpoints),
        "skipped": max(max(number - checkpoint, 0) for checkpoint in checkpoints),
    }
    number_of = {"side_effects": side_effects, "number": len(checkpoints)}
    show.record({**answer, **number_of, **counts, "dry_run": dry_run}, json=json)


def replay(
    subscription: Subscription,
    first: Annotated[str, typer.Option("--from", help="The first number, or a time.")] = "1",
    last: Annotated[str | None, typer.Option("--to", help="The last number, or a time; else the checkpoint.")] = None,
    side_effects: SideEffects = True,
    cancel: Annotated[bool, typer.Option("--cancel", help="End its replays.")] = False,
    partition: Partition = None,
    reason: Reason = "",
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Deliver a range once more. It runs beside what is delivered live, and can be ended."""
    begin, end = number_or_time("from", first, lowest=1), None if last is None else number_or_time("to", last, lowest=1)

    async def change(client: Client) -> dict[str, Any]:
        if cancel:
            ids = await client.cancel_replays(subscription, dry_run=dry_run)
            return {"number": len(ids), "command_ids": ids}
        ids = await client.replay(
            subscription, begin, end, side_effects=side_effects, partition=partition, reason=reason, dry_run=dry_run
        )
        if not dry_run:
            return {"number": len(ids), "command_ids": ids}
        # What would be done: by so many partitions, from here to there, and never beyond what was handled.
        found = await client.partitions(subscription)
        reached = max(each.checkpoint for each in found if partition in (None, each.partition))
        after = await client.number_at(subscription, begin)
        until = reached if end is None else min(reached, await client.number_at(subscription, end))
        return {"number": len(ids), "from": after + isinstance(begin, datetime), "to": until}

    done = ask(database_url, schema, change)
    verb = "cancel replay" if cancel else "replay"
    show.record({"subscription": subscription, "command": verb, **done, "dry_run": dry_run}, json=json)


def replace(
    old: Annotated[str, typer.Argument(help="The version that runs.")],
    new: Annotated[str, typer.Argument(help="The version that is to take over.")],
    handler: Annotated[
        str | None,
        typer.Option(help="Register the new one with this handler."),
    ] = None,
    import_here: Annotated[
        bool,
        typer.Option("--import/--no-import", help="Import the handler here first; not when only the nodes have it."),
    ] = True,
    side_effects: SideEffects = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Let the old one go on.")] = False,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Let a new version catch up beside an old one. It takes over at an exact position, once it runs."""
    if handler is not None and import_here and not cancel:
        find_users_code()
        resolve(handler)

    async def change(client: Client) -> None:
        if not cancel:
            await client.replace(old, new, handler=handler, side_effects=side_effects, dry_run=dry_run)
        elif not dry_run:
            await client.cancel_replace(new)
        elif not any(row.new == new and row.phase in OPEN for row in await client.replacements()):
            raise InvalidArgument("new", f"{new!r} is not about to replace anything")

    ask(database_url, schema, change)
    verb = "cancel replace" if cancel else "replace"
    show.record({"command": verb, "old": old, "new": new, "dry_run": dry_run}, json=json)


def replacements(database_url: DatabaseUrl = None, schema: Schema = None, json: Json = False) -> None:
    """List new versions and the old ones that they replace. With progress and time to go."""
    rows = ask(database_url, schema, lambda client: client.replacements())
    show.rows(rows, json=json, empty="Nothing is or was replaced.", leave_out=("issued_at",))


def replays(
    subscription: Annotated[str | None, typer.Argument(help="Only those of this one.")] = None,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
) -> None:
    """List replays of ranges. How far they came, what failed, how long they will take."""
    rows = ask(database_url, schema, lambda client: client.replays(subscription))
    show.rows(rows, json=json, empty="Nothing is or was replayed.", leave_out=DETAILS)
