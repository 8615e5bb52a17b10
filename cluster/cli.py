"""The command line: run an app, look after a deployment, make and migrate a store.

Says things only; what it does is done by the same interfaces that programs use. Bad input is answered in one line on
standard error and exit status 2.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import sys
from dataclasses import asdict
from importlib import metadata
from typing import Annotated, Any

import typer

from headwater.cluster import running, show
from headwater.cluster.arguments import (
    Archive,
    DatabaseUrl,
    DryRun,
    Json,
    PartitionSize,
    RedisUrl,
    Schema,
    Yes,
    confirm,
    find_users_code,
    store_options,
)
from headwater.cluster.asking import Partition, Reason, Subscription, ask, because, command
from headwater.cluster.cli_audit import audit
from headwater.cluster.cli_keys import forget, rewrap
from headwater.cluster.cli_parked import parked
from headwater.cluster.cli_replays import replace, replacements, replay, replays, rewind
from headwater.cluster.client import Client
from headwater.cluster.keeping import keeping
from headwater.cluster.options import ClusterOptions
from headwater.cluster.status import PartitionStatus
from headwater.storage.errors import HeadwaterError, InvalidArgument, StoreUnavailable, SubscriptionNotFound
from headwater.storage.making import Making
from headwater.storage.postgres import schema as schemas
from headwater.storage.postgres.partitioning import partition
from headwater.subscriptions.app import App
from headwater.subscriptions.imports import resolve
from headwater.subscriptions.observer import load_observer
from headwater.subscriptions.shape import takes_context

cli = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line, and end the process with its status."""
    try:
        sys.exit(cli(sys.argv[1:] or ["--help"], standalone_mode=False) or 0)
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


def _say_version(asked: bool) -> None:
    if asked:
        print(f"headwater {metadata.version('headwater')}")
        raise typer.Exit


@cli.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Headwater: an event store on Postgres, and subscriptions that run on a cluster."""


# Running


@cli.command()
def run(
    app: Annotated[
        str | None, typer.Argument(help="Import path of an app, 'module:name'; without: what is registered.")
    ] = None,
    nodes: Annotated[
        int | None,
        typer.Option(
            envvar="HEADWATER_NODES", help="So many Ray nodes on this machine; without: in this process, without Ray."
        ),
    ] = None,
    address: Annotated[
        str | None, typer.Option(envvar="HEADWATER_ADDRESS", help="Join the Ray cluster at this address instead.")
    ] = None,
    node: Annotated[
        str | None,
        typer.Option(
            envvar="HEADWATER_NODE", help="What this machine is called, or with --nodes its nodes: NODE-1, NODE-2 ..."
        ),
    ] = None,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    redis_url: RedisUrl = None,
    archive: Archive = None,
) -> None:
    """Run an app's subscriptions until interrupted.

    On SIGTERM or Ctrl-C they are handed over first; with --address the hosts of that cluster go on.
    """
    if nodes is not None and nodes < 1:
        raise InvalidArgument("nodes", f"{nodes} is no number of Ray nodes: leave it out to run without Ray")
    if nodes is not None and address is not None:
        raise InvalidArgument("nodes", "give a number of local nodes or an address, not both")
    find_users_code()
    found = None if app is None else _app(app)
    if found is None or database_url:
        store = store_options(database_url, schema, redis_url, archive)
    else:
        store = found.store_options
    store = store if found is None else found.with_payloads(store)
    Making.of(store)  # what cannot be imported is known before anything is started
    options = ClusterOptions.read(store).of_app(found)
    load_observer(options.observer)
    running.mute_pool()
    if address is not None:
        running.run(running.on_ray(found, options, address))
    elif nodes is not None:
        running.run(running.on_local_ray(found, options, nodes, node or "node"))
    else:
        running.run(running.in_process(found, options, node))


def _app(path: str) -> App:
    found = resolve(path)
    if not isinstance(found, App):
        raise InvalidArgument("app", f"{path!r} is not an App but {type(found).__name__}")
    for registration in found.registrations:
        takes_context(resolve(registration.handler))
    return found


@cli.command()
def dev(
    folder: Annotated[str, typer.Option(envvar="HEADWATER_DEV_FOLDER", help="Where the data is kept.")] = ".headwater",
    postgres_port: Annotated[int, typer.Option(envvar="HEADWATER_DEV_POSTGRES_PORT")] = 55432,
    redis_port: Annotated[int, typer.Option(envvar="HEADWATER_DEV_REDIS_PORT")] = 56379,
) -> None:
    """Run a Postgres and a Valkey for development. They keep their data in a folder, and end when interrupted."""
    from headwater.storage.embedded.development import serve
    from headwater.storage.embedded.ports import PortRefused

    if not folder:
        raise InvalidArgument("folder", "must not be empty: its files would lie among those of the current folder")
    if postgres_port == redis_port != 0:
        raise InvalidArgument("redis-port", f"{redis_port} is Postgres's already: give them different ports")
    try:
        serve(folder, postgres_port, redis_port)
    except PortRefused as refused:
        option = "postgres-port" if refused.port == postgres_port else "redis-port"
        raise InvalidArgument(option, f"{refused}: headwater dev --{option} PORT") from None


# The store


@cli.command()
def create(
    partition_size: PartitionSize = None, database_url: DatabaseUrl = None, schema: Schema = None, json: Json = False
) -> None:
    """Make the database, the schema and the tables. What is there already stays as it is."""
    options = store_options(database_url, schema)
    applied = asyncio.run(schemas.init(options))
    if partition_size is not None:
        asyncio.run(partition(options, partition_size))
    show.rows(applied, json=json, empty="Everything is there.")


@cli.command()
def migrate(
    database_url: DatabaseUrl = None, schema: Schema = None, json: Json = False, dry_run: DryRun = False
) -> None:
    """Bring the store's tables up to this version. Safe to run from several places at once."""
    options = store_options(database_url, schema)
    if dry_run:
        pending = [m for m in asyncio.run(schemas.status(options)) if m.applied_at is None]
        show.rows(pending, json=json, empty="Nothing is pending.")
    else:
        applied = asyncio.run(schemas.migrate(options))
        show.rows(applied or [], json=json, empty="Nothing was pending.")


@cli.command()
def migrations(database_url: DatabaseUrl = None, schema: Schema = None, json: Json = False) -> None:
    """List the migrations and when each was applied. The exit status is 1 while one is pending."""
    known = asyncio.run(schemas.status(store_options(database_url, schema)))
    show.rows(known, json=json, empty="There are none.")
    if any(migration.applied_at is None for migration in known):
        raise typer.Exit(1)


@cli.command()
def drop(
    yes: Yes = False,
    database: Annotated[bool, typer.Option(help="The whole database.")] = False,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
) -> None:
    """Remove the store with every event in it."""
    options = store_options(database_url, schema)
    confirm(f"this removes every event in {options.place(whole_database=database)}", yes=yes)
    show.record({"removed": asyncio.run(schemas.drop(options, database=database))}, json=json)


cli.command()(forget)
cli.command()(rewrap)
cli.add_typer(keeping)


# Looking


@cli.command()
def status(database_url: DatabaseUrl = None, schema: Schema = None, json: Json = False) -> None:
    """Say how the whole deployment is. One record: head, hosts, subscriptions, lag, trouble."""
    show.record(asdict(ask(database_url, schema, lambda client: client.status())), json=json)


@cli.command()
def subscriptions(
    wide: Annotated[bool, typer.Option("--wide", help="Show all that is known, in long lines.")] = False,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
) -> None:
    """List the subscriptions and how they stand. A row for each partition: what it does, where, how late, and why."""
    rows, empty = ask(database_url, schema, lambda client: client.partitions()), "No subscription is registered."
    if json:
        show.rows(rows, json=True)
    elif wide:
        show.briefly([asdict(row) for row in rows], None, width=sys.maxsize, empty=empty)
    else:
        split = {row.subscription for row in rows if row.partition}
        show.briefly(
            [_brief(row, split=row.subscription in split) for row in rows], [row.reason for row in rows], empty=empty
        )
        if rows:
            shown = {"partition", "parked_more", *(name for name in ROW if name != "behind"), "lag_seconds", "reason"}
            left = [f.name.replace("_", " ") for f in dataclasses.fields(PartitionStatus) if f.name not in shown]
            print()
            show.sentence(f"Not shown: {', '.join(left)}. See them with --wide or --json.")


ROW = ("subscription", "phase", "node", "standby", "lag", "behind", "parked")
"""What a person sees of a partition at first, beside the reason."""


def _brief(row: PartitionStatus, *, split: bool) -> dict[str, Any]:
    name = f"{row.subscription}/{row.partition}" if split else row.subscription
    behind = show.span(row.lag_seconds) if row.lag else None
    values = (name, row.phase, row.node, row.standby, row.lag, behind, row.parked)
    return dict(zip(ROW, values, strict=True)) | {"parked_more": row.parked_more}


@cli.command()
def nodes(database_url: DatabaseUrl = None, schema: Schema = None, json: Json = False) -> None:
    """List the hosts that are alive. With their nodes, and how much each owns and stands by for."""
    show.rows(ask(database_url, schema, lambda client: client.hosts()), json=json, empty="No host is alive.")


cli.command()(audit)


@cli.command()
def wait(
    subscription: Subscription,
    position: Annotated[int | None, typer.Argument(help="The store-wide position; without: the head of now.")] = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds after which to give up, with status 2.")] = 10,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
) -> None:
    """Return once everything up to a position is settled."""
    settled = ask(database_url, schema, lambda client: client.wait_for(subscription, position, timeout=timeout))
    show.record({"subscription": subscription, "settled": settled}, json=json)


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
    """Stop delivering until resumed. What is in flight is finished."""
    command(database_url, schema, subscription, "pause", because(reason), None, json=json, dry_run=dry_run)


@cli.command()
def resume(
    subscription: Subscription,
    reason: Reason = "",
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Go on after a pause. Also after the failure policy has stopped the subscription."""
    command(database_url, schema, subscription, "resume", because(reason), None, json=json, dry_run=dry_run)


@cli.command()
def stop(
    subscription: Subscription,
    reason: Reason = "",
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Let nobody run a subscription until resumed. Also one whose handler is gone; nothing of it is deleted."""
    command(database_url, schema, subscription, "stop", because(reason), None, json=json, dry_run=dry_run)


cli.command()(parked)
cli.command()(rewind)
cli.command()(replay)
cli.command()(replays)
cli.command()(replace)
cli.command()(replacements)


@cli.command()
def move(
    subscription: Subscription,
    to: Annotated[str, typer.Option(help="The node that should own it.")],
    partition: Partition = None,
    reason: Reason = "",
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Hand a subscription over to another node. Nothing is missed, and nothing repeated."""
    asked = {"node": to} | because(reason)
    command(database_url, schema, subscription, "move", asked, partition, json=json, dry_run=dry_run)


@cli.command()
def delete(
    subscription: Subscription,
    yes: Yes = False,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Delete a subscription with all that it has. Take it out of the app first."""
    confirm(f"how far {subscription!r} came, and what is parked, goes with it", yes=yes or dry_run)

    async def remove(client: Client) -> dict[str, Any]:
        partitions = await client.partitions(subscription)
        if not await client.delete(subscription, dry_run=dry_run):
            raise SubscriptionNotFound(subscription)
        return {
            "subscription": subscription,
            "partitions": len(partitions),
            "parked": sum(each.parked for each in partitions),
            "parked_more": any(each.parked_more for each in partitions),
            "dry_run": dry_run,
        }

    show.record(ask(database_url, schema, remove), json=json)


@cli.command()
def repartition(
    subscription: Subscription,
    to: Annotated[int, typer.Argument(min=1, help="How many partitions it should have.")],
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until it has them.")] = 0,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Change how many partitions a subscription has. It goes on meanwhile; say so in the app, too."""

    async def change(client: Client) -> int:
        return await client.repartition(subscription, to, wait=wait, dry_run=dry_run)

    partitions = ask(database_url, schema, change)
    if wait and not dry_run and partitions != to:
        raise StoreUnavailable(f"{subscription} still has {partitions} partitions after {wait:g} s; the change goes on")
    show.record({"subscription": subscription, "partitions": partitions, "to": to, "dry_run": dry_run}, json=json)


@cli.command()
def drain(
    node: Annotated[str, typer.Argument(help="The node, or one host on it.")],
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until its hosts have ended.")] = 0,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Let a node hand over all that it owns. Its hosts end then."""
    hosts = ask(database_url, schema, lambda client: client.hosts())
    leaving = [host for host in hosts if node in (host.node, host.host)]
    if not leaving:
        raise InvalidArgument("node", f"no host is alive on {node!r}")
    if not dry_run:
        ended = ask(database_url, schema, functools.partial(Client.drain, name=node, wait=wait))
        if wait and not ended:
            raise StoreUnavailable(f"the hosts of {node!r} have not ended after {wait:g} s; they go on draining")
    show.rows([dataclasses.replace(host, draining=True) for host in leaving], json=json)


if __name__ == "__main__":
    main()
