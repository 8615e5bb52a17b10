"""The tools that break things do what they say."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from headwater.storage.embedded import EmbeddedRedis
from tests.chaos.__main__ import not_reached
from tests.chaos.campaign import schedule
from tests.chaos.catalogue import EVERYTHING, ON_HOSTS
from tests.chaos.clocks import Clocks
from tests.chaos.faults.redis import FlushRedis
from tests.chaos.hosts import CABLE
from tests.chaos.processes import end, frozen, start_proxy
from tests.chaos.programs.liar import Liar, frame
from tests.chaos.rayworld import raylets_of_nodes
from tests.chaos.world import LIAR
from tests.plugins.processes import Process
from tests.plugins.waiting import wait_until

MESSAGE = b">3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$2\r\n42\r\n"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_a_seed_decides_which_faults_are_made_and_each_is_made_once_before_any_twice() -> None:
    number = len(ON_HOSTS)
    first, again, other = (list(islice(schedule(ON_HOSTS, seed), 2 * number)) for seed in (7, 7, 8))
    assert first == again != other
    assert set(first[:number]) == set(first[number:]) == set(ON_HOSTS)


def test_a_node_is_told_by_the_name_that_its_raylet_has_and_not_by_the_order_of_process_numbers() -> None:
    raylet = "/ray/raylet --raylet_socket_name=/tmp/socket"
    processes = [
        Process(400, 1, f"{raylet} --node-name=node-2 --labels="),
        Process(32700, 1, f"{raylet} --node-name=node-1 --labels="),
        Process(32600, 1, f"{raylet} --node-name=head --resources=node:__internal_head__,1"),
        Process(410, 400, "ray::_HostActor"),
        Process(411, 400, f"{raylet} --node-name=node-2 --labels="),  # about to become another worker
    ]
    assert raylets_of_nodes(processes) == {32700: "node-1", 400: "node-2"}


def test_every_fault_has_a_name_of_its_own_and_says_what_it_is() -> None:
    assert len({kind.name for kind in EVERYTHING}) == len(EVERYTHING)
    assert all(kind.what for kind in EVERYTHING)


def test_a_cable_that_is_cut_loses_nothing_and_says_nothing(stack: ExitStack) -> None:
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    cable, port = start_proxy(CABLE, "127.0.0.1", str(server.getsockname()[1]))
    stack.callback(end, cable)
    client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
    far = stack.enter_context(closing(server.accept()[0]))
    client.sendall(b"one")
    assert far.recv(3) == b"one"
    cable.send_signal(signal.SIGSTOP)
    wait_until(lambda: frozen(cable.pid))
    client.sendall(b"two")
    stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))  # taken, by nobody
    far.settimeout(0.2)
    with pytest.raises(TimeoutError):
        far.recv(3)
    far.settimeout(10)
    cable.send_signal(signal.SIGCONT)
    assert far.recv(3) == b"two"


def test_the_liar_finds_where_a_value_ends() -> None:
    assert frame(MESSAGE) == len(MESSAGE)
    assert frame(MESSAGE + b"+OK\r\n") == len(MESSAGE)
    assert [frame(MESSAGE[:end]) for end in range(len(MESSAGE))] == [None] * len(MESSAGE)
    assert frame(b"$-1\r\n") == 5
    assert frame(b"%1\r\n+a\r\n:1\r\nrest") == 12


def test_the_liar_tells_the_truth_until_it_is_asked_to_lie_and_then_every_kind_of_lie(tmp_path: Path) -> None:
    with (tmp_path / "lies").open("w+b") as file:
        liar = Liar(1, file.fileno())
        assert liar.passed(MESSAGE) == MESSAGE
        liar.lying = True
        said = {liar.passed(MESSAGE) for _ in range(100)}
        told = int.from_bytes(os.pread(file.fileno(), 8, 0), "little")
    assert told == 100
    assert {b"", MESSAGE, 3 * MESSAGE} < said
    invented = said - {b"", MESSAGE, 3 * MESSAGE}
    assert len(invented) > 3
    assert all(frame(each) == len(each) for each in invented)


def test_lies_reach_a_listener_and_all_else_is_passed_on(stack: ExitStack, redis_url: str, tmp_path: Path) -> None:
    lies, channel = tmp_path / "lies", f"chaos-{os.getpid()}"
    real = stack.enter_context(redis.Redis.from_url(redis_url))
    liar, port = start_proxy(LIAR, str(real.connection_pool.connection_kwargs["port"]), "3", str(lies))
    stack.callback(end, liar)
    lied_to = stack.enter_context(redis.Redis(port=port))
    listener = stack.enter_context(lied_to.pubsub(ignore_subscribe_messages=True))
    listener.subscribe(channel)
    wait_until(lambda: real.pubsub_numsub(channel) == [(channel.encode(), 1)])

    def told_true() -> bool:
        real.publish(channel, "42")
        message = listener.get_message(timeout=0.1)
        return message is not None and message["data"] == b"42"

    def told_lie() -> bool:
        real.publish(channel, "42")
        message = listener.get_message(timeout=0.1)
        return message is not None and message["data"] != b"42"

    wait_until(told_true)
    liar.send_signal(signal.SIGUSR1)
    wait_until(told_lie)
    assert int.from_bytes(lies.read_bytes(), "little") > 0
    assert lied_to.ping()


async def test_a_flush_has_taken_effect_when_whoever_listened_is_gone_and_not_before(stack: ExitStack) -> None:
    server = stack.enter_context(EmbeddedRedis())
    client = stack.enter_context(redis.Redis.from_url(server.url))
    stack.enter_context(client.pubsub()).subscribe("hint")
    world: Any = SimpleNamespace(servers=SimpleNamespace(redis=server))
    fault = FlushRedis(world, random.Random(1))
    await fault.inject()
    assert fault.thrown_out
    wait_until(lambda: not fault.thrown_out & fault.listeners())
    assert await fault.took_effect()
    stack.enter_context(client.pubsub()).subscribe("hint")
    fault.thrown_out = wait_until(fault.listeners)
    assert not await fault.took_effect()


def test_a_run_must_reach_its_faults_and_its_events() -> None:
    options = Namespace(faults=10, events=100)
    assert not_reached(10, 100, options) is None
    assert all("NOT REACHED" in (not_reached(*made, options) or "") for made in ((9, 100), (10, 99)))


def test_a_stepped_clock_moves_the_time_of_day_and_no_other(tmp_path: Path) -> None:
    clocks = Clocks.make(tmp_path)
    if clocks is None:
        pytest.skip("a stepped clock needs Linux and a C compiler")
    program = "import datetime, time; print(time.time(), datetime.datetime.now().timestamp(), time.monotonic())"

    def times() -> list[float]:
        command = [sys.executable, "-c", program]
        environment = {**os.environ, **clocks.environment("one")}
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        return [float(number) for number in found.split()]

    first = times()
    clocks.step("one", -86_400)
    second = times()
    assert [round((a - b) / 86_400, 1) for a, b in zip(first, second, strict=True)] == [1.0, 1.0, 0.0]
