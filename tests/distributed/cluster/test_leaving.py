"""``headwater run --nodes`` hands over before it ends."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headwater import NewEvent, connect
from headwater.cluster.client import Client
from headwater.cluster.options import ClusterOptions
from headwater.storage.options import StoreOptions
from tests.plugins.waiting import until

HERE = Path(__file__).parent


@contextmanager
def running_on_ray(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the app on a Ray node of its own."""
    command = [sys.executable, "-m", "headwater", "run", "leaving:app", "--nodes", "1"]
    with log.open("wb") as out, subprocess.Popen(command, cwd=HERE, stdout=out, stderr=out) as running:
        try:
            yield running
        finally:
            running.kill()


def begun(gate: Path) -> list[str]:
    """Return a name for each event that the handler has begun."""
    return [path.name for path in gate.parent.glob(f"{gate.name}.begun-*")]


@pytest.mark.slow
async def test_nodes_that_end_with_their_program_finish_what_they_have_begun(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    monkeypatch.setenv("HEADWATER_DATABASE_URL", database_url)
    monkeypatch.setenv("HEADWATER_LEASE", "10")
    monkeypatch.setenv("LEAVING_GATE", str(gate))
    options = ClusterOptions(store=StoreOptions(url=database_url))
    async with connect() as store, await Client.open(options) as client:
        await store.append("order-1", [NewEvent("Placed", {}), NewEvent("Placed", {})])

        async def leaving() -> bool:
            return all(host.draining for host in await client.hosts())

        with running_on_ray(tmp_path / "log") as running:
            await until(lambda: begun(gate), deadline=90, what="waiting for the first event")
            running.send_signal(signal.SIGTERM)
            await until(leaving, what="waiting until the node leaves")
            gate.touch()
            assert await asyncio.to_thread(running.wait, 60) == 0
        [partition] = await client.partitions()
        assert partition.checkpoint == len(begun(gate)) > 0
        assert partition.redelivered == 0
