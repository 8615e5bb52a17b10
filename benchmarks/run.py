"""Asks questions one after another and gathers what goes into the results."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.bench import Bench
from benchmarks.machine import load, machine_facts, server_facts, sync_time
from benchmarks.measure import Case, measure
from benchmarks.results import FORMAT

QUESTIONS: Final = tuple(
    sorted(path.stem for path in (Path(__file__).parent / "questions").glob("*.py") if path.stem != "__init__")
)
Told = Callable[[str, dict[str, Any]], None]


async def run(bench: Bench, names: Sequence[str], told: Told) -> dict[str, Any]:
    """Ask the named questions; ``told`` hears of each case when it is measured. Returns the results."""
    effort = bench.effort
    begun, load_before = datetime.now(UTC), load()
    results: dict[str, Any] = {
        "format": FORMAT,
        "begun": begun.isoformat(timespec="seconds"),
        "quick": effort.quick,
        "rounds": effort.rounds,
        "seconds_a_round": effort.seconds,
        "machine": {**machine_facts(), "sync_8kb_us": sync_time(), "load_before": load_before},
        "server": server_facts(bench.server),
        "questions": [],
    }
    for name in names:
        module = importlib.import_module(f"benchmarks.questions.{name}")
        measured = []
        cases: AsyncGenerator[Case, None] = module.cases(bench)
        async with aclosing(cases):
            async for case in cases:
                measured.append(await measure(case, effort.rounds, warm_up=not effort.quick))
                told(name, measured[-1])
        title = (inspect.getdoc(module) or name).splitlines()[0]
        results["questions"].append({"question": name, "title": title, "cases": measured})
    results["machine"] |= {"sync_8kb_us_after": sync_time(), "load_after": load()}
    results["ended"] = datetime.now(UTC).isoformat(timespec="seconds")
    return results
