"""The chaos run: ``python -m tests.chaos --help``. Breaks everything at random under load, and prints the table."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import secrets
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.machine import load as load_of_machine
from benchmarks.machine import machine_facts, server_facts, sync_time
from tests.chaos import network
from tests.chaos.campaign import Kind, Outcome
from tests.chaos.catalogue import EVERYTHING, ON_HOSTS, ON_NETWORK, ON_RAY
from tests.chaos.networld import NetworkWorld
from tests.chaos.processes import ROOT
from tests.chaos.rayworld import RayWorld
from tests.chaos.report import Part, rows, table
from tests.chaos.running import Load, run_part
from tests.chaos.servers import Servers
from tests.chaos.world import LEASE, PlainWorld, World

OUT: Final = ROOT / "out" / "chaos"
ENDING: Final = 90.0
"""For how long before the time is up no more faults are made, in seconds: the rest must be handled, and judged."""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="decides which faults are made, and in which order")
    parser.add_argument("--faults", type=int, default=300, help="make at least so many (%(default)s)")
    parser.add_argument("--events", type=int, default=1_000_000, help="append at least so many (%(default)s)")
    parser.add_argument("--minutes", type=float, default=24, help="but take no longer than this (%(default)s)")
    parser.add_argument(
        "--rate", type=float, default=1800, help="append so many events a second, on Ray two fifths of it (%(default)s)"
    )
    parser.add_argument("--on", choices=("hosts", "ray", "network", "all"), default="all", help="run where")
    parser.add_argument("--only", action="append", default=[], metavar="FAULT", help="make only faults of this name")
    parser.add_argument("--list", action="store_true", help="print the catalogue and end")
    options = parser.parse_args()
    if 60 * options.minutes <= ENDING:
        parser.error(f"--minutes {options.minutes:g} is too short: the last {ENDING:g} s are for handling and judging")
    if unknown := set(options.only) - {kind.name for kind in EVERYTHING}:
        parser.error(f"there is no fault {', '.join(sorted(unknown))}; --list shows them")
    return options


def _tell(outcome: Outcome) -> None:
    print(
        f"{outcome.number:4} {outcome.world:6} {outcome.kind:24} takeover {outcome.takeover:6.3f} s "
        f"({outcome.slowest[0]}/{outcome.slowest[1]}), "
        f"head {outcome.head}, {outcome.length:.1f} s",
        flush=True,
    )


class _Stage(NamedTuple):
    """A part of a run: its world, its faults, and how much of the faults and of the time is its own."""

    name: str
    kinds: tuple[Kind, ...]
    make: Callable[[Servers, str, int], World]
    faults: float
    time: float
    rate: float
    """The share of the rate of appends: what a whole new cluster takes to start must be caught up with afterwards."""


STAGES: Final = (
    # The slow ones first, bounded: whatever they leave of faults, events and time is for the plain hosts.
    _Stage("network", ON_NETWORK, NetworkWorld, 0.03, 0.12, 0.4),
    _Stage("ray", ON_RAY, RayWorld, 0.2, 0.4, 0.4),
    _Stage("hosts", ON_HOSTS, PlainWorld, 1.0, 1.0, 1.0),
)


async def _run(options: argparse.Namespace, seed: int, keep: Path, facts: dict[str, Any]) -> list[Part]:
    """Run the parts one after another; the last one goes on until all together are enough."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    begun, seconds = time.monotonic(), 60 * options.minutes - ENDING
    stages = [
        stage._replace(kinds=tuple(kind for kind in stage.kinds if not options.only or kind.name in options.only))
        for stage in STAGES
        if options.on in (stage.name, "all")
    ]
    stages = [stage for stage in stages if stage.kinds]
    parts: list[Part] = []

    def enough(faults: int, events: int) -> bool:
        before = sum(len(part.outcomes) for part in parts), sum(part.events for part in parts)
        return before[0] + faults >= int(options.faults) and before[1] + events >= int(options.events)

    if any(stage.name == "network" for stage in stages) and not network.possible():
        print("cannot be made here: faults of the network need root, on Linux", flush=True)
        stages = [stage for stage in stages if stage.name != "network"]
    until_time = begun
    with Servers() as servers:
        facts["server"] = server_facts(servers.url)
        for stage in stages:
            last = stage is stages[-1]
            until_time = begun + seconds if last else until_time + seconds * stage.time
            part = await run_part(
                stage.make(servers, stage.name, seed),
                stage.kinds,
                seed=seed,
                faults=0 if last else math.ceil(options.faults * stage.faults),
                load=Load(rate=options.rate * stage.rate / 2),
                enough=enough if last else lambda _faults, _events: True,
                until_time=until_time,
                told=_tell,
                keep=keep,
            )
            parts.append(part)
    return parts


def main() -> int:
    """Run, print, write; returns 0 when all faults and events were reached and nothing is wrong."""
    options = _options()
    if options.list:
        for kind in EVERYTHING:
            print(f"{kind.name:24} {kind.what}")
        return 0
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    begun = datetime.now(UTC)
    name = begun.strftime("%Y%m%d-%H%M%S")
    OUT.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=OUT / f"{name}.log", level=logging.INFO)
    print(f"seed {seed}: the same faults in the same order by --seed {seed}", flush=True)
    facts: dict[str, Any] = {
        "machine": {**machine_facts(), "sync_8kb_us": sync_time(), "load_before": load_of_machine()}
    }
    try:
        parts = asyncio.run(_run(options, seed, OUT / f"{name}-logs", facts))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted: nothing is left running", file=sys.stderr)
        return 130
    facts["machine"]["load_after"] = load_of_machine()
    found, verdicts = rows(parts, EVERYTHING), [verdict for part in parts for verdict in part.verdicts]
    faults, events = sum(len(part.outcomes) for part in parts), sum(part.events for part in parts)
    result = {
        "begun": begun.isoformat(timespec="seconds"),
        "seconds": round((datetime.now(UTC) - begun).total_seconds()),
        "seed": seed,
        "lease": LEASE,
        "options": vars(options),
        "faults": faults,
        "events": events,
        "verdicts": verdicts,
        "rows": found,
        "parts": [asdict(part) for part in parts],
        **facts,
    }
    (OUT / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{table(found)}\n")
    missed = not_reached(faults, events, options)
    print(_summary(parts, faults, events, missed, result["seconds"]))
    print(f"seed {seed}, lease {LEASE:g} s; all of it: {(OUT / f'{name}.json').relative_to(ROOT)}")
    return 1 if verdicts or missed else 0


def not_reached(faults: int, events: int, options: argparse.Namespace) -> str | None:
    """Return in words what should have been reached in the time given and was not, if anything."""
    if faults >= options.faults and events >= options.events:
        return None
    return f"NOT REACHED in the time given: {options.faults} faults over {options.events} events"


def _summary(parts: list[Part], faults: int, events: int, missed: str | None, seconds: int) -> str:
    lines = [f"{faults} faults over {events} events in {seconds} s (takeovers in seconds)"]
    lines += [missed] if missed else []
    lines += [_totals(part) for part in parts]
    lines += [f"WRONG {verdict}" for part in parts for verdict in part.verdicts]
    return "\n".join(lines)


def _totals(part: Part) -> str:
    again = sum(number for *_, number in part.redelivered)
    return (
        f"{part.world}: {part.handled} deliveries of events, {again} of them again; lost "
        f"{sum(map(len, part.lost.values()))}, out of order {len(part.out_of_order)}, stale writes accepted "
        f"{len(part.stale)}, double-owner deliveries {len(part.double)} and {len(part.late)} late, "
        f"exactly-once read models and positions {'WRONG' if part.problems else 'exact'}"
    )


if __name__ == "__main__":
    sys.exit(main())
