"""The demo from start to end: servers and nodes up, flights in, a node killed, everything compared.

Only puts the parts together; each of them is in a module of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final

from examples.flights.check import check
from examples.flights.events import in_order
from examples.flights.expected import Expected, expect
from examples.flights.feed import feed
from examples.flights.flight import parse
from examples.flights.observe import Observer
from examples.flights.options import Options
from examples.flights.readmodels import STORE_SCHEMA, app
from examples.flights.report import Report
from examples.flights.servers import Servers
from examples.flights.source import rows
from examples.flights.timeline import Timeline
from examples.flights.view import View, clock
from examples.flights.watch import Stuck, Watch
from headwater import EventStore, connect
from headwater.cluster.local import LocalCluster

AHEAD: Final = 20_000
"""How many events the feed may be ahead of the slowest subscription: what keeps the demo a live one."""
SETTLE_SECONDS: Final = 120.0
"""How long the nodes may take to share the subscriptions among them."""


@dataclass
class Stopwatch:
    """How long each part took."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Add up the time of a part."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.monotonic() - began


class Demo:
    """One run, on servers that are up."""

    def __init__(self, options: Options, servers: Servers, view: View, stopwatch: Stopwatch) -> None:
        self._options = options
        self._servers = servers
        self._view = view
        self._stopwatch = stopwatch
        self._fed = 0
        self._killed = asyncio.Event()

    async def run(self) -> Report:
        """Run everything, and take the nodes down again. Raises Stuck."""
        async with AsyncExitStack() as stack:
            nodes = "one Ray node" if self._options.nodes == 1 else f"{self._options.nodes} Ray nodes"
            self._view.say(f"{self._servers.description} and Valkey are up; starting {nodes} ...")
            with self._stopwatch.time("start"):
                expecting = asyncio.create_task(asyncio.to_thread(self._expect))
                store = await stack.enter_async_context(connect(schema=STORE_SCHEMA, migrate=True))
                cluster = await stack.enter_async_context(LocalCluster(self._options.nodes))
                client = await cluster.deploy(app)
                expected = await expecting
                observer = Observer(client, store, [registration.name for registration in app.registrations])
                await self._until_shared_out(observer, cluster.nodes)
            timeline = Timeline(expected.total_events)
            self._view.say(
                f"{len(app.registrations)} subscriptions run on {nodes}. "
                f"{self._options.flights:,} flights are {timeline.total:,} events."
            )
            watch = Watch(observer, timeline, self._options.out)
            with self._view:
                await self._feed_and_watch(cluster, store, watch, timeline)
            self._view.say("Everything is handled; comparing, and taking the nodes down ...")
            with self._stopwatch.time("check"):
                comparisons = await check(self._servers.database_url, self._options.out, expected)
        return Report(
            options=self._options,
            timeline=timeline,
            events=expected.events,
            comparisons=comparisons,
            seconds=self._stopwatch.seconds,
            servers=self._servers.description,
        )

    def _expect(self) -> Expected:
        return expect(rows(self._options.flights, self._options.seed))

    async def _until_shared_out(self, observer: Observer, nodes: Sequence[str]) -> None:
        """Wait until the nodes share the subscriptions, and none is on the move. Raises Stuck."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while not await observer.settled(nodes):
            if time.monotonic() > deadline:
                raise Stuck(f"the nodes have not shared out the subscriptions after {SETTLE_SECONDS:.0f} s")
            await asyncio.sleep(0.1)

    async def _feed_and_watch(self, cluster: LocalCluster, store: EventStore, watch: Watch, timeline: Timeline) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(self._watch(cluster, watch, timeline))
                if self._options.kill:
                    tasks.create_task(self._kill_half_way(cluster, watch, timeline))
                with self._stopwatch.time("feed"):
                    await self._feed(store, watch, timeline)
                with self._stopwatch.time("catch-up"):
                    await watching
        except ExceptionGroup as group:
            # The first thing that went wrong is what there is to say; the rest was cancelled for it.
            raise group.exceptions[0] from group

    async def _feed(self, store: EventStore, watch: Watch, timeline: Timeline) -> None:
        async def wait_for_room() -> None:
            await watch.until(lambda sample: self._fed - sample.slowest <= AHEAD)
            if self._options.kill and self._fed >= timeline.total / 2:
                # A takeover is seen by what is handled after it: the rest comes once the node is dead.
                await self._killed.wait()

        flights = (parse(row) for row in rows(self._options.flights, self._options.seed))
        async for appended in feed(store, in_order(flights), wait_for_room):
            self._fed += appended

    async def _watch(self, cluster: LocalCluster, watch: Watch, timeline: Timeline) -> None:
        told: set[str] = set()
        async for _ in watch.until_finished():
            for name in timeline.takeovers.keys() - told:
                told.add(name)
                self._view.say(f"{clock(watch.now())}  {name} went on after {timeline.takeovers[name]:.2f} s")
            self._view.show(timeline, cluster.nodes)

    async def _kill_half_way(self, cluster: LocalCluster, watch: Watch, timeline: Timeline) -> None:
        """Kill the node that owns most of the work when half of the events are stored."""
        sample = await watch.until(lambda sample: sample.head >= timeline.total / 2)
        busiest = max(cluster.nodes, key=sample.work_of)
        kill = watch.killed(busiest)
        await cluster.kill_node(busiest)
        self._killed.set()
        self._view.say(f"{clock(kill.at)}  {busiest} killed with SIGKILL; it owned {', '.join(kill.owned)}")
