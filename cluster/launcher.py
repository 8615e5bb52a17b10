"""The process that owns a local Ray cluster: ``python -m headwater.cluster.launcher FOLDER``.

Apart from its owner, so that Ray's signal handlers, its noise and its way of ending a program stay in here. It obeys
requests on its standard input, answers each on its standard output, and ends, with everything that it started and with
the folder, when that input ends: however its owner ended. Both ways a line is a value: see ``encode``.
"""

from __future__ import annotations

import base64
import os
import pickle
import selectors
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from headwater.cluster import environment, processes
from headwater.storage.errors import ConfigurationError

REAP_INTERVAL = 0.1
REMOVE_SECONDS, REMOVE_PAUSE = 2.0, 0.02


def main() -> None:
    """Serve one owner."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever Ray prints must not look like an answer
    folder = sys.argv[1]
    os.environ["RAY_TMPDIR"] = folder
    os.environ.update(environment.persistence(f"{folder}/gcs"))
    environment.prepare(local=True)
    from headwater.cluster.actors import LocalRay, ensure_supervisor

    ray: LocalRay | None = None
    try:
        ray = LocalRay()
        verbs: dict[str, Callable[..., Any]] = {
            "add": ray.add_node,
            "wait": ray.wait_for_nodes,
            "supervise": lambda options: ensure_supervisor(options, detached=False),
        }
        answers.write(encode(None))
        for line in _lines(ray.reap):
            verb, *arguments = decode(line)
            try:
                answer: Any = verbs[verb](*arguments)
            except Exception as error:  # noqa: BLE001  whatever Ray raises is the owner's to judge
                answer = ConfigurationError(f"the local cluster cannot {verb}: {type(error).__name__}: {error}")
            answers.write(encode(answer))
    finally:
        if ray is not None:
            ray.shutdown()
        # What was started when a start failed is in nobody's books.
        processes.send(processes.tree(os.getpid())[1:], signal.SIGKILL)
        remove(folder)


def remove(folder: str | Path) -> None:
    """Delete a folder, again while something that was just killed still writes to it."""
    deadline = time.monotonic() + REMOVE_SECONDS
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.lexists(folder) or time.monotonic() > deadline:
            return
        time.sleep(REMOVE_PAUSE)


def encode(value: Any) -> str:
    """Write a value as a line. Both ends are the same program on the same machine, so a pickle will do."""
    return base64.b64encode(pickle.dumps(value)).decode() + "\n"


def decode(line: bytes) -> Any:
    """Read a value from a line."""
    return pickle.loads(base64.b64decode(line))  # noqa: S301  the other end of this pipe is this program


def _lines(meanwhile: Callable[[], None]) -> Iterator[bytes]:
    """Yield lines of standard input, doing something else in between."""
    os.set_blocking(0, False)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    buffer = b""
    while True:
        meanwhile()
        if not selector.select(REAP_INTERVAL):
            continue
        chunk = os.read(0, 65536)
        if not chunk:
            return
        *lines, buffer = (buffer + chunk).split(b"\n")
        yield from lines


if __name__ == "__main__":
    main()
