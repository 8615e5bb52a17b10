"""The demo as a command: from the command line to the exit status.

Status 0: everything is right; 1: something is off; 2: it could not run; 130: stopped by Ctrl-C.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile

from rich.console import Console

from examples.flights import traces
from examples.flights.options import Options, fail, parse
from examples.flights.report import PICTURE, REPORT, Report
from examples.flights.servers import Servers, servers
from examples.flights.source import DataMissing, folder
from examples.flights.view import choose_view
from examples.flights.watch import Stuck
from headwater import ConfigurationError, HeadwaterError


def main(arguments: list[str]) -> int:
    """Run the demo; returns the exit status."""
    options = parse(arguments)
    # Being told to end is like Ctrl-C: everything is taken down first.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        folder()
        prepare(options)
        return show(options, run(options))
    except (DataMissing, ConfigurationError) as problem:
        fail(str(problem))
    except (Stuck, HeadwaterError) as problem:
        print(f"flights: {problem}", file=sys.stderr)
        return 1


def prepare(options: Options) -> None:
    """Make the output folder, and find out where temporary ones go.

    That writes a file there for a moment, which an interrupt would leave.
    """
    tempfile.gettempdir()
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"cannot write to {options.out}: {error.strerror}")


def clear(options: Options) -> None:
    """Remove what a run before left in the output folder: the logs would be added to."""
    for name in (traces.ALERTS, traces.FIRSTS, REPORT, PICTURE):
        (options.out / name).unlink(missing_ok=True)


def run(options: Options) -> Report:
    """Start servers and nodes, run the demo on them, and take them down again."""
    # What needs long to load waits until the arguments are known to be good.
    from examples.flights.run import Demo, Stopwatch

    view = choose_view(out=sys.stderr if options.json else sys.stdout)
    stopwatch = Stopwatch()
    with stopwatch.time("total"):
        if not (options.database_url and options.redis_url):
            view.say("Starting PostgreSQL and Valkey ...")
        with servers(options) as up:
            clear(options)
            tell_nodes(options, up)
            report = asyncio.run(Demo(options, up, view, stopwatch).run())
    return report


def tell_nodes(options: Options, up: Servers) -> None:
    """Put the addresses where the app and its handlers look for them, here and on every node."""
    os.environ[traces.FOLDER] = str(options.out)
    os.environ["HEADWATER_DATABASE_URL"] = up.database_url
    os.environ["HEADWATER_REDIS_URL"] = up.redis_url


def show(options: Options, report: Report) -> int:
    """Write the report and the picture, print the result; returns the exit status."""
    from examples.flights.picture import draw

    written = json.dumps(report.as_json(), indent=2)
    (options.out / REPORT).write_text(written + "\n", encoding="utf-8")
    title = f"{options.flights:,} flights of 2013, {report.timeline.total:,} events, {options.nodes} nodes"
    draw(report.timeline, title, options.out / PICTURE)
    if options.json:
        print(written)
    else:
        Console(highlight=False).print(report.as_words(), soft_wrap=True)
    return 1 if report.problems else 0
