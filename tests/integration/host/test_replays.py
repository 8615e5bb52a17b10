"""Ranges that are replayed, and new versions that take over, by processes that are killed meanwhile."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from headwater import InvalidArgument
from tests.integration.host.conftest import Shop
from tests.plugins.waiting import until

pytestmark = pytest.mark.xdist_group("host-replays")


class Readings:
    """What the handlers noted, and the gates that hold them up."""

    def __init__(self, url: str) -> None:
        self._url = url
        with psycopg.connect(url) as conn:
            conn.execute(
                'CREATE TABLE "readings" ("subscription" text, "position" bigint, "replaying" boolean,'
                ' "side_effects" boolean, "process" integer)'
            )
            conn.execute('CREATE TABLE "gate" ("name" text, "position" bigint)')

    def rows(self, subscription: str) -> list[tuple[int, bool, bool]]:
        query = 'SELECT "position", "replaying", "side_effects" FROM "readings" WHERE "subscription" = %s'
        with psycopg.connect(self._url) as conn:
            return [(p, r, s) for p, r, s in conn.execute(query, [subscription]).fetchall()]

    def numbers(self, subscription: str, *, replaying: bool) -> list[int]:
        return [position for position, flag, _ in self.rows(subscription) if flag is replaying]

    def shut(self, name: str, position: int) -> None:
        """Let a subscription handle nothing from this position on."""
        with psycopg.connect(self._url) as conn:
            conn.execute('INSERT INTO "gate" VALUES (%s, %s)', [name, position])

    def open(self) -> None:
        with psycopg.connect(self._url) as conn:
            conn.execute('DELETE FROM "gate"')


@pytest.fixture
def readings(shop: Shop) -> Readings:
    return Readings(shop.url)


async def owner(shop: Shop, name: str) -> str:
    [found] = await shop.client.partitions(name)
    assert found.node is not None
    return found.node


async def test_a_range_is_replayed_beside_the_live_delivery_and_goes_on_when_its_owner_is_killed(
    shop: Shop, readings: Readings
) -> None:
    shop.processes.start("a", "b", app="reader:app")
    await shop.settled("a", "b")
    await shop.append(30)
    await shop.caught_up()
    with pytest.raises(InvalidArgument, match="nothing after 30"):
        await shop.client.replay("old", 31)
    readings.shut("old", 20)
    (command_id,) = await shop.client.replay("old", 11, 25, side_effects=False)

    async def half_done() -> bool:
        return readings.numbers("old", replaying=True)[-1:] == [19] and (await replayed(shop)).checkpoint >= 15

    await until(half_done, what="waiting until the replay is held up")
    shop.processes.kill(await owner(shop, "old"))
    readings.open()

    async def done() -> bool:
        return (await replayed(shop)).outcome is not None

    await until(done, what="waiting until the next owner has ended the replay")
    found = await replayed(shop)
    assert (found.command_id, found.outcome, found.checkpoint) == (command_id, "replayed 11 to 25", 25)
    assert set(readings.numbers("old", replaying=True)) == set(range(11, 26))
    assert all(not side_effects for _, replaying, side_effects in readings.rows("old") if replaying)
    await shop.append(5)
    await shop.caught_up()
    assert readings.numbers("old", replaying=False) == list(range(1, 36)), "the live delivery knows nothing of it"


async def replayed(shop: Shop) -> Any:
    return (await shop.client.replays("old"))[0]


async def test_a_replay_ends_where_it_is_when_it_is_cancelled(shop: Shop, readings: Readings) -> None:
    shop.processes.start("a", app="reader:app")
    await shop.settled("a")
    await shop.append(10)
    await shop.caught_up()
    readings.shut("old", 5)
    await shop.client.replay("old")
    await until(lambda: readings.numbers("old", replaying=True) == [1, 2, 3, 4], what="waiting for the replay")
    await shop.client.cancel_replays("old")

    async def ended() -> bool:
        return (await replayed(shop)).outcome is not None

    await until(ended, what="waiting until the replay has ended")
    assert (await replayed(shop)).outcome.startswith("cancelled by ")


async def test_a_rewind_of_a_single_stream_to_a_time_counts_its_versions(shop: Shop, readings: Readings) -> None:
    shop.processes.start("a", app="reader:app")
    await shop.settled("a")
    await shop.append(4)
    await shop.append(6, stream="order-2")
    await shop.caught_up()
    when = (await shop.store.read("order-2"))[0].created_at
    assert await shop.client.rewind("old", when, side_effects=False) == 4
    await until(lambda: len(readings.numbers("old", replaying=True)) == 6, what="waiting for the rewind")
    assert readings.rows("old")[10:] == [(n, True, False) for n in range(5, 11)]
