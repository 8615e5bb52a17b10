"""The operators' interface: what runs, where, how far behind and why; and asking for something else.

Works with the database alone, from any machine that reaches it, also when Ray is down. Whatever is asked for is a row,
and is done by whoever owns the partition.
"""

from __future__ import annotations

import asyncio
import getpass
import socket
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Self

from headwater.cluster.options import ClusterOptions
from headwater.storage.errors import InvalidArgument, SubscriptionNotFound
from headwater.storage.postgres.commands import Commands
from headwater.storage.postgres.placement import PostgresPlacement
from headwater.storage.postgres.registry import Registry
from headwater.storage.postgres.repartition import Repartition
from headwater.storage.postgres.store import PostgresEventStore
from headwater.storage.registry import CommandRecord, ParkedRecord, PartitionState
from headwater.subscriptions.app import App
from headwater.subscriptions.encoding import decode, encode
from headwater.subscriptions.options import Start

WANTED: Final[Mapping[str, str]] = {"pause": "paused", "resume": "running", "stop": "stopped"}
DRAIN_CHECK: Final = 0.1
"""How often it is looked whether drained hosts have ended, in seconds."""
VERBS: Final = (*WANTED, "rewind", "move", "retry", "discard")


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """One partition of a subscription, as operators see it."""

    subscription: str
    partition: int
    phase: str
    """``running``, ``paused``, ``stuck``, ...; ``unowned`` when nobody holds the lease, ``repartitioning`` when nobody
    should because the number of partitions is being changed."""
    reason: str | None
    since: datetime
    node: str | None
    """The node that owns it; None when nobody does."""
    standby: str | None
    """The node that is ready to take over."""
    lag: int
    """Events between the checkpoint and the head."""
    lag_seconds: float
    """The age of the first event behind the checkpoint."""
    checkpoint: int
    delivered: int
    redelivered: int
    parked: int
    epoch: int
    consumers: int | None
    """How many handler actors work for it; None when the handler runs in the owner's process."""


@dataclass(frozen=True, slots=True)
class HostStatus:
    """A process that runs partitions, and is alive."""

    host: str
    node: str
    owns: int
    stands_by: int
    draining: bool
    started_at: datetime


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """The whole deployment in a few figures."""

    head: int
    hosts: int
    subscriptions: int
    partitions: int
    unowned: int
    """Partitions that should run and have no owner."""
    without_standby: int
    lag: int
    """The lag of the slowest."""
    lag_seconds: float
    parked: int
    phases: dict[str, int]


class Client:
    """Looks after one deployment. Use it as an async context manager, or close it."""

    def __init__(self, stack: AsyncExitStack, store: PostgresEventStore) -> None:
        self._stack = stack
        self._store = store
        self._registry = Registry(store.pool, store.sql, store)
        self._commands = Commands(store.pool, store.sql)
        self._placement = PostgresPlacement(store.pool, store.sql)
        self._repartition = Repartition(store.pool, store.sql)
        self._operator = f"{_user()}@{socket.gethostname()}"

    @classmethod
    async def open(cls, options: ClusterOptions) -> Self:
        """Connect. Raises ConfigurationError, SchemaMissing, SchemaOutdated, StoreUnavailable."""
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(await PostgresEventStore.open(options=options.client_store))
            return cls(stack.pop_all(), store)

    async def close(self) -> None:
        """Disconnect; safe to repeat."""
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def register(self, app: App) -> None:
        """Register an app's subscriptions, or bring those that are there up to date. Safe to repeat.

        Another number of partitions is brought about while the subscription goes on. Raises SubscriptionConflict for
        one whose source has changed.
        """
        for each in app.registrations:
            options = each.options
            await self._registry.register(
                each.name,
                each.handler,
                encode(options),
                source=options.source,
                partitions=options.partitions,
                start=options.start.value if isinstance(options.start, Start) else options.start,
            )

    async def status(self) -> DeploymentStatus:
        """Return the whole deployment in a few figures."""
        partitions = await self.partitions()
        return DeploymentStatus(
            head=await self._store.head(),
            hosts=len(await self._placement.hosts()),
            subscriptions=len({p.subscription for p in partitions}),
            partitions=len(partitions),
            unowned=sum(p.phase == "unowned" for p in partitions),
            without_standby=sum(p.standby is None and p.phase != "stopped" for p in partitions),
            lag=max((p.lag for p in partitions), default=0),
            lag_seconds=max((p.lag_seconds for p in partitions), default=0.0),
            parked=sum(p.parked for p in partitions),
            phases=dict(Counter(p.phase for p in partitions)),
        )

    async def partitions(self, subscription: str | None = None) -> list[PartitionStatus]:
        """Return how the partitions of one subscription, or of all, stand.

        An owner or a standby counts only while it is alive.
        """
        nodes = {host.host: host.node for host in await self._placement.hosts()}
        found = []
        for state in await self._registry.states(subscription):
            node = nodes.get(state.owner or "")
            phase, reason = _unowned(state) if node is None else (state.phase, state.reason)
            if state.repartition_to is not None:
                reason = f"becomes one of {state.repartition_to} partitions" + (
                    f": {reason}" if node and reason else ""
                )
            found.append(
                PartitionStatus(
                    subscription=state.key.subscription,
                    partition=state.key.partition,
                    phase=phase,
                    reason=reason,
                    since=state.since,
                    node=node,
                    standby=nodes.get(state.standby or "") if state.standby != state.owner else None,
                    lag=state.lag,
                    lag_seconds=state.lag_seconds,
                    checkpoint=state.checkpoint,
                    delivered=state.delivered,
                    redelivered=state.redelivered,
                    parked=state.parked,
                    epoch=state.epoch,
                    consumers=state.consumers if node else None,
                )
            )
        return found

    async def hosts(self) -> list[HostStatus]:
        """Return the hosts that are alive, and how much each owns and stands by for."""
        states = await self._registry.states()
        owned = Counter(state.owner for state in states)
        standing = Counter(state.standby for state in states if state.standby != state.owner)
        return [
            HostStatus(row.host, row.node, owned[row.host], standing[row.host], row.draining, row.started_at)
            for row in await self._placement.hosts()
        ]

    async def position_at(self, when: datetime) -> int:
        """Return the position before the first event created at or after a time."""
        return await self._store.position_at(when)

    async def pause(self, subscription: str) -> None:
        """Deliver nothing more until resumed."""
        await self.command(subscription, "pause")

    async def resume(self, subscription: str) -> None:
        """Go on, whatever the reason was not to."""
        await self.command(subscription, "resume")

    async def rewind(self, subscription: str, to: int, *, partition: int | None = None) -> None:
        """Begin again after a number, also to skip forward."""
        await self.command(subscription, "rewind", {"to": to}, partition=partition)

    async def move(self, subscription: str, node: str, *, partition: int | None = None) -> None:
        """Hand over to another node, without a gap."""
        await self.command(subscription, "move", {"node": node}, partition=partition)

    async def repartition(self, subscription: str, to: int, *, wait: float = 0, dry_run: bool = False) -> int:
        """Give a subscription another number of partitions while it runs; returns how many it has now.

        No event is lost, and none that was settled comes again; the owners let go, then the new ones go on. Waits up to
        so many seconds for that. Whoever registers the app again says how many there should be: change it there, too.
        Safe to repeat. Raises SubscriptionNotFound, InvalidArgument.
        """
        found = await self._registry.find(subscription)
        if found is None:
            raise SubscriptionNotFound(subscription)
        options = replace(decode(found.options), partitions=to)
        if dry_run:
            return found.partitions
        await self._registry.register(subscription, found.handler, encode(options), source=found.source, partitions=to)
        await self._repartition.ask(subscription, to, issued_by=self._operator)
        deadline = time.monotonic() + wait
        while (found := await self._registry.find(subscription)) is not None:
            if found.repartition_to is None or time.monotonic() >= deadline:
                return found.partitions
            await asyncio.sleep(DRAIN_CHECK)
        raise SubscriptionNotFound(subscription)

    async def drain(self, name: str, *, wait: float = 0) -> bool:
        """Let the hosts of a node, or one host, hand over everything and end.

        Waits up to so many seconds for that; returns whether they have ended.
        """
        leaving = set(await self._placement.drain(name))
        deadline = time.monotonic() + wait
        while leaving & {host.host for host in await self._placement.hosts()}:
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(DRAIN_CHECK)
        return True

    async def parked(self, subscription: str) -> list[ParkedRecord]:
        """Return what is set aside."""
        await self._check(subscription, None)
        return await self._commands.parked(subscription)

    async def audit(self, subscription: str | None = None) -> list[CommandRecord]:
        """Return what operators have asked for, newest first."""
        return await self._commands.audit(subscription)

    async def command(
        self,
        subscription: str,
        verb: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        partition: int | None = None,
        dry_run: bool = False,
    ) -> int:
        """Ask for one of VERBS; returns how many partitions or parked events it is for.

        ``dry_run`` checks and asks for nothing. Raises SubscriptionNotFound, InvalidArgument.
        """
        if verb not in VERBS:
            raise InvalidArgument("verb", f"{verb!r} is none of {', '.join(VERBS)}")
        concerned = await self._check(subscription, partition)
        given = dict(arguments or {})
        if verb in ("retry", "discard"):
            positions = None if given.get("position") is None else [given["position"]]
            if dry_run:
                records = await self._commands.parked(subscription, limit=2**31)
                return sum(positions is None or record.position in positions for record in records)
            change = self._commands.retry_parked if verb == "retry" else self._commands.discard_parked
            return len(await change(subscription, issued_by=self._operator, positions=positions))
        if dry_run:
            return concerned
        if verb in WANTED:
            await self._registry.set_wanted(subscription, WANTED[verb], issued_by=self._operator)  # type: ignore[arg-type]
        if verb not in ("pause", "stop"):
            await self._commands.issue(subscription, verb, given, issued_by=self._operator, partition=partition)
        return concerned

    async def _check(self, subscription: str, partition: int | None) -> int:
        states = await self._registry.states(subscription)
        concerned = sum(partition in (None, state.key.partition) for state in states)
        if not concerned:
            raise SubscriptionNotFound(subscription if partition is None else f"{subscription}/{partition}")
        return concerned


def _unowned(state: PartitionState) -> tuple[str, str | None]:
    if state.repartition_to is not None:
        return "repartitioning", None
    if state.wanted == "stopped":
        return "stopped", "stopped by an operator"
    return "unowned", "no host holds its lease"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
