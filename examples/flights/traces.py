"""Lines appended to files in the run's folder: what handlers leave for the outside, and for the measurements.

Each line is one write, so that a process that is killed leaves whole lines or none.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from headwater import Context

FOLDER: Final = "FLIGHTS_FOLDER"
"""The environment variable that tells handlers, on every node, where the run's folder is."""

ALERTS: Final = "cancellations.log"
"""One line for each alert about a cancelled flight: the outside effect that at-least-once delivery may repeat."""
FIRSTS: Final = "first-deliveries.log"
"""One line for each time that a process began to handle a subscription under a new grant."""

_begun: set[tuple[str, int, int, int]] = set()


def append(name: str, lines: list[Mapping[str, Any]]) -> None:
    """Append lines to a file of the run's folder."""
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    file = os.open(Path(os.environ[FOLDER], name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def read(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """Yield the lines of a file; none when nothing was ever written."""
    path = folder / name
    if path.exists():
        with path.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def note_first(context: Context, position: int) -> None:
    """Note when this process handled its first event under this grant: what the time of a takeover is taken from."""
    grant = (context.subscription, context.partition, context.epoch, context.consumer)
    if grant not in _begun:
        _begun.add(grant)
        line = {"subscription": context.subscription, "partition": context.partition, "epoch": context.epoch}
        append(FIRSTS, [{**line, "consumer": context.consumer, "position": position, "at": time.time()}])
