"""Each kind of fault once, under load, with a seed: what ``make chaos`` does at length. Times are shown, not judged."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import network
from tests.chaos.campaign import Kind
from tests.chaos.catalogue import EVERYTHING, ON_HOSTS, ON_NETWORK, ON_RAY, possible
from tests.chaos.networld import NetworkWorld
from tests.chaos.processes import ROOT
from tests.chaos.rayworld import RayWorld
from tests.chaos.report import rows, table
from tests.chaos.running import Load, run_part
from tests.chaos.servers import PREFIX, Servers
from tests.chaos.world import PlainWorld, World
from tests.plugins.processes import processes
from tests.plugins.waiting import wait_until

SEED = 20_261_125
LOAD = Load(rate=300)

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


@pytest.fixture
def servers() -> Iterator[Servers]:
    with Servers() as servers:
        yield servers


async def _each_once(world: World, kinds: tuple[Kind, ...]) -> None:
    can, _ = possible(kinds, world)
    part = await run_part(world, kinds, seed=SEED, faults=len(can), load=LOAD)
    print(table(rows([part], EVERYTHING)))
    assert part.verdicts == []
    assert {outcome.kind for outcome in part.outcomes} == {kind.name for kind in can}


async def test_plain_hosts_their_database_and_their_hints_break_and_nothing_is_lost(servers: Servers) -> None:
    await _each_once(PlainWorld(servers, "short", SEED), ON_HOSTS)


async def test_ray_actors_nodes_and_the_head_break_and_nothing_is_lost(servers: Servers) -> None:
    await _each_once(RayWorld(servers, "short", SEED), ON_RAY)


async def test_cables_are_pulled_and_nothing_is_lost(servers: Servers) -> None:
    if not network.possible():
        pytest.skip("network namespaces need root, on Linux")
    await _each_once(NetworkWorld(servers, "short", SEED), ON_NETWORK)


def test_a_run_that_does_not_reach_its_faults_fails() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--on", "hosts", "--only", "Redis flushed", "--events", "0"]
    run = subprocess.run(
        [*command, "--minutes", "1.51", "--faults", "100000"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert (run.returncode, "NOT REACHED" in run.stdout) == (1, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "tests.chaos", "--on", "hosts", "--only", "Redis flushed", "--faults", "100000"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as run:
        assert run.stdout is not None
        while "takeover" not in run.stdout.readline():
            assert run.poll() is None
        run.send_signal(number)
        assert run.wait(timeout=60) == 130
    mark = f"{PREFIX}{run.pid}-"
    assert not list(Path("/tmp").glob(f"{mark}*"))
    mounts = Path("/proc/mounts")
    assert not mounts.exists() or mark not in mounts.read_text()
    wait_until(lambda: not [process for process in processes() if mark in process.command])
