"""Plain hosts, each a process of its own behind a cable of its own, with a wall clock of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

from tests.chaos.clocks import Clocks
from tests.chaos.processes import end, gone, start, start_proxy
from tests.plugins.proxies import through

APP: Final = "tests.chaos.programs.app:app"
CABLE: Final = str(Path(__file__).parent / "programs" / "cable.py")


class EndedByItself(Exception):
    """A host has ended, and nobody has killed it or asked it to end."""


class Cable:
    """The way of one host to the database."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.process, port = start_proxy(CABLE, parts.hostname or "127.0.0.1", str(parts.port))
        self.url = through(url, ("127.0.0.1", port))

    def url_for(self, node: str) -> str:
        """Return the URL for a host, whose sessions say by a setting whose they are."""
        return f"{self.url}?options={quote(f'-c chaos.node={node}')}"

    def cut(self) -> None:
        """Let nothing through, and tell nobody."""
        self.process.send_signal(signal.SIGSTOP)

    def mend(self) -> None:
        """Let everything through, what was held up first."""
        self.process.send_signal(signal.SIGCONT)


class Host:
    """A process that runs subscriptions."""

    def __init__(self, node: str, cable: Cable, process: subprocess.Popen[bytes]) -> None:
        self.node = node
        self.cable = cable
        self.process = process

    @property
    def pid(self) -> int:
        """The process's number."""
        return self.process.pid

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        return gone(self.pid)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def __repr__(self) -> str:
        return f"<Host {self.node} pid={self.pid}>"


class Hosts:
    """So many hosts; one that has ended is replaced by one with another name, behind the same cable."""

    def __init__(
        self, url: str, number: int, environment: Mapping[str, str], folder: Path, clocks: Clocks | None
    ) -> None:
        self._environment = environment
        self._folder = folder
        self._clocks = clocks
        self._cables = [Cable(url) for _ in range(number)]
        self._running: dict[str, Host] = {}
        self._started = 0

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of those that were started and have not been dropped."""
        return tuple(self._running)

    def __getitem__(self, node: str) -> Host:
        return self._running[node]

    def start_missing(self) -> None:
        """Start a host behind each cable that has none; those that were ended are dropped. Raises EndedByItself."""
        for node, host in list(self._running.items()):
            if host.gone:
                end(host.process)
                # Status 2: the database did not answer while it started. What keeps processes would start it again.
                if host.process.returncode not in (0, 2, -signal.SIGKILL):
                    raise EndedByItself(f"{host} ended with status {host.process.returncode}: {self._last_words(node)}")
                del self._running[node]
        used = {host.cable for host in self._running.values()}
        for cable in self._cables:
            if cable not in used:
                self._start(cable)

    def _start(self, cable: Cable) -> None:
        self._started += 1
        node = f"host{self._started}"
        environment = {**self._environment, "HEADWATER_DATABASE_URL": cable.url_for(node)}
        if self._clocks is not None:
            environment |= self._clocks.environment(node)
        process = start(
            sys.executable, "-m", "headwater", "run", APP, "--node", node,
            environment=environment, log=self._folder / f"{node}.log",
        )  # fmt: skip
        self._running[node] = Host(node, cable, process)

    def _last_words(self, node: str) -> str:
        return "\n".join((self._folder / f"{node}.log").read_text(errors="replace").splitlines()[-20:])

    def close(self) -> None:
        """End everything."""
        for host in self._running.values():
            end(host.process)
        for cable in self._cables:
            end(cable.process)
