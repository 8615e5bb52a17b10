"""Machines on one machine: network namespaces with two cables each, one to the other nodes and one to the servers.

Only for root on Linux. Everything is named after this process, so that what a killed run left is found and removed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final, Self

from tests.chaos.processes import gone

PREFIX: Final = "hwchaos"
PEERS, SERVERS = "p", "s"
"""The two networks: between the nodes, and to the servers."""


def _ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True, capture_output=True)


def possible() -> bool:
    """Whether this process may make networks, found out by making one."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    try:
        with Network() as network:
            network.add(1)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def sweep() -> None:
    """Remove the networks of runs that are gone."""
    listed = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    names = [line.split(":")[1].strip().partition("@")[0] for line in listed.splitlines()]
    for name in names:
        if _left_by_a_dead_run(name):
            subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)
    for name in [line.split()[0] for line in spaces.splitlines()]:
        if _left_by_a_dead_run(name):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _left_by_a_dead_run(name: str) -> bool:
    number = name.removeprefix(PREFIX)[:-2] if name.startswith(PREFIX) else ""
    return number.isdecimal() and gone(int(number))


class Network:
    """Two bridges; each node that is added has an end on both. Use it as a context manager."""

    def __init__(self) -> None:
        # A device's name has 15 characters: the prefix, up to six digits, and two more.
        self._mark = f"{PREFIX}{os.getpid() % 1_000_000}"
        self._third = os.getpid() % 250
        self._nodes: list[int] = []

    def __enter__(self) -> Self:
        try:
            sweep()
            for network in (PEERS, SERVERS):
                bridge = self._device(network, 0)
                _ip(f"link add {bridge} type bridge")
                _ip(f"addr add {self.address(network, 0)}/24 dev {bridge}")
                _ip(f"link set {bridge} up")
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def address(self, network: str, node: int) -> str:
        """Return the address of a node in one of the networks; node 0 is this machine."""
        return f"10.{214 if network == PEERS else 215}.{self._third}.{node + 1}"

    def add(self, node: int) -> None:
        """Make the namespace of a node, which is counted from 1, and plug in both of its cables."""
        space = self.space(node)
        self._nodes.append(node)
        _ip(f"netns add {space}")
        _ip(f"-n {space} link set lo up")
        for network in (PEERS, SERVERS):
            here, there = self._device(network, node), f"eth{network}"
            _ip(f"link add {here} type veth peer name {there} netns {space}")
            _ip(f"link set {here} master {self._device(network, 0)} up")
            _ip(f"-n {space} addr add {self.address(network, node)}/24 dev {there}")
            _ip(f"-n {space} link set {there} up")

    def unplug(self, network: str, node: int) -> None:
        """Take a node's cable out."""
        _ip(f"link set {self._device(network, node)} down")

    def plug(self, network: str, node: int) -> None:
        """Put a node's cable in."""
        _ip(f"link set {self._device(network, node)} up")

    def space(self, node: int) -> str:
        """Return the name of a node's namespace."""
        return f"{self._mark}n{node}"

    def reaches(self, node: int, address: str, port: int) -> bool:
        """Whether a program on the node can connect to an address."""
        program = f"import socket; socket.create_connection(({address!r}, {port}), timeout=0.5).close()"
        command = ["ip", "netns", "exec", self.space(node), sys.executable, "-I", "-S", "-c", program]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _device(self, network: str, node: int) -> str:
        return f"{self._mark}{network}{node}"

    def _remove(self) -> None:
        for node in self._nodes:
            for network in (PEERS, SERVERS):
                device = self._device(network, node)
                subprocess.run(["ip", "link", "del", device], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "del", self.space(node)], check=False, capture_output=True)
        self._nodes.clear()
        for network in (PEERS, SERVERS):
            subprocess.run(["ip", "link", "del", self._device(network, 0)], check=False, capture_output=True)
