"""The command line of the demo: what can be chosen, checked before anything starts."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from examples.flights.source import TOTAL

DEFAULT_FLIGHTS: Final = 80_000
FEWEST_FLIGHTS: Final = 100
DEFAULT_OUT: Final = Path(__file__).resolve().parents[2] / "out" / "demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user chose."""

    flights: int = DEFAULT_FLIGHTS
    nodes: int = 3
    kill: bool = True
    seed: int = 2013
    json: bool = False
    out: Path = DEFAULT_OUT
    keep: bool = False
    database_url: str | None = None
    redis_url: str | None = None


class _Parser(argparse.ArgumentParser):
    """Answers bad input in one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave."""
        self.exit(2, f"flights: {message} (--help lists the options)\n")


def parse(arguments: list[str]) -> Options:
    """Read the command line; leaves the program with status 2 and one line on standard error when it is wrong."""
    parser = _Parser(
        prog="flights",
        description="Send the flights that left New York City in 2013 through Headwater on a cluster of this machine, "
        "kill a node half-way, and prove that nothing was lost or repeated.",
        allow_abbrev=False,
    )
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        "--flights", type=int, default=DEFAULT_FLIGHTS, metavar="N", help="how many flights (default: %(default)s)"
    )
    amount.add_argument("--all", action="store_true", help=f"all {TOTAL:,} flights of the year")
    parser.add_argument("--nodes", type=int, default=3, metavar="N", help="how many nodes (default: %(default)s)")
    parser.add_argument("--no-kill", action="store_true", help="let every node live")
    parser.add_argument("--seed", type=int, default=2013, metavar="N", help="which flights (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print only the report, as JSON, on standard output")
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_OUT, metavar="FOLDER", help="where the report goes (default: out/demo)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the data")
    parser.add_argument("--database-url", metavar="URL", help="a PostgreSQL to use instead of an embedded one")
    parser.add_argument("--redis-url", metavar="URL", help="a Redis or Valkey to use instead of an embedded one")
    given = parser.parse_args(arguments)
    flights = TOTAL if given.all else given.flights
    if not FEWEST_FLIGHTS <= flights <= TOTAL:
        parser.error(f"--flights must be from {FEWEST_FLIGHTS} to {TOTAL}, not {flights}")
    if not 1 <= given.nodes <= 10:
        parser.error(f"--nodes must be from 1 to 10, not {given.nodes}")
    if given.nodes == 1 and not given.no_kill:
        parser.error("a single node cannot be killed and replaced: use --no-kill, or more --nodes")
    if given.out.exists() and not given.out.is_dir():
        parser.error(f"--out {given.out} is not a folder")
    return Options(
        flights=flights,
        nodes=given.nodes,
        kill=not given.no_kill,
        seed=given.seed,
        json=given.json,
        out=given.out.absolute(),
        keep=given.keep,
        database_url=given.database_url,
        redis_url=given.redis_url,
    )


def fail(problem: str) -> NoReturn:
    """Leave with status 2 and one line: something that was given, or that is missing, keeps the demo from running."""
    print(f"flights: {problem}", file=sys.stderr)
    raise SystemExit(2)
