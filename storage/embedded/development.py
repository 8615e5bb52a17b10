"""The servers of a developer: kept in a folder, on ports that stay the same, until they are interrupted."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from headwater.storage.embedded.postgres import EmbeddedPostgres
from headwater.storage.embedded.redis import EmbeddedRedis
from headwater.storage.errors import ConfigurationError

FOLDER: Final = ".headwater"
POSTGRES_PORT: Final = 55432
REDIS_PORT: Final = 56379


@contextmanager
def development_servers(
    folder: str | os.PathLike[str] = FOLDER, postgres_port: int = POSTGRES_PORT, redis_port: int = REDIS_PORT
) -> Iterator[tuple[EmbeddedPostgres, EmbeddedRedis]]:
    """Start Postgres on the data in ``folder``, and Valkey; stop them at the end. Raises ConfigurationError."""
    with ExitStack() as stack:
        postgres = stack.enter_context(EmbeddedPostgres(Path(folder, "postgres"), postgres_port))
        # Nobody wants a database in their repository.
        with contextlib.suppress(FileExistsError), Path(folder, ".gitignore").open("x") as file:
            file.write("*\n")
        yield postgres, stack.enter_context(EmbeddedRedis(redis_port))


def serve(
    folder: str | os.PathLike[str] = FOLDER,
    postgres_port: int = POSTGRES_PORT,
    redis_port: int = REDIS_PORT,
    say: Callable[[str], None] = print,
) -> None:
    """Run a developer's servers, say where they are, and return when interrupted (Ctrl-C). For the main thread only.

    Raises ConfigurationError when one cannot start (port in use, data of another PostgreSQL version, folder not
    writable or in use), or ends by itself.
    """
    with _interrupts() as interrupted, development_servers(folder, postgres_port, redis_port) as servers:
        postgres, redis = servers
        # As a shell takes them: they are there to be pasted.
        say(f"export HEADWATER_DATABASE_URL={shlex.quote(postgres.url)}")
        say(f"export HEADWATER_REDIS_URL={shlex.quote(redis.url)}")
        say(f"The data is in {Path(folder).absolute()}. Stop with Ctrl-C.")
        while not interrupted.wait(0.5):
            for server in servers:
                if not server.running:
                    raise ConfigurationError(f"{server.name} has ended by itself{server.log_tail()}")


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Turn Ctrl-C and polite termination into an event, so that neither tears a start or a stop apart."""
    interrupted = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda *_: interrupted.set())
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
