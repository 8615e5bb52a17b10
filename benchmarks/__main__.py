"""The command: ``python -m benchmarks [QUESTION ...]``, and ``python -m benchmarks compare BEFORE AFTER``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import compare, kept, plots, results, tables
from benchmarks.bench import Bench, Effort, server
from benchmarks.run import QUESTIONS, run

DEFAULT = Effort()
WIDE = 140


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # A file or a pipe has no width of its own.
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    if words[:1] == ["compare"]:
        comparing = _compare_parser()
        chosen = comparing.parse_args(words[1:])
        try:
            compare.show(console, results.read(chosen.before), results.read(chosen.after))
        except (OSError, ValueError) as error:
            comparing.error(str(error))
        return 0
    parser = _parser()
    chosen = parser.parse_args(words)
    if unknown := [name for name in chosen.questions if name not in QUESTIONS]:
        parser.error(f"there is no question {unknown[0]!r}; there are {', '.join(QUESTIONS)}")
    if chosen.keep is not None and chosen.database is not None:
        parser.error("--keep has a server of its own: leave --database out")
    try:
        return _ask(console, chosen)
    except OSError as error:  # a folder that cannot be written to, a disk that is too small
        parser.error(str(error))


def _ask(console: Console, chosen: argparse.Namespace) -> int:
    if chosen.quick:
        effort = Effort(rounds=2, seconds=0.1, quick=True, only=tuple(chosen.only), sizes=(10_000, 20_000))
    else:
        effort = Effort(
            rounds=chosen.rounds, seconds=chosen.seconds, only=tuple(chosen.only), sizes=tuple(chosen.sizes)
        )
    if sys.stdout.isatty():
        console.print(f"[dim]{', '.join(chosen.questions)}: {effort.rounds} rounds of each case[/]")

    def told(_question: str, case: dict[str, Any]) -> None:
        tables.show_case(console, case)

    if chosen.keep is not None:
        kept.prepare(chosen.keep, effort.sizes, console.print)
    with server(chosen.database, chosen.keep) as url:
        bench = Bench(url, chosen.redis, effort, kept=chosen.keep is not None)
        found = asyncio.run(run(bench, chosen.questions, told))
    tables.show_machine(console, found)
    folder = chosen.out / datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    results.write(found, folder / "results.json")
    drawn = plots.draw(found, folder)
    console.print(f"{folder / 'results.json'}" + "".join(f", {path.name}" for path in drawn), highlight=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "questions", nargs="*", default=QUESTIONS, metavar="QUESTION", help=f"any of {', '.join(QUESTIONS)}"
    )
    parser.add_argument("--rounds", type=int, default=DEFAULT.rounds, help="rounds of each case (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=DEFAULT.seconds, help="length of a round where callers go on")
    parser.add_argument("--only", nargs="+", default=[], metavar="CASE", help="these cases only, as '50x1'")
    parser.add_argument("--sizes", nargs="+", type=int, default=DEFAULT.sizes, help="events in the store, for growth")
    parser.add_argument("--quick", action="store_true", help="see that everything works; the figures mean nothing")
    parser.add_argument("--database", metavar="URL", help="a Postgres server to use; else one is started")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="fill the stores of 'growth' there once, and use them again"
    )
    parser.add_argument("--redis", metavar="URL", help="a Redis server to use; else one is started where it is needed")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks"), help="where results and plots go")
    return parser


def _compare_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks compare", description="Show two runs side by side.")
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    return parser


if __name__ == "__main__":
    sys.exit(main())
