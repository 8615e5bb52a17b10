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
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

import orjson

from headwater.cluster.directory import host_facts, partition_facts, placed_by
from headwater.cluster.options import ClusterOptions
from headwater.cluster.requests import (
    check_arguments,
    check_complete,
    check_parked,
    check_reason,
    check_rewind,
)
from headwater.cluster.status import ENDED, DeploymentStatus, HostStatus, PartitionStatus, ReplacementStatus
from headwater.cluster.unplaced import why_not_there
from headwater.storage.checks import check_flag, check_name, check_number, check_time
from headwater.storage.encryption.envelope import is_sealed
from headwater.storage.errors import EncodingFailed, InvalidArgument, SubscriptionConflict, SubscriptionNotFound
from headwater.storage.making import Making
from headwater.storage.model import RecordedEvent
from headwater.storage.parking import ParkedChange
from headwater.storage.payloads import Payloads
from headwater.storage.postgres.commands import Commands
from headwater.storage.postgres.keys import PostgresKeyStore
from headwater.storage.postgres.placement import PostgresPlacement
from headwater.storage.postgres.registry import Registry
from headwater.storage.postgres.repartition import Repartition
from headwater.storage.postgres.replacing import OPEN, Replacements
from headwater.storage.postgres.replaying import Replays, ReplayStatus
from headwater.storage.postgres.store import PostgresEventStore
from headwater.storage.registry import (
    ALL_PARKED,
    PULLED,
    CommandRecord,
    ParkedDetails,
    ParkedEdit,
    ParkedFilter,
    ParkedRecord,
    PartitionState,
    SubscriptionRecord,
    Wanted,
)
from headwater.subscriptions.app import App
from headwater.subscriptions.checks import check_path, check_share
from headwater.subscriptions.encoding import decode, encode
from headwater.subscriptions.options import Delivery

WANTED: Final[Mapping[str, Wanted]] = {"pause": "paused", "resume": "running", "stop": "stopped"}
DRAIN_CHECK: Final = 0.1
"""How often it is looked whether drained hosts have ended, in seconds."""
VERBS: Final = (*WANTED, "rewind", "move")


class Client:
    """Looks after one deployment. Use it as an async context manager, or close it."""

    def __init__(self, options: ClusterOptions, stack: AsyncExitStack, store: PostgresEventStore) -> None:
        self._options = options
        self._stack = stack
        self._store = store
        self._registry = Registry(store.pool, store.sql, store)
        self._commands = Commands(store.pool, store.sql)
        self._placement = PostgresPlacement(store.pool, store.sql)
        self._replays = Replays(store.pool, store.sql)
        self._replacements = Replacements(store.pool, store.sql)
        self._repartition = Repartition(store.pool, store.sql)
        self._operator = f"{_user()}@{socket.gethostname()}"

    @classmethod
    async def open(cls, options: ClusterOptions) -> Self:
        """Connect. Raises ConfigurationError, SchemaMissing, SchemaOutdated, StoreUnavailable."""
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(await PostgresEventStore.open(options=options.client_store))
            return cls(options, stack.pop_all(), store)

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

        Another number of partitions is brought about while the subscription goes on. One that ``replaces`` another
        begins to follow that. Raises SubscriptionConflict for one whose source has changed, or that cannot follow.
        """
        for each in app.registrations:
            options = each.options
            # Until it follows the old version, a new one must not run.
            old = options.replaces if options.replaces and await self._registry.find(options.replaces) else None
            await self._registry.register(
                each.name,
                each.handler,
                encode(options),
                source=options.source,
                partitions=options.partitions,
                start=options.start_point,
                wanted="running" if old is None else "stopped",
            )
            if old is not None and not await self._replaces(old, each.name):
                await self._replacements.begin(old, each.name, issued_by=self._operator)

    async def _replaces(self, old: str, new: str) -> bool:
        """Whether this replacement was begun before, whatever became of it."""
        return any((row.old, row.new) == (old, new) for row in await self._replacements.latest())

    async def replace(
        self, old: str, new: str, *, handler: str | None = None, side_effects: bool = False, dry_run: bool = False
    ) -> None:
        """Let a new version catch up beside an old one and take over at an exact position: no overlap, no gap.

        With ``handler``, its import path, the new version is registered with the old one's options. Until it takes
        over, everything is a replay for it, by default without side effects. It takes over only while its handler runs
        for every partition. ``dry_run`` checks and asks for nothing. Raises SubscriptionNotFound; SubscriptionConflict
        when the new version has gone further than the old one, reads another source, or is partitioned differently. A
        refusal changes nothing.
        """
        _with_handler(await self._record(old))
        check_name("new", new)
        check_flag("side_effects", side_effects)
        if handler is not None:
            check_path("handler", handler)
        await self._replacements.begin(
            old, new, issued_by=self._operator, side_effects=side_effects, handler=handler, dry_run=dry_run
        )

    async def cancel_replace(self, new: str) -> None:
        """Let the old version go on, and stop the new one where it is. Raises InvalidArgument when it replaces none."""
        if not await self._replacements.cancel(new, issued_by=self._operator):
            raise InvalidArgument("new", f"{new!r} is not about to replace anything")

    async def replacements(self) -> list[ReplacementStatus]:
        """Return new versions and the old ones that they replace, newest first, with progress and time to go."""
        return [ReplacementStatus.of(row) for row in await self._replacements.latest()]

    async def status(self) -> DeploymentStatus:
        """Return the whole deployment in a few figures."""
        partitions = await self.partitions()
        return DeploymentStatus(
            head=await self._store.head(),
            hosts=len(await self._placement.hosts()),
            subscriptions=len({p.subscription for p in partitions}),
            partitions=len(partitions),
            unowned=sum(p.phase == "unowned" for p in partitions),
            without_standby=sum(p.standby is None and not p.pulled and p.phase not in ENDED for p in partitions),
            lag=max((p.lag for p in partitions), default=0),
            lag_seconds=max((p.lag_seconds for p in partitions), default=0.0),
            parked=sum(p.parked for p in partitions),
            parked_more=any(p.parked_more for p in partitions),
            phases=dict(Counter(p.phase for p in partitions)),
            moving={
                f"{row.key.subscription}/{row.key.partition}": f"to {row.target} since {row.asked:.0f} s"
                for row in await self._placement.partitions()
                if row.target is not None
            },
            replacing={each.new: each.describe() for each in await self.replacements() if each.phase in OPEN},
        )

    async def partitions(self, subscription: str | None = None) -> list[PartitionStatus]:
        """Return how the partitions of one subscription, or of all, stand.

        An owner or a standby counts only while it is alive.
        """
        if subscription is not None:
            check_name("subscription", subscription)
        hosts = {row.host: host_facts(row) for row in await self._placement.hosts()}
        return [PartitionStatus.of(state, hosts) for state in await self._registry.states(subscription)]

    async def hosts(self) -> list[HostStatus]:
        """Return the hosts that are alive, and how much each owns and stands by for."""
        states = await self._registry.states()
        owned = Counter(state.owner for state in states)
        standing = Counter(state.standby for state in states if state.standby != state.owner)
        return [
            HostStatus(row.host, row.node, owned[row.host], standing[row.host], row.draining, row.started_at)
            for row in await self._placement.hosts()
        ]

    async def wait_for(self, subscription: str, position: int | None = None, *, timeout: float = 10.0) -> int:  # noqa: ASYNC109
        """Return the position once a subscription has settled everything up to it; by default up to the head of now.

        Raises what the store's ``wait_for`` does: WaitTimedOut, SubscriptionNotFound, StreamDeleted.
        """
        position = await self._store.head() if position is None else position
        await self._store.wait_for(subscription, position, timeout)
        return position

    async def pause(self, subscription: str, *, reason: str = "") -> None:
        """Deliver nothing more until resumed; the ``reason`` is shown meanwhile, with who paused it, and when."""
        await self.command(subscription, "pause", _because(reason))

    async def resume(self, subscription: str, *, reason: str = "") -> None:
        """Go on, whatever the reason was not to."""
        await self.command(subscription, "resume", _because(reason))

    async def stop(self, subscription: str, *, reason: str = "", dry_run: bool = False) -> None:
        """Let nobody run a subscription until it is resumed: owners finish what is in flight, and let the lease go.

        Nothing is deleted: the checkpoint, what is parked and the audit stay, and an app that declares it leaves it
        stopped. A program that pulls it keeps its lease and gets nothing. ``dry_run`` asks for nothing. Raises
        SubscriptionNotFound; SubscriptionConflict for one that another version has replaced.
        """
        await self.command(subscription, "stop", _because(reason), dry_run=dry_run)

    async def rewind(
        self,
        subscription: str,
        to: int | datetime,
        *,
        side_effects: bool = True,
        partition: int | None = None,
        reason: str = "",
        dry_run: bool = False,
    ) -> int:
        """Begin again after a number of the subscription's source, or at a time; also to skip forward.

        What was settled before is a replay, which handlers see; ``side_effects`` tells them whether they may have
        effects outside meanwhile. What is skipped counts as settled. Returns the number. Raises SubscriptionNotFound;
        InvalidArgument above the head of the source, where nothing is to be skipped yet; and
        SubscriptionConflict (``wait_for`` is ``repartition``) while the partitions are about to change, and below what
        earlier ones had settled until the present ones have passed that.
        """
        number = await self._number_at("to", subscription, to)
        asked: dict[str, Any] = {"to": number} if side_effects else {"to": number, "side_effects": False}
        asked |= _because(reason)
        await self.command(subscription, "rewind", asked, partition=partition, dry_run=dry_run)
        return number

    async def replay(
        self,
        subscription: str,
        first: int | datetime = 1,
        last: int | datetime | None = None,
        *,
        side_effects: bool = True,
        partition: int | None = None,
        reason: str = "",
        dry_run: bool = False,
    ) -> list[int]:
        """Let what lies from one number of the source up to another (both included) be handled once more.

        It runs beside the live delivery, by handlers of its own, and never passes the checkpoint; what fails is passed
        over and counted. Goes on with the next owner when one dies. Returns the commands' ids, one for each partition;
        ``dry_run`` checks the same and asks for nothing. Raises SubscriptionNotFound; InvalidArgument for exactly-once
        delivery, whose effects are there already, and when nothing of the range was handled yet.
        """
        await self._check(subscription, partition)
        check_flag("side_effects", side_effects)
        record = _with_handler(await self._record(subscription))
        if decode(record.options).delivery is Delivery.EXACTLY_ONCE:
            raise InvalidArgument(
                "delivery", "exactly-once effects are not made twice: rewind the subscription instead"
            )
        after = await self._number_at("first", subscription, first) - (not isinstance(first, datetime))
        until = None if last is None else await self._number_at("last", subscription, last)
        if after < 0 or (until is not None and until <= after):
            raise InvalidArgument("from", f"{after + 1} to {until} is no range: nothing lies between")
        return await self._replays.issue(
            subscription,
            after,
            until,
            side_effects=side_effects,
            issued_by=self._operator,
            partition=partition,
            because=_because(reason),
            dry_run=dry_run,
        )

    async def cancel_replays(self, subscription: str, *, dry_run: bool = False) -> list[int]:
        """Let the replays of a subscription end where they are; returns their commands' ids.

        ``dry_run`` asks for nothing.
        """
        await self._check(subscription, None)
        return await self._replays.cancel(subscription, issued_by=self._operator, dry_run=dry_run)

    async def replays(self, subscription: str | None = None) -> list[ReplayStatus]:
        """Return the latest replays, newest first, with how far they came and how long they will take."""
        if subscription is not None:
            check_name("subscription", subscription)
        return await self._replays.latest(subscription)

    async def number_at(self, subscription: str, place: int | datetime) -> int:
        """Return a number of a subscription's source: as given, or the one before the first event since a time."""
        return await self._number_at("place", subscription, place)

    async def _number_at(self, argument: str, subscription: str, place: int | datetime) -> int:
        record = await self._record(subscription)
        if not isinstance(place, datetime):
            return check_number(argument, place)
        return await self._registry.number_at(record.source, check_time(argument, place))

    async def _record(self, subscription: str) -> SubscriptionRecord:
        record = await self._registry.find(check_name("subscription", subscription))
        if record is None:
            raise SubscriptionNotFound(subscription)
        return record

    async def delete(self, subscription: str, *, dry_run: bool = False) -> bool:
        """Delete a subscription with its checkpoints, parked events and audit; returns whether it was there.

        Its owners end wherever they run, and what they had not settled is lost with it; the name is free for a new one,
        from any start. An app that still declares it registers it anew when it is run. ``dry_run`` checks the same and
        deletes nothing. Safe to repeat. Raises SubscriptionConflict while it takes part in a replacement, and while a
        new version follows it.
        """
        return await self._registry.delete(check_name("subscription", subscription), dry_run=dry_run)

    async def move(self, subscription: str, node: str, *, partition: int | None = None, reason: str = "") -> None:
        """Hand over to another node, without a gap. Raises InvalidArgument when it cannot go there.

        A node that goes away, or cannot run it after all, ends the move: its audit says why.
        """
        await self.command(subscription, "move", {"node": node} | _because(reason), partition=partition)

    async def repartition(self, subscription: str, to: int, *, wait: float = 0, dry_run: bool = False) -> int:
        """Give a subscription another number of partitions while it runs; returns how many it has now.

        No event is lost, and none that was settled comes again; the owners let go, then the new ones go on. Waits up to
        so many seconds for that. Whoever registers the app again says how many there should be: change it there, too.
        Safe to repeat. Raises SubscriptionNotFound, InvalidArgument; SubscriptionConflict, also by a dry run, while a
        replay, a rewind or a replacement needs the partitions as they are (``wait_for`` says which), and when the
        change was taken back meanwhile.
        """
        found = _with_handler(await self._record(subscription))
        options = replace(decode(found.options), partitions=to)
        if dry_run:
            if to != found.partitions:
                await self._repartition.check(subscription)
            return found.partitions
        await self._registry.register(subscription, found.handler, encode(options), source=found.source, partitions=to)
        await self._repartition.ask(subscription, to, issued_by=self._operator)
        deadline = time.monotonic() + wait
        while True:
            found = await self._record(subscription)
            if found.repartition_to is None and found.partitions != to:
                raise SubscriptionConflict(subscription, "the change was taken back: its audit says why")
            if found.repartition_to is None or time.monotonic() >= deadline:
                return found.partitions
            await asyncio.sleep(DRAIN_CHECK)

    async def drain(self, name: str, *, wait: float = 0) -> bool:
        """Let the hosts of a node, or one host, hand over everything and end.

        Waits up to so many seconds for that; returns whether they have ended.
        """
        leaving = set(await self._placement.drain(check_name("name", name)))
        deadline = time.monotonic() + wait
        while leaving & {host.host for host in await self._placement.hosts()}:
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(DRAIN_CHECK)
        return True

    async def parked(
        self, subscription: str, where: ParkedFilter = ALL_PARKED, *, after: int = 0, limit: int = 1000
    ) -> list[ParkedRecord]:
        """Return what is set aside, by position; ``after`` a position, for the next page."""
        await self._check(subscription, None)
        check_parked(where, limit)
        check_number("after", after)
        return await self._commands.parked(subscription, where=where, after=after, limit=limit)

    async def parked_event(self, subscription: str, position: int) -> ParkedDetails:
        """Return everything about one parked event.

        What is encrypted is shown as it is kept, unless the store's options name the encryption. Raises
        SubscriptionNotFound, InvalidArgument, EncryptionError.
        """
        found = await self.parked(subscription, ParkedFilter(positions=(check_number("position", position),)))
        if not found:
            raise InvalidArgument("position", f"{position} is not parked in {subscription!r}")
        stored = await self._stored(position)
        if stored is None:
            return ParkedDetails(found[0], None, None, tuple(await self._commands.parked_edits(found[0].parked_id)))
        [event] = await self._payloads(stored).open([stored])
        edits = await self._commands.parked_edits(found[0].parked_id, partial(_corrected, event))
        return ParkedDetails(found[0], _shown(event), _shown(event, "metadata"), tuple(edits))

    async def retry_parked(
        self,
        subscription: str,
        where: ParkedFilter = ALL_PARKED,
        *,
        limit: int | None = None,
        rate: float | None = None,
        reason: str = "",
        dry_run: bool = False,
    ) -> ParkedChange:
        """Let parked events be handled again, at most ``limit``, and at most ``rate`` a second; returns which.

        Earlier ones of the same keys come along, and later ones that only waited behind the chosen ones; all of them
        count. When the limit ends that, the next one of the key stays parked, and those behind it. ``dry_run`` returns
        the same and asks for nothing. Raises SubscriptionNotFound, InvalidArgument.
        """
        await self._check(subscription, None)
        check_parked(where, limit)
        check_reason(reason)
        if rate is not None:
            check_share("rate", rate, 0)
        return await self._commands.retry_parked(
            subscription,
            issued_by=self._operator,
            where=where,
            limit=limit,
            rate=rate,
            reason=reason,
            dry_run=dry_run,
        )

    async def cancel_retry(
        self, subscription: str, where: ParkedFilter = ALL_PARKED, *, reason: str = "", dry_run: bool = False
    ) -> ParkedChange:
        """Take retries back that were not begun, with those of later events of the same keys; returns which.

        Nothing more is handed out because of them: what is under way ends as it ends, and nothing follows it. Raises
        SubscriptionNotFound, InvalidArgument.
        """
        await self._check(subscription, None)
        check_parked(where)
        check_reason(reason)
        return await self._commands.cancel_retry(
            subscription, issued_by=self._operator, where=where, reason=reason, dry_run=dry_run
        )

    async def discard_parked(
        self,
        subscription: str,
        where: ParkedFilter = ALL_PARKED,
        *,
        limit: int | None = None,
        release: bool = False,
        reason: str = "",
        dry_run: bool = False,
    ) -> ParkedChange:
        """Give parked events up for good: all that are meant, or at most ``limit``; returns which.

        What only waited behind them stays parked, and is handed out with ``release``. Raises SubscriptionNotFound,
        InvalidArgument.
        """
        await self._check(subscription, None)
        check_parked(where, limit)
        check_flag("release", release)
        check_reason(reason)
        return await self._commands.discard_parked(
            subscription,
            issued_by=self._operator,
            where=where,
            limit=limit,
            release=release,
            reason=reason,
            dry_run=dry_run,
        )

    async def edit_parked(self, subscription: str, position: int, data: Any, *, reason: str = "") -> None:
        """Let the handler get this payload instead, when the parked event is handled again.

        The stored event stays as it is; who did it, when, why, and what it was and became, are kept: encrypted, if the
        event is, and then erased with it. Raises SubscriptionNotFound, InvalidArgument when the event is not parked or
        was deleted for good, EncodingFailed when JSON cannot say the payload; for an encrypted event ConfigurationError
        unless the store's options name the encryption, and KeyUnavailable when its subject was forgotten.
        """
        await self._check(subscription, None)
        check_reason(reason)
        stored = await self._stored(check_number("position", position, 1))
        if stored is None:
            raise InvalidArgument("position", f"there is no event at {position} (any more)")
        payloads = self._payloads(stored)
        [event] = await payloads.open([stored])
        await self._commands.edit_parked(
            subscription,
            position,
            await payloads.in_place_of(stored, data),
            stored=await payloads.in_place_of(stored, _shown(event)),
            edited_by=self._operator,
            reason=reason,
        )

    def _payloads(self, event: RecordedEvent) -> Payloads:
        """Return how an event's payload is looked at: JSON, in the shape that is stored, decrypted if need be.

        Only for an encrypted event the user's code is imported. Raises ImportPathError, ConfigurationError.
        """
        named = replace(self._options.store, types=None, codec=None)
        making = Making.of(named if is_sealed(event.raw_data) else named.without_payloads())
        # Not binary: what is kept in place of a payload is JSON in every store.
        return making.payloads(PostgresKeyStore(self._store.connection, self._store.sql), binary=False)

    async def _stored(self, position: int) -> RecordedEvent | None:
        found = await self._store.read_all(start=position, limit=1)
        return found[0] if found and found[0].position == position else None

    async def audit(
        self, subscription: str | None = None, *, limit: int = 100, since: datetime | None = None
    ) -> list[CommandRecord]:
        """Return what operators have asked for, the newest first: who, when, why, and what became of it.

        At most ``limit``, and none from before ``since``. A correction of a parked event has the payload before and
        after, whatever has become of the event; what is encrypted is shown as for ``parked_event``. Raises
        InvalidArgument, EncryptionError.
        """
        if subscription is not None:
            check_name("subscription", subscription)
        check_number("limit", limit)
        if since is not None:
            check_time("since", since)
        found = await self._commands.audit(subscription, limit=limit, since=since)
        return [each if each.edit is None else await self._with_edit(each, each.edit) for each in found]

    async def _with_edit(self, record: CommandRecord, edit: ParkedEdit) -> CommandRecord:
        """Show a correction's payloads as those of its event are."""
        shown: Callable[[bytes], Any] = orjson.loads
        if (stored := await self._stored(record.arguments["position"])) is not None:
            [event] = await self._payloads(stored).open([stored])
            shown = partial(_corrected, event)
        before = None if edit.before is None else shown(edit.before)
        return replace(record, edit=replace(edit, before=before, after=shown(edit.after)))

    async def command(
        self,
        subscription: str,
        verb: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        partition: int | None = None,
        dry_run: bool = False,
    ) -> int:
        """Ask for one of VERBS; returns how many partitions it is for.

        ``dry_run`` checks and asks for nothing. Raises SubscriptionNotFound, InvalidArgument, SubscriptionConflict.
        """
        if not isinstance(verb, str) or verb not in VERBS:
            raise InvalidArgument("verb", f"{verb!r} is none of {', '.join(VERBS)}")
        given = check_arguments(arguments)
        check_complete(verb, given)
        states = await self._concerned(subscription, partition)
        concerned = len(states)
        if verb == "rewind":
            check_rewind(states[0], given["to"])
        elif verb == "move":
            await self._check_move(states, given["node"])
        if dry_run:
            if verb not in WANTED:
                await self._issue(subscription, verb, given, partition, dry_run=True)
            return concerned
        if verb in WANTED:
            reason = given.get("reason") or ""
            await self._registry.set_wanted(subscription, WANTED[verb], issued_by=self._operator, reason=reason)
        if verb not in ("pause", "stop"):
            await self._issue(subscription, verb, given, partition)
        return concerned

    async def _check_move(self, states: Sequence[PartitionState], node: str) -> None:
        """Refuse a move that cannot be done. Raises InvalidArgument, SubscriptionConflict."""
        hosts = [host_facts(row) for row in await self._placement.hosts()]
        name = states[0].key.subscription
        if states[0].pulled:
            raise SubscriptionConflict(name, "programs pull it: it is where they are")
        if states[0].wanted == "stopped":
            raise SubscriptionConflict(name, "it is stopped: nobody owns it")
        rows = await self._placement.partitions()
        partitions = [partition_facts(row, placed_by(row)) for row in rows]
        concerned = {state.key.lock_id for state in states}
        moving = [partition for partition in partitions if partition.lock_id in concerned]
        reason = why_not_there(moving, node, partitions, hosts)
        if reason is not None:
            raise InvalidArgument("node", reason)

    async def _issue(
        self, subscription: str, verb: str, given: Mapping[str, Any], partition: int | None, *, dry_run: bool = False
    ) -> None:
        await self._commands.issue(
            subscription, verb, given, issued_by=self._operator, partition=partition, dry_run=dry_run
        )

    async def _check(self, subscription: str, partition: int | None) -> None:
        await self._concerned(subscription, partition)

    async def _concerned(self, subscription: str, partition: int | None) -> list[PartitionState]:
        check_name("subscription", subscription)
        if partition is not None:
            check_number("partition", partition)
        states = await self._registry.states(subscription)
        concerned = [state for state in states if partition in (None, state.key.partition)]
        if not concerned:
            raise SubscriptionNotFound(subscription if partition is None else f"{subscription}/{partition}")
        return concerned


def _with_handler(record: SubscriptionRecord) -> SubscriptionRecord:
    if record.handler == PULLED:
        raise SubscriptionConflict(record.name, "programs pull it: this is for what a handler consumes")
    return record


def _corrected(event: RecordedEvent, payload: bytes) -> Any:
    """Return what a payload of a correction says, as the event's own would be shown."""
    return event._replace(raw_data=payload).data


def _because(reason: str) -> dict[str, str]:
    check_reason(reason)
    return {"reason": reason} if reason else {}


def _shown(event: RecordedEvent, part: str = "data") -> Any:
    try:
        return getattr(event, part)
    except (EncodingFailed, ValueError):  # encrypted, or of a codec that only the user's code knows
        return str(getattr(event, f"raw_{part}"))


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
