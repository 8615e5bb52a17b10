"""A cluster of several nodes on this machine: for development, the demo and the tests.

Imports no Ray: a launcher process owns the cluster, and this end only tells it what to do.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from headwater.cluster import launcher, processes
from headwater.cluster.client import Client
from headwater.cluster.options import ClusterOptions
from headwater.storage.errors import ConfigurationError, InvalidArgument
from headwater.subscriptions.app import App

STOP_TIMEOUT = 5.0
"""How long the cluster may take to stop before its processes are killed."""


class LocalCluster:
    """Worker nodes on loopback, and a head that hosts nothing.

    Its nodes are called ``name-1``, ``name-2`` and so on: clusters that share a store need names of their own.

    Use it as an async context manager. Leaving it, or the end of this process in whatever way, ends every process that
    it started.
    """

    def __init__(self, nodes: int = 3, *, cpus_per_node: float = 1, name: str = "node") -> None:
        if nodes < 1:
            raise InvalidArgument("nodes", "a cluster has at least one")
        self._first_nodes = nodes
        self._cpus = cpus_per_node
        self._name = name
        self._raylets: dict[str, int] = {}
        self._started = 0
        self._folder = Path()
        self._launcher: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._client: Client | None = None

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes that were started and not killed."""
        return tuple(self._raylets)

    @property
    def folder(self) -> Path:
        """Where Ray's logs and sockets are, as long as the cluster is there."""
        return self._folder

    async def __aenter__(self) -> Self:
        # A short path, because sockets are made below it: a Mac's own temporary folder is not short enough.
        self._folder = Path(tempfile.mkdtemp(prefix="hw-", dir="/tmp"))
        try:
            with (self._folder / "launcher.log").open("wb") as log:
                self._launcher = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "headwater.cluster.launcher", str(self._folder)),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                    # What is sent to this program's whole group, like Ctrl-C, must not meet Ray as it starts:
                    # the launcher ends with this program, and then in good order.
                    start_new_session=True,
                )
            await self._answer("start")
            for _ in range(self._first_nodes):
                await self._start_node()
            await self._ask("wait")
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(asyncio.ensure_future(self._stop()))

    async def deploy(self, app: App | None, options: ClusterOptions | None = None) -> Client:
        """Register an app's subscriptions and see to it that this cluster runs them; returns the operator's API.

        Also runs whatever else is registered in the same store. ``options`` default to the app's addresses.
        """
        if options is None:
            if app is None:
                raise InvalidArgument("options", "without an app they must say where the store is")
            options = ClusterOptions.read(app.store_options)
        options = options.of_app(app)
        if self._client is None:
            self._client = await Client.open(options)
        if app is not None:
            await self._client.register(app)
        await self._ask("supervise", options)
        return self._client

    async def owners(self) -> dict[tuple[str, int], str | None]:
        """Return the node that owns each partition now."""
        if self._client is None:
            return {}
        return {(p.subscription, p.partition): p.node for p in await self._client.partitions()}

    async def add_node(self) -> str:
        """Start one more node; returns its name."""
        name = await self._start_node()
        await self._ask("wait")
        return name

    async def kill_node(self, name: str) -> None:
        """Kill every process of a node at once, by SIGKILL."""
        self.signal_node(name, signal.SIGKILL)
        del self._raylets[name]

    def signal_node(self, name: str, number: signal.Signals) -> None:
        """Send a signal to every process of a node: SIGSTOP and SIGCONT freeze and thaw it."""
        if name not in self._raylets:
            raise InvalidArgument("node", f"there is no node {name!r}; there are {', '.join(self._raylets)}")
        processes.send(processes.tree(self._raylets[name]), number)

    async def _start_node(self) -> str:
        self._started += 1
        name = f"{self._name}-{self._started}"
        self._raylets[name] = await self._ask("add", name, self._cpus)
        return name

    async def _ask(self, verb: str, *arguments: Any) -> Any:
        assert self._launcher is not None
        assert self._launcher.stdin is not None
        async with self._turn:
            self._launcher.stdin.write(launcher.encode((verb, *arguments)).encode())
            return await self._answer(verb)

    async def _answer(self, verb: str) -> Any:
        assert self._launcher is not None
        assert self._launcher.stdout is not None
        line = await self._launcher.stdout.readline()
        if not line:
            raise ConfigurationError(f"the local cluster ended at {verb!r}: {self._last_words()}")
        answer = launcher.decode(line)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _last_words(self) -> str:
        lines = (self._folder / "launcher.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    async def _stop(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None
        if self._launcher is not None:
            assert self._launcher.stdin is not None
            everything = await asyncio.to_thread(processes.tree, self._launcher.pid)
            self._launcher.stdin.close()
            try:
                await asyncio.wait_for(self._launcher.wait(), STOP_TIMEOUT)
            except TimeoutError:
                self._launcher.kill()
                await self._launcher.wait()
            await asyncio.to_thread(processes.send, everything, signal.SIGKILL)
            self._launcher = None
        await asyncio.to_thread(launcher.remove, self._folder)

    def __repr__(self) -> str:
        return f"<LocalCluster {', '.join(self._raylets) or 'stopped'} pid={os.getpid()}>"
