"""Running a deployment in the foreground: in this process, on Ray nodes of this machine, or on a Ray cluster.

Each way registers the app and runs until it is interrupted. What runs here is handed over before it ends; what runs on
a Ray cluster elsewhere goes on there.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from headwater.cluster.client import Client
from headwater.cluster.local import LocalCluster
from headwater.cluster.options import ClusterOptions
from headwater.cluster.supervisor import NodeFacts
from headwater.cluster.wiring import open_host, open_supervisor
from headwater.storage.errors import ConfigurationError
from headwater.subscriptions.app import App
from headwater.subscriptions.thread import Worker

log = logging.getLogger(__name__)

HAND_OVER_MOST = 30.0
"""How long nodes of this machine may take to hand over, in seconds: drain time-outs bound each handler before that."""
LAST_WORDS = 1.0
"""How long what is left over at the end may take to end by itself, in seconds."""
SUPERVISOR_CHECK = 2.0
"""How often a program that joined a Ray cluster looks whether the supervisor is there, in seconds."""


FIND_TIMEOUT = 5.0
"""How long a Ray head may take to accept a connection, in seconds."""
JOIN_TIMEOUT = 25.0
"""How long a Ray cluster may take to let this program in, in seconds: a busy machine needs a few."""


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run one of the ways below to its end, and then end although handlers that were cancelled go on."""
    with asyncio.Runner() as runner:
        runner.run(work)
        if left := runner.run(_cancel_others()):
            log.error("%d handlers that were cancelled, and go on, are ended with the process", left)
            logging.shutdown()
            sys.stdout.flush()
            os._exit(0)


async def _cancel_others() -> int:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    return len((await asyncio.wait(others, timeout=LAST_WORDS))[1]) if others else 0


class NoNodes:
    """The nodes of a deployment without Ray: every process brings its own host."""

    async def alive(self) -> list[NodeFacts]:
        return []

    async def has_host(self, node: NodeFacts) -> bool:  # noqa: ARG002
        return True

    async def start_host(self, node: NodeFacts) -> None: ...


def mute_pool() -> None:
    """Let the driver's pool not warn of each connection that an outage has ended: the store says once that it waits."""
    logging.getLogger("psycopg.pool").addFilter(lambda record: "discarding closed connection" not in str(record.msg))


async def in_process(app: App | None, options: ClusterOptions, node: str | None = None) -> None:
    """Run a host in this process, and plan while no other process does.

    Several such processes, on whatever machines, share the subscriptions and take over from each other.
    """
    await _register(app, options)
    name = node or socket.gethostname()
    async with (
        open_host(options, name, {}) as host,
        open_supervisor(options, NoNodes()) as supervisor,
        _interrupted() as interrupted,
    ):
        tasks = [asyncio.create_task(work) for work in (host.run(), supervisor.run(), interrupted.wait())]
        print(f"running on {name}", flush=True)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await host.drain()
            await tasks[0]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def on_local_ray(app: App | None, options: ClusterOptions, nodes: int, name: str = "node") -> None:
    """Run on so many Ray nodes of this machine: they hand over and end with this process, at once when asked twice."""
    async with _interrupted() as interrupted, LocalCluster(nodes, name=name) as cluster:
        client = await cluster.deploy(app, options)
        print(f"running on {', '.join(cluster.nodes)}", flush=True)
        await interrupted.wait()
        interrupted.clear()
        hurry = asyncio.create_task(interrupted.wait())
        handing_over = asyncio.gather(
            *[client.drain(node, wait=HAND_OVER_MOST) for node in cluster.nodes], return_exceptions=True
        )
        both: set[asyncio.Future[Any]] = {handing_over, hurry}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for problem in handing_over.result() if handing_over.done() else ():
            if isinstance(problem, Exception):
                log.warning("not handed over: %s", problem)
        hurry.cancel()
        handing_over.cancel()
        await asyncio.gather(hurry, handing_over, return_exceptions=True)


async def on_ray(app: App | None, options: ClusterOptions, address: str) -> None:
    """Run on the Ray cluster at an address, and keep its supervisor there; the hosts go on when this ends."""
    await _find(address)  # before Ray is imported, which takes longer than the answer

    from headwater.cluster import actors

    await _register(app, options)
    await _join(address, actors.connect)
    async with _interrupted() as interrupted:
        print(f"running on {address}", flush=True)
        while not interrupted.is_set():
            await asyncio.to_thread(actors.ensure_supervisor, options, detached=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(interrupted.wait(), SUPERVISOR_CHECK)
    await asyncio.to_thread(actors.disconnect)


async def _find(address: str) -> None:
    """Raise ConfigurationError when nobody listens there: Ray itself would go on trying for a minute."""
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdigit()) or "/" in address:
        return  # "auto", or what only Ray can make something of
    try:
        async with asyncio.timeout(FIND_TIMEOUT):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, OverflowError, TimeoutError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number and number > 0 else str(error) or f"no answer in {FIND_TIMEOUT:g} s"
        raise ConfigurationError(
            f"address: nobody answers at {address!r} ({reason}); name the head of a Ray cluster, HOST:PORT as given to "
            "'ray start --head --port'"
        ) from None
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _join(address: str, connect: Callable[[str], None]) -> None:
    """Join the cluster, in a thread that can be left behind. Raises ConfigurationError."""
    try:
        async with asyncio.timeout(JOIN_TIMEOUT):
            await Worker("headwater-join").run(functools.partial(connect, address))
    except TimeoutError:
        problem = f"{address!r} has not let this program in within {JOIN_TIMEOUT:g} s: is it the head of a Ray cluster?"
        raise ConfigurationError(f"address: {problem}") from None
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigurationError(f"address: Ray cannot join {address!r}: {error}") from error


async def _register(app: App | None, options: ClusterOptions) -> None:
    client = await Client.open(options)
    try:
        if app is not None:
            await client.register(app)
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def _interrupted() -> AsyncIterator[asyncio.Event]:
    """Turn SIGTERM and Ctrl-C into an event for as long as the block lasts."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, event.set)
    try:
        yield event
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
