"""What hosts and the supervisor ask of the database, in their own terms.

Translates only; the statements are the durable side's.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, Protocol

from headwater.cluster.heat import Heat
from headwater.cluster.plan import Assignment, HostFacts, PartitionFacts
from headwater.cluster.repartition import successor
from headwater.cluster.replays import OneReplay
from headwater.cluster.slot import Assigned, Slot
from headwater.cluster.succession import next_step
from headwater.cluster.unplaced import why_not_there
from headwater.storage.checks import keepable
from headwater.storage.errors import HeadwaterError, SubscriptionConflict
from headwater.storage.leases import Grant, PartitionKey
from headwater.storage.postgres.commands import Commands
from headwater.storage.postgres.placement import AssignedRow, HostRow, PlacementRow, PostgresPlacement
from headwater.storage.postgres.repartition import Repartition
from headwater.storage.postgres.replacing import Replacements
from headwater.storage.postgres.replaying import ReplayRange, Replays
from headwater.storage.registry import CommandRecord
from headwater.subscriptions.core.seam import share_of
from headwater.subscriptions.encoding import decode, decode_placement
from headwater.subscriptions.options import SubscriptionOptions
from headwater.subscriptions.runner import SubscriptionRunner

log = logging.getLogger(__name__)

TROUBLE_LENGTH: Final = 300
"""How much is told of why a host cannot run a partition, in characters."""
MOVE_TIMEOUT: Final = 600.0
"""How long a node may take to get ready for what an operator moves to it, in seconds: then the move is given up."""
TIDY_INTERVAL: Final = 5.0
"""How often it is looked for what nobody waits for, in seconds."""

MakeSlotReplay = Callable[[Assigned, Grant, int, ReplayRange], OneReplay]
"""Makes a replay for a partition under a grant, given its command's id and its range."""


READ_AGAIN: Final = 3.0
"""How long until options that could not be read are tried again, in seconds: an error class may be there by then."""
UNREAD: Final = SubscriptionOptions()
"""In place of options that say nothing, or cannot be read."""


class _Read(NamedTuple):
    """What was stored of a subscription's options, and what it means."""

    stored: dict[str, Any]
    options: SubscriptionOptions
    trouble: str | None
    """Why it cannot be read, when it cannot."""
    at: float


class HostDirectory:
    """The assignments of hosts, and operators' commands for what they run."""

    def __init__(
        self, placement: PostgresPlacement, commands: Commands, replays: Replays, make_replay: MakeSlotReplay
    ) -> None:
        self._placement = placement
        self._commands = commands
        self._replays = replays
        self._make_replay = make_replay
        self._decoded: dict[PartitionKey, _Read] = {}
        """What was stored of the options at the last look, and what it means: it hardly ever changes."""
        self._told: str | None = None
        """The mark of the troubles that were written down at the last look."""

    async def assigned(self, host: str) -> tuple[bool, Sequence[Assigned]]:
        """Return whether the host should drain, and what it should own or stand by for.

        A row that cannot be read stops no other: it is told with its trouble.
        """
        draining, self._told, rows = await self._placement.assigned(host)
        self._decoded = {row.key: self._decode(row) for row in rows}
        return draining, [
            Assigned(
                key=row.key,
                handler=row.handler,
                options=self._decoded[row.key].options,
                trouble=self._decoded[row.key].trouble,
                paused=row.wanted == "paused",
                wanted_owner=row.wanted_owner,
                wanted_standby=row.wanted_standby,
                owner=row.owner,
                standby=row.standby,
                commanded=row.commanded,
                paused_why=row.wanted_why,
            )
            for row in rows
        ]

    def _decode(self, row: AssignedRow) -> _Read:
        last, now = self._decoded.get(row.key), time.monotonic()
        if last is not None and last.stored == row.options and (last.trouble is None or now - last.at < READ_AGAIN):
            return last
        try:
            return _Read(row.options, decode(row.options), None, now)
        except Exception as error:  # noqa: BLE001  whatever is stored: the operator is told, and the others go on
            return _Read(row.options, UNREAD, f"its options cannot be read: {error}", now)

    async def ready(self, host: str, keys: Sequence[PartitionKey]) -> None:
        """Say that the host is ready to take these over."""
        await self._placement.ready(host, keys)

    async def troubles(self, host: str, reasons: Mapping[PartitionKey, str]) -> None:
        """Say what the host cannot run, and why, unless just that is written down already."""
        said = {
            str(key.lock_id): keepable(reason)[:TROUBLE_LENGTH]
            for key, reason in sorted(reasons.items(), key=lambda r: r[0].lock_id)
        }
        mark = hashlib.sha256(repr(said).encode()).hexdigest()[:16] if said else None
        if mark != self._told:
            await self._placement.troubles(host, mark, said)

    async def start_draining(self, host: str) -> None:
        """Say that the host takes nothing new."""
        await self._placement.drain(host)

    async def obey(self, slots: Sequence[Slot]) -> None:
        """Apply what operators have asked of the partitions that run here, in the order in which they did."""
        # Who runs now, before it is asked what is open: what an earlier runner saved is not told to a later one.
        running = {slot.key.lock_id: (slot, slot.runner) for slot in slots if slot.runner is not None}
        for command in await self._commands.open(list(running)):
            slot, runner = running[command.lock_id or 0]
            if slot.runner is not runner or command.verb == "move":
                continue
            if command.verb == "replay":
                await self._replay(slot, runner, command.command_id)
                continue
            outcome = apply_command(runner, command, paused=slot.paused)
            if outcome is not None:
                await self._commands.finish(runner.grant, command.command_id, outcome)

    async def _replay(self, slot: Slot, runner: SubscriptionRunner, command_id: int) -> None:
        """Begin, or end, a replay; its command stays open until it has ended."""
        found = await self._replays.find(command_id)
        if found is not None and slot.runner is runner:
            make = functools.partial(self._make_replay, slot.assigned, runner.grant)
            slot.replays.look(command_id, found, runner.grant, make, self._commands.finish)


def apply_command(runner: SubscriptionRunner, command: CommandRecord, *, paused: bool) -> str | None:
    """Tell an operator's command; returns its outcome, None for one whose outcome is written down with its effect."""
    match command.verb, command.arguments:
        case "rewind", {"to": int(number)} if number >= 0:
            side_effects = command.arguments.get("side_effects") is not False
            try:
                runner.rewind(number, side_effects=side_effects, command=command.command_id)
            except SubscriptionConflict as conflict:
                return f"refused: {conflict}"
            return None
        case "resume", _ if paused:
            # Asked for before the pause; if after it, the next look at what is wanted lets it go on.
            return "goes on with the end of the pause"
        case "resume", _:
            runner.resume()
            return "resumed"
        case _:
            return f"refused: {command.verb!r} with {dict(command.arguments)} means nothing here"


def host_facts(row: HostRow) -> HostFacts:
    """Return what the plan looks at of a host."""
    return HostFacts(
        host=row.host,
        node=row.node,
        draining=row.draining,
        resources=row.facts.get("resources", {}),
        labels=row.facts.get("labels", {}),
        troubles={int(lock_id): reason for lock_id, reason in row.facts.get("troubles", {}).get("of", {}).items()},
    )


def partition_facts(row: PlacementRow, wants: SubscriptionOptions) -> PartitionFacts:
    """Return what the plan looks at of a partition, given where it may run."""
    return PartitionFacts(
        lock_id=row.key.lock_id,
        subscription=row.key.subscription,
        owner=row.owner,
        standby=row.standby,
        wanted_owner=row.wanted_owner,
        wanted_standby=row.wanted_standby,
        lag=row.lag,
        granted_at=row.granted_at,
        needs=wants.needs,
        labels=wants.labels,
        apart=wants.apart,
        target=row.target,
    )


def placed_by(row: PlacementRow) -> SubscriptionOptions:
    """Return where a partition may run: anywhere, when what is stored of it cannot be read."""
    try:
        return decode_placement(row.options)
    except HeadwaterError as error:
        log.warning("%s/%d may run anywhere: %s", row.key.subscription, row.key.partition, error)
        return UNREAD


class Generation(Protocol):
    """The right to write the plan."""

    async def supervise(self) -> int | None: ...


class SupervisorDirectory:
    """The wanted state and the owners, for the one that plans."""

    def __init__(
        self,
        placement: PostgresPlacement,
        repartition: Repartition,
        generation: Generation,
        replacements: Replacements,
    ) -> None:
        self._placement = placement
        self._repartition = repartition
        self._lease = generation
        self._replacements = replacements
        self._generation: int | None = None
        self._heat = Heat()
        self._hosts: Sequence[HostFacts] = ()
        """Those that were alive at the last look."""
        self._hopeless: dict[int, str] = {}
        """Moves that cannot be done (any more), by their commands' ids, and why."""
        self._moving = False
        """Whether an operator's move was under way at the last look."""
        self._tidied_at = float("-inf")
        self._wants: dict[int, tuple[dict[str, Any], SubscriptionOptions]] = {}
        """By lock id: what was stored of the options at the last look, and where it may run by them."""

    async def supervise(self) -> bool:
        """Be, or become, the one that writes the plan; False while another one is."""
        self._generation = await self._lease.supervise()
        return self._generation is not None

    async def hosts(self) -> list[HostFacts]:
        """Return the hosts that are alive."""
        self._hosts = [host_facts(row) for row in await self._placement.hosts()]
        return self._hosts

    async def partitions(self) -> list[PartitionFacts]:
        """Return the partitions that should run.

        One whose options cannot be read may run anywhere: whoever owns it tells operators what is wrong.
        """
        rows = await self._placement.partitions()
        self._wants = {row.key.lock_id: (row.options, self._placed_by(row)) for row in rows}
        self._moving = any(row.target is not None for row in rows)
        hot = self._heat.look({row.key.lock_id: row.lag for row in rows}, time.monotonic())
        found = [
            replace(partition_facts(row, wants), hot=row.key.lock_id in hot)
            for row, (_, wants) in zip(rows, self._wants.values(), strict=True)
        ]
        self._hopeless = self._hopeless_moves(rows, found)
        # What cannot be moved where it should is placed as if nobody had asked.
        return [
            replace(partition, target=None) if row.move in self._hopeless else partition
            for row, partition in zip(rows, found, strict=True)
        ]

    def _hopeless_moves(self, rows: Sequence[PlacementRow], partitions: Sequence[PartitionFacts]) -> dict[int, str]:
        if not self._moving or not self._hosts:  # without hosts nothing is planned: they may come back
            return {}
        nodes = {host.host: host.node for host in self._hosts}
        needy = [partition for partition in partitions if partition.needs]
        hopeless = {}
        for row, partition in zip(rows, partitions, strict=True):
            if row.move is None or row.target is None or nodes.get(row.wanted_owner or "") == row.target:
                continue
            reason = why_not_there([partition], row.target, needy, self._hosts)
            if reason is None and row.asked > MOVE_TIMEOUT:
                reason = f"{row.target} has not got ready within {MOVE_TIMEOUT:g} s"
            if reason is not None:
                hopeless[row.move] = f"given up: {reason}"
        return hopeless

    def _placed_by(self, row: PlacementRow) -> SubscriptionOptions:
        stored, wants = self._wants.get(row.key.lock_id, (None, UNREAD))
        if stored == row.options and stored is not None:
            return wants
        return placed_by(row)

    async def assign(self, assignments: Sequence[Assignment]) -> None:
        """Write assignments down; nothing is written when another supervisor has taken over."""
        if self._generation is not None:
            await self._placement.assign(self._generation, [(a.lock_id, a.owner, a.standby) for a in assignments])

    async def repartition(self) -> list[str]:
        """Put new sets of partitions in place where the old ones have been let go; returns of which subscriptions."""
        done = []
        for name in await self._repartition.wanted():
            try:
                if await self._repartition.switch(name, successor, share_of):
                    done.append(name)
            except SubscriptionConflict as conflict:
                log.warning("the old partitions go on: %s", conflict)
        return done

    async def replace(self) -> None:
        """Make the steps that are due of new versions that take over from old ones."""
        for row in await self._replacements.latest(open_only=True):
            try:
                step = await self._replacements.step(row, next_step)
            except HeadwaterError as error:
                log.warning("%s cannot replace %s: %s", row.new, row.old, error)
            else:
                if step is not None:
                    log.info("%s replaces %s: %s", row.new, row.old, step)

    async def tidy(self) -> None:
        """Take note of moves that are done, and now and then forget hosts that are long gone."""
        due = time.monotonic() - self._tidied_at >= TIDY_INTERVAL
        if due or self._moving:
            await self._placement.settle_moves()
        if (due or self._hopeless) and self._generation is not None:
            await self._placement.end_moves(self._generation, self._hopeless)
        if due:
            await self._placement.forget_hosts()
            self._tidied_at = time.monotonic()
