"""Pull mode on Postgres: a program of the user's takes events and acknowledges them, wherever it runs.

Needs no Ray and no host: whoever pulls has the lease, and looks itself at what operators ask for.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from headwater.cluster.directory import apply_command
from headwater.cluster.options import ClusterOptions
from headwater.cluster.wiring import open_reading
from headwater.storage.checks import check_name
from headwater.storage.errors import (
    InvalidArgument,
    StoreUnavailable,
    StreamDeleted,
    StreamNotFound,
    SubscriptionConflict,
    SubscriptionNotFound,
)
from headwater.storage.leases import PartitionKey
from headwater.storage.model import ALL
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.checkpoints import PostgresCheckpoints
from headwater.storage.postgres.commands import Commands
from headwater.storage.postgres.leases import LeaseSession
from headwater.storage.postgres.registry import Registry
from headwater.storage.postgres.store import PostgresEventStore
from headwater.storage.registry import PULLED
from headwater.subscriptions.checks import check_kind
from headwater.subscriptions.encoding import encode
from headwater.subscriptions.observer import Observer, guarded, load_observer
from headwater.subscriptions.options import SubscriptionOptions
from headwater.subscriptions.pull import PullSubscription
from headwater.subscriptions.runner import SubscriptionRunner
from headwater.subscriptions.transient import transient as make_transient

log = logging.getLogger(__name__)


@asynccontextmanager
async def pull(
    name: str,
    options: SubscriptionOptions | None = None,
    *,
    cluster: ClusterOptions | None = None,
    observer: Observer | None = None,
) -> AsyncIterator[PullSubscription]:
    """Consume a named subscription in this program, for the length of the block::

        async with pull("invoices", SubscriptionOptions(batch_size=100)) as subscription:
            async for batch in subscription:
                ...
                await batch.ack()

    It is registered at the first time, and goes on from its checkpoint each later time. Of several programs with the
    same name one has the lease, and the others stand by. ``cluster`` says where the store is and how long the lease is;
    without it the environment does. ``observer`` watches what happens, among it each change of the phase with its
    reason, in place of the one that writes to the log. Operators pause, resume and rewind it, and try its parked events
    again, as any other.

    Raises SubscriptionConflict when a handler consumes the name, or it reads another source; InvalidArgument for
    options that pull mode has no use for; ConfigurationError, SchemaMissing, SchemaOutdated, PoolerRefused,
    StoreUnavailable. Its loops raise SubscriptionNotFound, also later ones, once the subscription is deleted;
    StreamDeleted, or StreamNotFound, when the stream that it reads is deleted, for now or for good.
    """
    check_name("subscription", name)
    options = _checked(options)
    cluster = ClusterOptions.read(StoreOptions.read()) if cluster is None else cluster
    watching = load_observer(cluster.observer) if observer is None else guarded(observer)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(await PostgresEventStore.open(options=cluster.host_store))
        registry, commands = Registry(store.pool, store.sql, store), Commands(store.pool, store.sql)
        key = await _register(registry, name, options)
        leases = LeaseSession(
            cluster.store, host=f"{socket.gethostname()}-pull-{secrets.token_hex(3)}", lease=cluster.lease
        )
        await leases.open()
        stack.push_async_callback(leases.close)
        reading = await stack.enter_async_context(open_reading(store, cluster))
        checkpoints = PostgresCheckpoints(store.pool, store.sql, lease=cluster.lease)
        subscription = PullSubscription(
            key,
            options,
            reader=reading.reader,
            leases=leases,
            checkpoints=checkpoints,
            heads=reading.heads,
            observer=watching,
            opener=reading.opener,
            parking=commands,
            boundaries=checkpoints,
        )
        await stack.enter_async_context(subscription)
        presence = _Presence(_Source(store, options.source), registry)
        await presence.look(subscription)
        obeying = asyncio.create_task(
            _Obeying(subscription, registry, commands, presence).run(cluster.assignment_interval.total_seconds())
        )
        stack.push_async_callback(_end, obeying)
        yield subscription


def _checked(options: SubscriptionOptions | None) -> SubscriptionOptions:
    options = SubscriptionOptions() if options is None else options
    check_kind("options", options, SubscriptionOptions)
    for wrong, argument in ((options.partitions != 1, "partitions"), (options.replaces is not None, "replaces")):
        if wrong:
            raise InvalidArgument(argument, "is for subscriptions with a handler: pull mode has one partition")
    return options


async def _register(registry: Registry, name: str, options: SubscriptionOptions) -> PartitionKey:
    found = await registry.find(name)
    if found is not None and found.handler != PULLED:
        raise SubscriptionConflict(name, f"the handler {found.handler!r} consumes it: choose another name")
    await registry.register(name, PULLED, encode(options), source=options.source, start=options.start_point)
    [state] = await registry.states(name)
    return state.key


@asynccontextmanager
async def transient(
    name: str, options: SubscriptionOptions | None = None, *, cluster: ClusterOptions | None = None
) -> AsyncIterator[PullSubscription]:
    """Pull from ``options.start`` on, for the length of the block, and leave nothing behind::

        async with transient("watch", SubscriptionOptions(start=Start.CURRENT)) as subscription:
            async for batch in subscription:
                ...
                await batch.ack()

    Nothing is saved, and nobody else sees it: each block begins at the start again, any number of them may run at a
    time, also of one name, and a durable subscription of that name is another one. Otherwise it is as ``pull``: order,
    subscribers, acknowledgements, retries, and no more in memory than ``max_in_flight``. What the failure policy would
    park is skipped.

    Raises what ``pull`` does, and StreamDeleted for the present end of a stream that is deleted.
    """
    check_name("subscription", name)
    options = _checked(options)
    cluster = ClusterOptions.read(StoreOptions.read()) if cluster is None else cluster
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(await PostgresEventStore.open(options=cluster.host_store))
        registry = Registry(store.pool, store.sql, store)
        after, stream_id = await registry.place_of(options.source, options.start_point)
        reading = await stack.enter_async_context(open_reading(store, cluster))
        subscription = make_transient(
            name,
            options,
            reading.reader,
            after=after,
            stream_id=stream_id,
            heads=reading.heads,
            observer=load_observer(cluster.observer),
            opener=reading.opener,
        )
        await stack.enter_async_context(subscription)
        source = _Source(store, options.source)
        await source.look(subscription)
        watching = asyncio.create_task(source.run(subscription, cluster.assignment_interval.total_seconds()))
        stack.push_async_callback(_end, watching)
        yield subscription


class _Source:
    """Whether the stream that a subscription reads is still there."""

    def __init__(self, store: PostgresEventStore, source: str) -> None:
        self._store = store
        self._source = source
        self._seen = False
        """Whether the stream was there at the last look: one that was not may be made at any time."""

    async def look(self, subscription: PullSubscription) -> None:
        """Interrupt the subscription when the stream has gone."""
        if self._source == ALL:
            return
        try:
            await self._store.stream_info(self._source)
        except (StreamDeleted, StreamNotFound) as error:
            if self._seen or isinstance(error, StreamDeleted):
                subscription.interrupt(error)
            self._seen = False
        else:
            self._seen = True

    async def run(self, subscription: PullSubscription, interval: float) -> None:
        """Look every so often, until cancelled."""
        while True:
            with suppress(StoreUnavailable):  # there is nothing to tell: it may be there
                await self.look(subscription)
            await asyncio.sleep(interval)


class _Presence:
    """Whether a pull subscription, and the stream that it reads, are still there."""

    def __init__(self, source: _Source, registry: Registry) -> None:
        self._source = source
        self._registry = registry

    async def look(self, subscription: PullSubscription) -> bool:
        """Tell the subscription what is gone; returns whether it is still there itself."""
        key = subscription.key
        if key not in [state.key for state in await self._registry.states(key.subscription)]:
            subscription.fail(SubscriptionNotFound(key.subscription))
            return False
        await self._source.look(subscription)
        return True


class _Obeying:
    """Does what operators ask of a pull subscription while this program has its lease, and sees when it is gone."""

    def __init__(
        self, subscription: PullSubscription, registry: Registry, commands: Commands, presence: _Presence
    ) -> None:
        self._presence = presence
        self._subscription = subscription
        self._registry = registry
        self._commands = commands
        self._told: tuple[SubscriptionRunner, bool] | None = None
        """Which runner was told last whether to rest."""

    async def run(self, interval: float) -> None:
        """Look every so often, until cancelled, or until the subscription is gone."""
        there = True
        while there:
            try:
                there = await self._presence.look(self._subscription)
                if there and (runner := self._subscription.runner) is not None:
                    await self._look(runner)
            except (StoreUnavailable, SubscriptionNotFound) as error:
                log.info("%s: operators are not heard now: %s", self._subscription.key.subscription, error)
            except Exception:
                log.exception("%s: a command was not obeyed", self._subscription.key.subscription)
            await asyncio.sleep(interval)

    async def _look(self, runner: SubscriptionRunner) -> None:
        key = self._subscription.key
        found = await self._registry.find(key.subscription)
        rests = found is not None and found.wanted != "running"
        if self._told != (runner, rests):
            if found is not None and rests:
                runner.pause(f"paused {found.wanted_why or 'by an operator'}")
            elif self._told is not None and self._told[0] is runner:
                runner.resume()
            self._told = runner, rests
        for command in await self._commands.open([key.lock_id]):
            if self._subscription.runner is not runner:
                return
            outcome = apply_command(runner, command, paused=rests)
            if outcome is not None:
                await self._commands.finish(runner.grant, command.command_id, outcome)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
