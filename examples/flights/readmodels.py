"""The app: four subscriptions, each of another kind, that a cluster keeps running.

Nothing here knows of nodes, leases or takeovers: that is what Headwater is for.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from psycopg import AsyncConnection

from examples.flights import traces
from examples.flights.events import ARRIVED, CANCELLED, DEPARTED, DIVERTED, SCHEDULED
from examples.flights.statements import SQL
from headwater import App, Context, Delivery, Filter, RecordedEvent

STORE_SCHEMA: Final = "flights_store"
BATCH: Final = 500

app = App("flights", schema=STORE_SCHEMA)


@app.subscription("delay-statistics", delivery=Delivery.EXACTLY_ONCE, batch_size=BATCH)
async def delay_statistics(events: Sequence[RecordedEvent], context: Context) -> None:
    """Keep the delays of each carrier and month: sums that are added to, in the transaction of the checkpoint.

    The handler has no guard against repeats at all: that its sums are right is Headwater's doing.
    """
    sums: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * 7)
    for event in events:
        data = event.data
        figures = sums[data["carrier"], data["day"][:7]]
        figures[_COUNTED[event.type]] += 1
        if event.type == DEPARTED:
            figures[5] += data["delay"]
        elif event.type == ARRIVED:
            figures[6] += data["delay"] or 0
    carriers, months = zip(*sums, strict=True)
    figures_by_column = [list(column) for column in zip(*sums.values(), strict=True)]
    await context.transaction.execute(SQL["add_delays"], [list(carriers), list(months), *figures_by_column])
    traces.note_first(context, events[-1].position)


_COUNTED: Final = {SCHEDULED: 0, DEPARTED: 1, ARRIVED: 2, CANCELLED: 3, DIVERTED: 4}


@app.subscription(
    "airports",
    where=Filter(types=(DEPARTED, ARRIVED, CANCELLED, DIVERTED)),
    batch_size=BATCH,
    consumers=2,
    partition_by="data.airport",
)
class Airports:
    """Keep the traffic of each airport, on two handler actors; the events of one airport stay in order.

    Delivery is at least once, so each airport remembers the position up to which its events are counted.
    """

    async def start(self) -> None:
        self._connection = await AsyncConnection.connect(app.store_options.url, autocommit=True)

    async def stop(self) -> None:
        await self._connection.close()

    async def handle(self, events: Sequence[RecordedEvent], context: Context) -> None:
        by_airport: defaultdict[str, list[RecordedEvent]] = defaultdict(list)
        for event in events:
            by_airport[event.data["airport"]].append(event)
        names = sorted(by_airport)
        async with self._connection.transaction():
            await self._connection.execute(SQL["open_airports"], [names])
            counted = await (await self._connection.execute(SQL["lock_airports"], [names])).fetchall()
            rows = [(name, *_traffic(by_airport[name], position)) for name, position in counted]
            await self._connection.execute(SQL["add_airports"], [list(column) for column in zip(*rows, strict=True)])
        traces.note_first(context, events[-1].position)


def _traffic(events: Sequence[RecordedEvent], counted_to: int) -> tuple[int, int, int, int, int, int]:
    """Count what is new: departures, arrivals, cancellations, diversions, the position reached, what was not new."""
    new = [event for event in events if event.position > counted_to]
    types = [event.type for event in new]
    counts = (types.count(DEPARTED), types.count(ARRIVED), types.count(CANCELLED), types.count(DIVERTED))
    return *counts, new[-1].position if new else counted_to, len(events) - len(new)


@app.subscription("cancellations", where=Filter(types=(CANCELLED,)))
def cancellations(event: RecordedEvent, context: Context) -> None:
    """Send an alert for each cancelled flight: an effect outside of every database, which a crash may repeat."""
    alert = {"flight": event.data["flight"], "position": event.position, "attempt": context.attempt, "at": time.time()}
    traces.append(traces.ALERTS, [alert])
    traces.note_first(context, event.position)


@app.subscription("diversions", where=Filter(types=(DIVERTED,)), delivery=Delivery.EXACTLY_ONCE, batch_size=BATCH)
async def diversions(events: Sequence[RecordedEvent], context: Context) -> None:
    """List the flights that went elsewhere: plain inserts, which fail when an event is handled twice."""
    rows = [(event.data["flight"], event.position, event.data["dest"], event.data["at"]) for event in events]
    await context.transaction.execute(SQL["add_diversions"], [list(column) for column in zip(*rows, strict=True)])
    traces.note_first(context, events[-1].position)
