"""However far a handler is behind, no more events are held than was said."""

from __future__ import annotations

import asyncio

import pytest

from headwater.storage.model import EVERYTHING, EventPage, Filter
from headwater.subscriptions.fanout import SharedReader
from headwater.subscriptions.ports import Delivered
from headwater.subscriptions.runner import SubscriptionRunner
from tests.plugins.waiting import until

from .outside import Calling, ListReader, Outside

MOST = 100


class Counting(ListReader):
    """Counts what it gives out, and how much of that was not settled at the most."""

    def __init__(self, events: int) -> None:
        super().__init__(events)
        self.given = 0
        self.most_held = 0
        self.runner: SubscriptionRunner | None = None

    async def read_page(self, source: str, after: int, limit: int, *, where: Filter = EVERYTHING) -> EventPage:
        page = await super().read_page(source, after, limit, where=where)
        self.given += len(page.events)
        if self.runner is not None:
            # Settled is what the window has let go of; the page itself counts as held from here on.
            settled = self.given - len(page.events) - self.runner.status.unsettled
            self.most_held = max(self.most_held, self.given - settled)
        return page


@pytest.mark.parametrize("consumers", [0, 3])
async def test_a_handler_that_is_slower_than_the_writers_holds_no_more_than_max_in_flight(consumers: int) -> None:
    async def slowly(_: Delivered) -> None:
        reader.append(7)  # the writers are faster: seven events come for each delivery of five
        await asyncio.sleep(0)

    reader = Counting(1000)
    outside = Outside(reader)
    calling = [Calling(slowly) for _ in range(max(1, consumers))]
    runner = reader.runner = await outside.runner(
        *calling, consumers=consumers, batch_size=5, max_in_flight=MOST, read_size=60
    )
    running = asyncio.create_task(runner.run())
    await until(lambda: runner.status.watermark >= 1000)
    assert runner.status.lag > 500
    runner.drain()
    await running
    assert MOST / 2 < reader.most_held <= MOST


async def test_a_key_that_hangs_holds_no_more_than_max_in_flight_of_the_others() -> None:
    async def hang_on_one(delivery: Delivered) -> None:
        if delivery.events[0].stream == "stuck":
            await gate.wait()

    gate = asyncio.Event()
    reader = Counting(0)
    reader.append(1, "stuck")
    reader.append(1900)
    outside = Outside(reader)
    runner = reader.runner = await outside.runner(
        Calling(hang_on_one), Calling(hang_on_one), consumers=2, max_in_flight=MOST, read_size=60
    )
    running = asyncio.create_task(runner.run())
    # Between two deliveries only one is in flight, too: it has come to rest when nothing else is left.
    await until(lambda: runner.status.at_capacity and runner.status.in_flight == runner.status.unsettled == 1)
    assert runner.status.watermark == 0
    gate.set()
    await until(lambda: runner.status.watermark == 1901)
    runner.stop()
    await running
    assert reader.most_held <= MOST


async def test_what_all_subscriptions_share_is_bounded_too() -> None:
    reader = ListReader(0)
    shared = SharedReader(reader, keep=50, page_size=40, max_age=0)
    assert (await shared.read_page("$all", 0, 10)).read_to == 0
    for _ in range(30):
        reader.append(20)
        await shared.read_page("$all", len(reader.events) - 20, 100)
    await shared.close()
    assert shared.kept <= 50
