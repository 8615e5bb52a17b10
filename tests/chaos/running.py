"""One part of a run: a world, its writers, its faults, and the verdict."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.campaign import Campaign, Kind, Outcome
from tests.chaos.catalogue import possible
from tests.chaos.checker import Checker
from tests.chaos.programs.app import app
from tests.chaos.report import Part, most_again
from tests.chaos.world import PATIENCE, STREAMS, World
from tests.plugins.waiting import until


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much is appended meanwhile."""

    writers: int = 2
    rate: float = 500
    """Events a second of each."""
    batch: int = 25
    """Events of one append."""


async def run_part(
    world: World,
    kinds: tuple[Kind, ...],
    *,
    seed: int,
    faults: int,
    load: Load,
    enough: Callable[[int, int], bool] = lambda _faults, _events: True,
    until_time: float | None = None,
    told: Callable[[Outcome], None] = lambda _: None,
    keep: Path | None = None,
) -> Part:
    """Make so many faults, and more until it is ``enough`` or a monotonic time has come; returns what came of it.

    A world that does not come back to order is a problem of the part, and ends it; its logs are then kept in ``keep``.
    """
    part = Part(world.kind, [])
    async with world:
        for _ in range(load.writers):
            world.writers.start(rate=load.rate, batch=load.batch, streams=STREAMS)
        can, missing = possible(kinds, world)
        for each in missing:
            print(f"cannot be made here: {each}", flush=True)
        await until(
            lambda: len(world.writers.written()) == load.writers,
            deadline=PATIENCE,
            what="waiting for the writers to write",
        )
        campaign, checker = Campaign(world, seed, told), world.checker
        part.outcomes = campaign.outcomes
        try:
            await campaign.run(can, faults, enough, until_time)
            part.problems += await world.finish()
            part.lost = checker.lost(await world.head())
        except (asyncio.CancelledError, KeyboardInterrupt):
            raise
        except Exception as error:  # noqa: BLE001  whatever went wrong, what was seen until then is reported
            part.problems.append(f"{type(error).__name__}: {error}")
        conclude(part, checker)
        await _ask_database(part, world)
        for verdict in part.verdicts:
            print(f"WRONG {verdict}", flush=True)
        if part.verdicts and keep is not None:
            shutil.copytree(world.folder, keep / world.kind, dirs_exist_ok=True)
            with contextlib.suppress(OSError):
                shutil.copy(world.servers.folder / "data" / "server.log", keep)
    return part


def conclude(part: Part, checker: Checker) -> None:
    """Put down in the part what the checker says of what handlers noted."""
    part.handled = checker.handled
    part.double, part.late = checker.owners.judged(part.outcomes)
    part.again = [(owned, epoch, number) for (owned, epoch), number in checker.again.items()]
    part.bounds = {each.name: most_again(each.options) for each in app.registrations}
    part.redelivered = [(note.time, note.owned, note.epoch, number) for note, number in checker.redelivered]
    part.out_of_order = [(note.time, note.subscription, position) for note, position in checker.out_of_order]


async def _ask_database(part: Part, world: World) -> None:
    try:
        part.events = await world.head()
        part.stale = await world.stale_writes()
    except Exception as error:  # noqa: BLE001  a database that never came back is one more problem
        part.problems.append(f"the database cannot be asked: {error}")
