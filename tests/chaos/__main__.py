"""The chaos run: ``python -m tests.chaos --help``. Breaks everything at random under load, and prints the table."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import secrets
import signal
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import load as load_of_machine
from benchmarks.machine import machine_facts, server_facts, sync_time
from tests.chaos.campaign import Kind, Outcome
from tests.chaos.catalogue import EVERYTHING, ON_HOSTS, ON_RAY
from tests.chaos.processes import ROOT
from tests.chaos.rayworld import RayWorld
from tests.chaos.report import Part, rows, table
from tests.chaos.running import Load, run_part
from tests.chaos.servers import Servers
from tests.chaos.world import LEASE, PlainWorld

OUT: Final = ROOT / "out" / "chaos"
ON_RAY_SHARE: Final = 0.2
"""The share of the faults that is made on Ray, where each takes several times as long to mend."""
ENDING: Final = 90.0
"""For how long before the time is up no more faults are made, in seconds: the rest must be handled, and judged."""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="decides which faults are made, and in which order")
    parser.add_argument("--faults", type=int, default=300, help="make at least so many (%(default)s)")
    parser.add_argument("--events", type=int, default=1_000_000, help="append at least so many (%(default)s)")
    parser.add_argument("--minutes", type=float, default=24, help="but take no longer than this (%(default)s)")
    parser.add_argument("--rate", type=float, default=1500, help="append so many events a second (%(default)s)")
    parser.add_argument("--on", choices=("hosts", "ray", "both"), default="both", help="plain hosts, Ray, or both")
    parser.add_argument("--only", action="append", default=[], metavar="FAULT", help="make only faults of this name")
    parser.add_argument("--list", action="store_true", help="print the catalogue and end")
    options = parser.parse_args()
    if unknown := set(options.only) - {kind.name for kind in EVERYTHING}:
        parser.error(f"there is no fault {', '.join(sorted(unknown))}; --list shows them")
    return options


def _tell(outcome: Outcome) -> None:
    print(
        f"{outcome.number:4} {outcome.world:6} {outcome.kind:24} takeover {outcome.takeover:6.3f} s, "
        f"head {outcome.head}, {outcome.length:.1f} s",
        flush=True,
    )


async def _run(options: argparse.Namespace, seed: int, keep: Path, facts: dict[str, Any]) -> list[Part]:
    """Run the parts, those on Ray first; the second one goes on until both together are enough."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    until_time = time.monotonic() + 60 * options.minutes - ENDING
    load = Load(rate=options.rate / 2)
    parts: list[Part] = []

    def chosen(kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
        return tuple(kind for kind in kinds if not options.only or kind.name in options.only)

    def enough(faults: int, events: int) -> bool:
        before = sum(len(part.outcomes) for part in parts), sum(part.events for part in parts)
        return before[0] + faults >= int(options.faults) and before[1] + events >= int(options.events)

    with Servers() as servers:
        facts["server"] = server_facts(servers.url)
        shared: dict[str, Any] = {"seed": seed, "load": load, "told": _tell, "keep": keep}
        if options.on != "hosts" and chosen(ON_RAY):
            share = ON_RAY_SHARE if options.on == "both" else 1.0
            half_time = time.monotonic() + (until_time - time.monotonic()) / 2
            parts.append(
                await run_part(
                    RayWorld(servers, "on-ray", seed),
                    chosen(ON_RAY),
                    faults=int(options.faults * share),
                    until_time=half_time if options.on == "both" else until_time,
                    enough=(lambda _f, _e: True) if options.on == "both" else enough,
                    **shared,
                )
            )
        if options.on != "ray" and chosen(ON_HOSTS):
            world = PlainWorld(servers, "on-hosts", seed)
            parts.append(
                await run_part(world, chosen(ON_HOSTS), faults=0, until_time=until_time, enough=enough, **shared)
            )
    return parts


def main() -> int:
    """Run, print, write; returns 0 when nothing was lost, out of order, written by a former owner or inexact."""
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
    print(_summary(parts, faults, events, options, result["seconds"]))
    print(f"seed {seed}, lease {LEASE:g} s; all of it: {(OUT / f'{name}.json').relative_to(ROOT)}")
    return 1 if verdicts else 0


def _summary(parts: list[Part], faults: int, events: int, options: argparse.Namespace, seconds: int) -> str:
    lines = [f"{faults} faults over {events} events in {seconds} s (takeovers in seconds)"]
    if faults < options.faults or events < options.events:
        lines.append(f"NOT REACHED in the time given: {options.faults} faults over {options.events} events")
    lines += [_totals(part) for part in parts]
    lines += [f"WRONG {verdict}" for part in parts for verdict in part.verdicts]
    return "\n".join(lines)


def _totals(part: Part) -> str:
    again = sum(number for _, _, number in part.redelivered)
    return (
        f"{part.world}: {part.handled} deliveries of events, {again} of them again; lost "
        f"{sum(map(len, part.lost.values()))}, out of order {len(part.out_of_order)}, stale writes accepted "
        f"{len(part.stale)}, exactly-once read models and positions {'WRONG' if part.problems else 'exact'}"
    )


if __name__ == "__main__":
    sys.exit(main())
