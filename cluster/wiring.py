"""The one chooser of adapters: puts hosts, supervisors and consumers together on Postgres and Redis.

Decides nothing else and keeps nothing.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from headwater.cluster.crew import StartableConsumer
from headwater.cluster.directory import HostDirectory, SupervisorDirectory
from headwater.cluster.host import Host
from headwater.cluster.options import ClusterOptions
from headwater.cluster.replaying import HostReplay
from headwater.cluster.replays import OneReplay
from headwater.cluster.slot import Assigned
from headwater.cluster.supervisor import Nodes, Supervisor
from headwater.storage.leases import Grant
from headwater.storage.opening import hints_of
from headwater.storage.pages import OpeningReader, StoredReader
from headwater.storage.payloads import Payloads
from headwater.storage.postgres.checkpoints import PostgresCheckpoints
from headwater.storage.postgres.commands import Commands
from headwater.storage.postgres.keys import remote_payloads
from headwater.storage.postgres.leases import LeaseSession, Presence
from headwater.storage.postgres.placement import PostgresPlacement
from headwater.storage.postgres.pools import handlers_pool
from headwater.storage.postgres.repartition import Repartition
from headwater.storage.postgres.replacing import Replacements
from headwater.storage.postgres.replaying import ReplayCheckpoints, ReplayRange, Replays
from headwater.storage.postgres.store import PostgresEventStore
from headwater.storage.postgres.transactions import PostgresTransactions
from headwater.subscriptions.consumers import LocalConsumer
from headwater.subscriptions.fanout import SharedReader
from headwater.subscriptions.handler import Handler
from headwater.subscriptions.heads import Heads
from headwater.subscriptions.imports import resolve
from headwater.subscriptions.observer import load_observer
from headwater.subscriptions.options import SubscriptionOptions
from headwater.subscriptions.ports import Consumer, EventReader, Opener
from headwater.subscriptions.runner import SubscriptionRunner

log = logging.getLogger(__name__)

MakeConsumer = Callable[[str, SubscriptionOptions, int], StartableConsumer]
"""Makes one of several consumers of a handler, given its import path and the consumer's number."""


def remote_consumer(
    handler: str, subscription: SubscriptionOptions, index: int, opener: Opener | None = None
) -> LocalConsumer:
    """Make one of several consumers: it has no part in the owner's transactions."""
    return LocalConsumer(Handler.load(handler, subscription), None, index, opener=opener)


def remote_opener(options: ClusterOptions) -> Opener | None:
    """Return what opens events in a process of its own, which has no store. Raises ConfigurationError."""
    return _unless_plain(remote_payloads(options.store))


def _unless_plain(payloads: Payloads) -> Payloads | None:
    return None if payloads.plain else payloads


@dataclass(frozen=True, slots=True)
class Reading:
    """How one process reads for all of its subscriptions."""

    heads: Heads
    reader: EventReader
    opener: Opener | None
    """What opens events for the user's code; None where they are as they are stored."""


@asynccontextmanager
async def open_reading(store: PostgresEventStore, options: ClusterOptions) -> AsyncIterator[Reading]:
    """Listen for hints, and share each read of new events, for the length of the block."""
    async with AsyncExitStack() as stack:
        hints = hints_of(options.store)
        if hints is not None:
            await stack.enter_async_context(hints)
        heads = Heads(store, hints, poll_interval=options.poll_interval.total_seconds())
        opener = _unless_plain(store.payloads)
        # What is kept for all is kept as it is stored, and opened for each.
        shared = SharedReader(store if opener is None else StoredReader(store), heads)
        if hints is not None:
            hints.on_gate(lambda head, gate: shared.look_ahead(head, gate.session, partial(store.page_behind, gate)))
        stack.push_async_callback(shared.close)
        yield Reading(heads, shared if opener is None else OpeningReader(shared, opener), opener)


@asynccontextmanager
async def open_host(
    options: ClusterOptions,
    node: str,
    resources: Mapping[str, float],
    make_consumer: MakeConsumer | None = None,
    labels: Mapping[str, str] = MappingProxyType({}),
    loaded: Callable[[], None] = lambda: None,
) -> AsyncIterator[Host]:
    """Open everything that a host needs, for the length of the block; ``run`` it within.

    ``loaded`` is called, in any thread, whenever a handler has been loaded.
    Raises ConfigurationError, SchemaMissing, PoolerRefused, StoreUnavailable.
    """
    name = f"{node}-{secrets.token_hex(3)}"
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(await PostgresEventStore.open(options=options.host_store))
        leases = LeaseSession(
            options.store,
            host=name,
            presence=Presence(node=node, facts={"resources": dict(resources), "labels": dict(labels)}),
            lease=options.lease,
            stall=max(options.stall, options.lease),
        )
        await leases.open()
        stack.push_async_callback(leases.close)
        reading = await stack.enter_async_context(open_reading(store, options))
        checkpoints = PostgresCheckpoints(store.pool, store.sql, lease=options.lease)
        pool = await stack.enter_async_context(handlers_pool(options.handlers_store))
        transactions = stack.enter_context(
            closing(PostgresTransactions(pool, store.sql, checkpoints, options.handlers_store))
        )
        make_one = make_consumer or partial(remote_consumer, opener=reading.opener)
        observer = load_observer(options.observer)
        commands = Commands(store.pool, store.sql)

        said_without_ray: dict[str, object] = {}

        def make_consumers(handler: str, subscription: SubscriptionOptions) -> Sequence[StartableConsumer]:
            consumers: Sequence[StartableConsumer]
            if subscription.most_consumers:
                mine = object()  # several threads may be here: one of them says it
                if make_consumer is None and said_without_ray.setdefault(handler, mine) is mine:
                    log.warning(
                        "%s asks for %d handler actors: without Ray they are tasks of this process, and a handler that "
                        "ends its process ends it; run with --nodes or --address",
                        handler,
                        subscription.most_consumers,
                    )
                resolve(handler)  # what cannot be imported is known before any process is started for it
                consumers = [make_one(handler, subscription, index) for index in range(subscription.most_consumers)]
            else:
                consumers = [LocalConsumer(Handler.load(handler, subscription), transactions, opener=reading.opener)]
            loaded()
            return consumers

        def make_runner(
            subscription: SubscriptionOptions, grant: Grant, consumers: Sequence[Consumer]
        ) -> SubscriptionRunner:
            return SubscriptionRunner(
                subscription,
                grant,
                reader=reading.reader,
                leases=leases,
                checkpoints=checkpoints,
                consumers=consumers,
                present=range(max(1, subscription.least_consumers)),
                heads=reading.heads,
                observer=observer,
                parking=commands,
                boundaries=checkpoints,
            )

        def make_replay(assigned: Assigned, grant: Grant, command_id: int, found: ReplayRange) -> OneReplay:
            return HostReplay(
                assigned=assigned,
                grant=replace(grant, progress=found.progress),
                found=found,
                reader=reading.reader,
                leases=leases,
                checkpoints=ReplayCheckpoints(store.pool, store.sql, command_id),
                make_consumers=make_consumers,
            )

        host = Host(
            name,
            options,
            leases=leases,
            directory=HostDirectory(
                PostgresPlacement(store.pool, store.sql), commands, Replays(store.pool, store.sql), make_replay
            ),
            checkpoints=checkpoints,
            heads=reading.heads,
            make_consumers=make_consumers,
            make_runner=make_runner,
        )
        leases.on_news(host.tell)
        yield host


@asynccontextmanager
async def open_supervisor(options: ClusterOptions, nodes: Nodes) -> AsyncIterator[Supervisor]:
    """Open everything that a supervisor needs, for the length of the block; ``run`` it within."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(await PostgresEventStore.open(options=options.supervisor_store))
        leases = LeaseSession(options.store, host=f"supervisor-{secrets.token_hex(3)}", lease=options.lease)
        await leases.open()
        stack.push_async_callback(leases.close)
        directory = SupervisorDirectory(
            PostgresPlacement(store.pool, store.sql),
            Repartition(store.pool, store.sql),
            leases,
            Replacements(store.pool, store.sql),
        )
        supervisor = Supervisor(options, nodes, directory)
        leases.on_news(supervisor.tell)
        yield supervisor
