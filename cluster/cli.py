"""The command line: run an app, look after a deployment, make and migrate a store.

Says things only; what it does is done by the same interfaces that programs use. Bad input is answered in one line on
standard error and exit status 2.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from datetime import datetime
from typing import Annotated, Any, TypeVar

import typer

from headwater.cluster import running, show
from headwater.cluster.client import Client
from headwater.cluster.options import ClusterOptions, import_folders
from headwater.storage.errors import HeadwaterError, InvalidArgument, StoreUnavailable
from headwater.storage.options import StoreOptions
from headwater.storage.postgres import schema as schemas
from headwater.subscriptions.app import App
from headwater.subscriptions.imports import resolve

T = TypeVar("T")

DETAILS = ("since", "checkpoint", "delivered", "redelivered", "epoch")
"""What a person sees of a partition only by ``--json``."""

cli = typer.Typer(
    help="Headwater: an event store on Postgres, and subscriptions that run on a cluster.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

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


def main() -> None:
    """Run the command line, and end the process with its status."""
    try:
        sys.exit(cli(standalone_mode=False) or 0)
    except typer.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)
    except HeadwaterError as error:
        _complain(str(error))
    except Exception as error:
        describe = getattr(error, "format_message", None)  # what typer raises for a wrong option or argument
        if describe is None:
            raise
        _complain(describe())


def _complain(problem: str) -> None:
    print(f"headwater: {' '.join(problem.split())}", file=sys.stderr)
    sys.exit(2)


# Running


@cli.command()
def run(
    app: Annotated[
        str | None, typer.Argument(help="Import path of an app, 'module:name'; without: what is registered.")
    ] = None,
    nodes: Annotated[
        int,
        typer.Option(
            envvar="HEADWATER_NODES", min=0, help="So many Ray nodes on this machine; 0: in this process, without Ray."
        ),
    ] = 0,
    address: Annotated[
        str | None, typer.Option(envvar="HEADWATER_ADDRESS", help="Join the Ray cluster at this address instead.")
    ] = None,
    node: Annotated[
        str | None, typer.Option(envvar="HEADWATER_NODE", help="What this machine is called, without Ray.")
    ] = None,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    redis_url: RedisUrl = None,
) -> None:
    """Run an app's subscriptions until interrupted; on SIGTERM or Ctrl-C hand them over first."""
    if nodes and address:
        raise InvalidArgument("nodes", "give a number of local nodes or an address, not both")
    sys.path[:0] = [folder for folder in import_folders() if folder not in sys.path]
    found = None if app is None else _app(app)
    store = _store(database_url, schema, redis_url) if found is None or database_url else found.store_options
    options = ClusterOptions.read(store)
    if address is not None:
        asyncio.run(running.on_ray(found, options, address))
    elif nodes:
        asyncio.run(running.on_local_ray(found, options, nodes))
    else:
        asyncio.run(running.in_process(found, options, node))


def _app(path: str) -> App:
    found = resolve(path)
    if not isinstance(found, App):
        raise InvalidArgument("app", f"{path!r} is not an App but {type(found).__name__}")
    for registration in found.registrations:
        resolve(registration.handler)
    return found


@cli.command()
def dev(
    folder: Annotated[str, typer.Option(envvar="HEADWATER_DEV_FOLDER", help="Where the data is kept.")] = ".headwater",
    postgres_port: Annotated[int, typer.Option(envvar="HEADWATER_DEV_POSTGRES_PORT")] = 55432,
    redis_port: Annotated[int, typer.Option(envvar="HEADWATER_DEV_REDIS_PORT")] = 56379,
) -> None:
    """Run a Postgres and a Valkey for development, with their data in a folder, until interrupted."""
    from headwater.storage.embedded.development import serve

    serve(folder, postgres_port, redis_port)


# The store


@cli.command()
def create(database_url: DatabaseUrl = None, schema: Schema = None, json: Json = False) -> None:
    """Make the database, the schema and the tables, as far as they are missing."""
    applied = asyncio.run(schemas.init(_store(database_url, schema)))
    show.rows(applied, json=json, empty="Everything is there.")


@cli.command()
def migrate(
    database_url: DatabaseUrl = None, schema: Schema = None, json: Json = False, dry_run: DryRun = False
) -> None:
    """Bring the store's tables up to this version; safe to run from several places at once."""
    options = _store(database_url, schema)
    if dry_run:
        pending = [m for m in asyncio.run(schemas.status(options)) if m.applied_at is None]
        show.rows(pending, json=json, empty="Nothing is pending.")
    else:
        applied = asyncio.run(schemas.migrate(options))
        show.rows(applied or [], json=json, empty="Nothing was pending.")


@cli.command()
def migrations(database_url: DatabaseUrl = None, schema: Schema = None, json: Json = False) -> None:
    """List the migrations and when each was applied; the exit status is 1 while one is pending."""
    known = asyncio.run(schemas.status(_store(database_url, schema)))
    show.rows(known, json=json, empty="There are none.")
    if any(migration.applied_at is None for migration in known):
        raise typer.Exit(1)


@cli.command()
def drop(
    yes: Annotated[bool, typer.Option("--yes", envvar="HEADWATER_YES", help="Really.")] = False,
    database: Annotated[bool, typer.Option(envvar="HEADWATER_DROP_DATABASE", help="The whole database.")] = False,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
) -> None:
    """Remove the store with every event in it."""
    options = _store(database_url, schema)
    if not yes:
        raise InvalidArgument("yes", f"this removes every event in {options!r}: say --yes")
    show.record({"removed": asyncio.run(schemas.drop(options, database=database))}, json=json)


# Looking


@cli.command()
def status(database_url: DatabaseUrl = None, schema: Schema = None, json: Json = False) -> None:
    """Say in one record how the deployment is: head, hosts, subscriptions, lag, trouble."""
    show.record(asdict(_ask(database_url, schema, lambda client: client.status())), json=json)


@cli.command()
def subscriptions(database_url: DatabaseUrl = None, schema: Schema = None, json: Json = False) -> None:
    """List the partitions of all subscriptions: what each does, where, how far behind, and why."""
    rows = _ask(database_url, schema, lambda client: client.partitions())
    show.rows(rows, json=json, empty="No subscription is registered.", leave_out=DETAILS)


@cli.command()
def nodes(database_url: DatabaseUrl = None, schema: Schema = None, json: Json = False) -> None:
    """List the hosts that are alive, their nodes, and how much each owns and stands by for."""
    show.rows(_ask(database_url, schema, lambda client: client.hosts()), json=json, empty="No host is alive.")


@cli.command()
def parked(
    subscription: Subscription,
    retry: Annotated[bool, typer.Option("--retry", envvar="HEADWATER_RETRY", help="Deliver them again.")] = False,
    discard: Annotated[bool, typer.Option("--discard", envvar="HEADWATER_DISCARD", help="Give them up.")] = False,
    position: Annotated[int | None, typer.Option(envvar="HEADWATER_POSITION", help="Only this event.")] = None,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """List what a subscription has set aside; or deliver it again, or give it up."""
    if retry and discard:
        raise InvalidArgument("parked", "--retry or --discard, not both")
    if retry or discard:
        verb = "retry" if retry else "discard"
        _command(database_url, schema, subscription, verb, {"position": position}, None, json=json, dry_run=dry_run)
    else:
        rows = _ask(database_url, schema, lambda client: client.parked(subscription))
        show.rows(rows, json=json, empty="Nothing is parked.")


# Asking for something


@cli.command()
def pause(
    subscription: Subscription,
    reason: Reason = "",
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Stop delivering until resumed; what is in flight is finished."""
    _command(database_url, schema, subscription, "pause", {"reason": reason}, None, json=json, dry_run=dry_run)


@cli.command()
def resume(
    subscription: Subscription,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Go on after a pause, or after the failure policy has stopped the subscription."""
    _command(database_url, schema, subscription, "resume", {}, None, json=json, dry_run=dry_run)


@cli.command()
def rewind(
    subscription: Subscription,
    to: Annotated[str, typer.Option(envvar="HEADWATER_TO", help="Begin after this number, or at this time.")] = "0",
    partition: Partition = None,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Deliver again from a number or a time on; or skip forward to it."""
    target = _number_or_time(to)
    if isinstance(target, datetime):
        number = _ask(database_url, schema, functools.partial(Client.position_at, when=target))
    else:
        number = target
    _command(database_url, schema, subscription, "rewind", {"to": number}, partition, json=json, dry_run=dry_run)


@cli.command()
def move(
    subscription: Subscription,
    to: Annotated[str, typer.Option(envvar="HEADWATER_TO", help="The node that should own it.")],
    partition: Partition = None,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Hand a subscription over to another node, without a gap."""
    known = {host.node for host in _ask(database_url, schema, lambda client: client.hosts())}
    if to not in known:
        raise InvalidArgument(
            "to", f"no host is alive on a node {to!r}; there are {', '.join(sorted(known)) or 'none'}"
        )
    _command(database_url, schema, subscription, "move", {"node": to}, partition, json=json, dry_run=dry_run)


@cli.command()
def repartition(
    subscription: Subscription,
    to: Annotated[int, typer.Argument(min=1, help="How many partitions it should have.")],
    wait: Annotated[float, typer.Option(envvar="HEADWATER_WAIT", min=0, help="Seconds to wait until it has them.")] = 0,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Give a subscription another number of partitions while it runs; say so in the app, too."""

    async def ask(client: Client) -> int:
        return await client.repartition(subscription, to, wait=wait, dry_run=dry_run)

    partitions = _ask(database_url, schema, ask)
    if wait and not dry_run and partitions != to:
        raise StoreUnavailable(f"{subscription} still has {partitions} partitions after {wait:g} s; the change goes on")
    show.record({"subscription": subscription, "partitions": partitions, "to": to, "dry_run": dry_run}, json=json)


@cli.command()
def drain(
    node: Annotated[str, typer.Argument(help="The node, or one host on it.")],
    wait: Annotated[
        float, typer.Option(envvar="HEADWATER_WAIT", min=0, help="Seconds to wait until its hosts have ended.")
    ] = 0,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Let the hosts of a node hand over all that they own, and end."""
    hosts = _ask(database_url, schema, lambda client: client.hosts())
    leaving = [host for host in hosts if node in (host.node, host.host)]
    if not leaving:
        raise InvalidArgument("node", f"no host is alive on {node!r}")
    if not dry_run:
        ended = _ask(database_url, schema, functools.partial(Client.drain, name=node, wait=wait))
        if wait and not ended:
            raise StoreUnavailable(f"the hosts of {node!r} have not ended after {wait:g} s; they go on draining")
    show.rows([replace(host, draining=True) for host in leaving], json=json)


def _command(
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

    async def ask(client: Client) -> Any:
        return await client.command(subscription, verb, arguments, partition=partition, dry_run=dry_run)

    number = _ask(database_url, schema, ask)
    answer = {"subscription": subscription, "command": verb, "arguments": arguments, "partition": partition}
    show.record({**answer, "number": number, "dry_run": dry_run}, json=json)


def _ask(database_url: str | None, schema: str | None, question: Callable[[Client], Awaitable[T]]) -> T:
    async def ask() -> T:
        client = await Client.open(ClusterOptions(store=_store(database_url, schema)))
        try:
            return await question(client)
        finally:
            await client.close()

    return asyncio.run(ask())


def _store(database_url: str | None, schema: str | None, redis_url: str | None = None) -> StoreOptions:
    if not database_url:
        raise InvalidArgument("database-url", "say where the database is, or set HEADWATER_DATABASE_URL")
    return StoreOptions.read(database_url, schema=schema, redis_url=redis_url)


def _number_or_time(text: str) -> int | datetime:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise InvalidArgument("to", f"{text!r} is neither a number nor a time like 2026-01-31T12:00") from None


if __name__ == "__main__":
    main()
