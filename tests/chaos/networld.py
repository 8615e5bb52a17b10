"""The subscriptions on Ray nodes that have a network namespace each: started by ``ray start``, as on real machines."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from headwater.cluster import environment, processes
from headwater.storage.embedded.ports import choose_port
from tests.chaos.hosts import APP, CABLE
from tests.chaos.network import PEERS, SERVERS, Network
from tests.chaos.processes import end, start, start_proxy
from tests.chaos.servers import Servers
from tests.chaos.world import World
from tests.plugins.proxies import through
from tests.plugins.waiting import until

RAY: Final = str(Path(sys.executable).with_name("ray"))
MEMORY: Final = str(80 * 1024 * 1024)


class NetworkWorld(World):
    """A head on this machine's end of the network, and so many nodes behind cables of their own."""

    kind = "network"

    def __init__(self, servers: Servers, name: str, seed: int, nodes: int = 2) -> None:
        super().__init__(servers, name, seed)
        self._number = nodes
        self._running: dict[str, tuple[int, subprocess.Popen[bytes]]] = {}
        self._started = 0

    async def _start(self) -> None:
        self.network = self._stack.enter_context(Network())
        self._ray_folder = Path(tempfile.mkdtemp(prefix="hwn-", dir="/tmp"))
        self._stack.callback(shutil.rmtree, self._ray_folder, ignore_errors=True)
        self._stack.callback(self._end_everything)
        self.url, self.redis_url = self._through_network(self.url), self._through_network(self.redis_url)
        self._ray_environment = {
            **self.environment(),
            **environment.ALWAYS,
            **environment.NO_PROBES,
            "NO_PROXY": "*",
            "no_proxy": "*",
            "RAY_AUTH_MODE": "disabled",
            "HEADWATER_DATABASE_URL": self.url,
        }
        self.port = choose_port(0)
        self._head = self._ray(
            *("--head", f"--port={self.port}", f"--temp-dir={self._ray_folder}", "--include-dashboard=false"),
            *("--num-cpus=0", "--node-name=head", "--labels=headwater-host=no"),
            *(f"--system-config={json.dumps(dict(environment.SYSTEM_CONFIG))}",),
            node=0,
        )
        await self._until_reached()
        for node in range(1, self._number + 1):
            self.network.add(node)
            self._start_node(node)
        command = [sys.executable, "-m", "headwater", "run", APP, "--address", self.address]
        self._driver = start(*command, environment=self._ray_environment, log=self.folder / "driver.log")

    @property
    def address(self) -> str:
        """Where the head is."""
        return f"{self.network.address(PEERS, 0)}:{self.port}"

    @property
    def nodes(self) -> Collection[str]:
        """The nodes whose raylet runs: the program that started it ends with it."""
        return [name for name, (_, process) in self._running.items() if process.poll() is None]

    def number(self, node: str) -> int:
        """Return which namespace a node is in."""
        return self._running[node][0]

    async def repair(self) -> None:
        """Start a node again where one has ended."""
        for name, (number, process) in list(self._running.items()):
            if process.poll() is not None:
                del self._running[name]
                self._start_node(number)

    def _start_node(self, number: int) -> None:
        self._started += 1
        name = f"netnode{self._started}"
        temporary = self._ray_folder / name  # nodes that start at once in one folder get in each other's way
        options = [f"--address={self.address}", f"--node-name={name}", "--num-cpus=1", f"--temp-dir={temporary}"]
        self._running[name] = number, self._ray(*options, node=number)

    def _ray(self, *options: str, node: int) -> subprocess.Popen[bytes]:
        inside = ["ip", "netns", "exec", self.network.space(node)] if node else []
        return start(
            *(*inside, RAY, "start", "--block", "--disable-usage-stats", f"--object-store-memory={MEMORY}"),
            *(f"--node-ip-address={self.network.address(PEERS, node)}", *options),
            environment=self._ray_environment,
            log=self.folder / f"ray{node}.log",
        )

    def _through_network(self, url: str) -> str:
        """Give the nodes a way to a server that listens on loopback only."""
        parts, here = urlsplit(url), self.network.address(SERVERS, 0)
        process, port = start_proxy(CABLE, parts.hostname or "127.0.0.1", str(parts.port), here)
        self._stack.callback(end, process)
        return through(url, (here, port))

    async def _until_reached(self) -> None:
        def reached() -> bool:
            return self._head.poll() is None and _listens(self.network.address(PEERS, 0), self.port)

        await until(reached, deadline=60, what="waiting for the head")

    def _end_everything(self) -> None:
        started = [process for _, process in self._running.values()]
        started += [process for name in ("_driver", "_head") if (process := getattr(self, name, None)) is not None]
        everything = [each for process in started for each in processes.tree(process.pid)]
        processes.send(everything, signal.SIGKILL)
        for process in started:
            end(process)


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


async def wait_for_end(world: NetworkWorld, node: str, seconds: float) -> None:
    """Wait up to so long until a node has ended."""
    with contextlib.suppress(AssertionError):
        await until(lambda: node not in world.nodes, deadline=seconds)
