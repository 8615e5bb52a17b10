"""Headwater's subscriptions where users have them: in a Ray cluster of this machine, handlers named by import path."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks import handlers
from benchmarks.handlers import Note, read_note
from benchmarks.measure import Sample
from headwater.cluster.client import Client
from headwater.cluster.local import LocalCluster
from headwater.cluster.options import ClusterOptions
from headwater.storage.errors import StoreUnavailable
from headwater.storage.options import StoreOptions
from headwater.subscriptions.app import App

PATIENCE: Final = 120.0
POLL: Final = 0.005


class Late(AssertionError):
    """Something that should have come has not."""


class Cluster:
    """A running cluster on one store; each round registers subscriptions of its own."""

    def __init__(self, url: str, local: LocalCluster, options: ClusterOptions, client: Client, folder: Path) -> None:
        self.url = url
        self.local = local
        self.client = client
        self.folder = folder
        self._options = options
        self._rounds = 0

    def name(self, what: str) -> str:
        """Return a name that no round before had."""
        self._rounds += 1
        return f"{what}-{self._rounds}"

    async def register(self, names: list[str], handler: type, **options: Any) -> None:
        """Register subscriptions that share a handler."""
        app = App("benchmarks", database_url=self.url)
        for name in names:
            app.subscription(name, **options)(handler)
        await self.client.register(app)

    async def stop(self, names: list[str]) -> None:
        """Let subscriptions run no longer, and wait until they do not."""
        for name in names:
            await self.client.command(name, "stop")
        mine, deadline = set(names), time.monotonic() + PATIENCE
        while any(p.subscription in mine and p.node is not None for p in await self.client.partitions()):
            if time.monotonic() > deadline:
                raise Late(f"{names} go on although they were stopped")
            await asyncio.sleep(POLL)

    async def catch_up(self, handler: type, events: int, **options: Any) -> Sample:
        """Register a subscription, let it catch up, stop it.

        From the first delivery until the checkpoint of the last event is saved.
        """
        name = self.name("catch-up")
        await self.register([name], handler, **options)
        try:
            note = await self.until_counted([name], events)
            ended = await self._until_saved(name, events)
            return Sample(events, note.events, ended - note.first)
        finally:
            await self.stop([name])

    async def until_counted(self, names: list[str], events: int) -> Note:
        """Wait until each subscription has handled so many events; returns what all of them noted."""
        deadline = time.monotonic() + PATIENCE
        while True:
            notes = [note for name in names if (note := read_note(self.folder, name)) is not None]
            if len(notes) == len(names) and all(note.events >= events for note in notes):
                return Note(min(n.first for n in notes), max(n.last for n in notes), sum(n.events for n in notes))
            if time.monotonic() > deadline:
                raise Late(f"{names}: {notes} after {PATIENCE:g} s")
            await asyncio.sleep(POLL)

    async def until_live(self, names: list[str]) -> None:
        """Wait until every subscription runs and has nothing left to read."""
        mine, deadline = set(names), time.monotonic() + PATIENCE
        while True:
            found = [p for p in await self.client.partitions() if p.subscription in mine]
            if len(found) >= len(names) and all(p.phase == "running" and p.node and not p.lag for p in found):
                return
            if time.monotonic() > deadline:
                raise Late(f"not running: {[p for p in found if p.phase != 'running' or p.lag]}")
            await asyncio.sleep(0.05)

    async def _until_saved(self, name: str, checkpoint: int) -> float:
        deadline = time.monotonic() + PATIENCE
        while any(p.checkpoint < checkpoint for p in await self.client.partitions(name)):
            if time.monotonic() > deadline:
                raise Late(f"the checkpoint of {name} does not get to {checkpoint}")
            await asyncio.sleep(POLL)
        return time.monotonic()


@asynccontextmanager
async def running(url: str, *, nodes: int = 1, redis_url: str | None = None) -> AsyncIterator[Cluster]:
    """Run a cluster on a store that has its tables."""
    options = ClusterOptions.read(StoreOptions(url=url, redis_url=redis_url))
    options = replace(options, import_from=(*options.import_from, str(Path(__file__).parents[2])))
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        # Inherited by every process of the cluster. There may be a cluster around this one.
        before = os.environ.get(handlers.FOLDER)
        os.environ[handlers.FOLDER] = folder
        try:
            async with LocalCluster(nodes) as local:
                client = await local.deploy(App("benchmarks", database_url=url), options)
                await _until_hosts(client, nodes)
                yield Cluster(url, local, options, client, Path(folder))
        finally:
            if before is None:
                del os.environ[handlers.FOLDER]
            else:
                os.environ[handlers.FOLDER] = before


async def _until_hosts(client: Client, nodes: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len({host.node for host in await _hosts(client)}) < nodes:
        if time.monotonic() > deadline:
            raise Late("the cluster's hosts do not come")
        await asyncio.sleep(0.05)


async def _hosts(client: Client) -> list[Any]:
    try:
        return list(await client.hosts())
    except StoreUnavailable:
        return []
