"""Ranges that are replayed, and new versions that take over, by processes that are killed meanwhile."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from headwater import App, InvalidArgument, SubscriptionConflict, SubscriptionOptions
from tests.integration.host.conftest import Shop
from tests.plugins.waiting import until


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
            conn.execute('CREATE TABLE "held" ("name" text, "position" bigint)')

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

    def holds(self, name: str) -> bool:
        """Whether a handler of the subscription has come to a gate that is shut."""
        with psycopg.connect(self._url) as conn:
            return conn.execute('SELECT FROM "held" WHERE "name" = %s', [name]).fetchone() is not None

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


async def test_another_number_of_partitions_waits_for_a_replay_and_one_that_did_not_is_taken_back(
    shop: Shop, readings: Readings
) -> None:
    shop.processes.start("a", app="reader:app")
    await shop.settled("a")
    await shop.append(10)
    await shop.caught_up()
    readings.shut("old", 5)
    await shop.client.replay("old")
    await until(lambda: readings.numbers("old", replaying=True) == [1, 2, 3, 4], what="waiting for the replay")
    for dry_run in (True, False):
        with pytest.raises(SubscriptionConflict, match="until its replay has ended") as refused:
            await shop.client.repartition("old", 3, dry_run=dry_run)
        assert refused.value.wait_for == "replay"
    with psycopg.connect(shop.url) as conn:  # as an older program does, which knows of no replays
        conn.execute('UPDATE "headwater"."subscriptions" SET "repartition_to" = 3 WHERE "name" = \'old\'')

    async def taken_back() -> bool:
        return any((each.outcome or "").startswith("taken back") for each in await shop.client.audit("old"))

    await until(taken_back, what="waiting until the change is taken back")
    readings.open()

    async def done() -> bool:
        return str((await replayed(shop)).outcome) == "replayed 1 to 10"

    await until(done, what="waiting until the partition's owner has ended the replay")
    assert await shop.client.repartition("old", 3, wait=60) == 3
    await shop.append(5)
    await shop.caught_up()
    assert sorted(readings.numbers("old", replaying=False)) == list(range(1, 16))


async def test_a_rewind_that_waits_for_the_handler_while_the_partitions_change_is_not_lost(
    shop: Shop, readings: Readings
) -> None:
    app = App("patient")
    app.register("patient", "reader:Reading", SubscriptionOptions(drain_timeout=timedelta(minutes=5)))
    await shop.client.register(app)
    shop.processes.start("a", app="reader:app")
    await shop.settled("a")
    await shop.append(10)
    await shop.caught_up()
    readings.shut("patient", 11)
    await shop.append(1)
    await until(lambda: readings.holds("patient"), what="waiting until the handler is held up")
    await shop.client.rewind("patient", 3, side_effects=False)
    with pytest.raises(SubscriptionConflict, match="until it was rewound as it was asked to") as refused:
        await shop.client.repartition("patient", 2)
    assert refused.value.wait_for == "rewind"
    with psycopg.connect(shop.url) as conn:  # as an older program does, for which an owner that knew had obeyed
        conn.execute('UPDATE "headwater"."subscriptions" SET "repartition_to" = 2 WHERE "name" = \'patient\'')
    await until(lambda: is_draining(shop), what="waiting until the owner lets go")
    readings.open()
    await until(
        lambda: readings.numbers("patient", replaying=True) == list(range(4, 12)), what="waiting for the rewind"
    )
    assert all(not side_effects for _, replaying, side_effects in readings.rows("patient") if replaying)
    await shop.client.wait_for("patient", 11)
    assert await shop.client.repartition("patient", 2, wait=60) == 2


async def test_a_rewind_is_made_by_the_next_owner_when_the_owner_is_killed_before_it_could_be(
    shop: Shop, readings: Readings
) -> None:
    shop.processes.start("a", "b", app="reader:app")
    await shop.settled("a", "b")
    await shop.append(10)
    await shop.caught_up()
    readings.shut("old", 11)
    await shop.append(1)
    await until(lambda: readings.holds("old"), what="waiting until the handler is held up")
    await shop.client.rewind("old", 3, side_effects=False)
    shop.processes.kill(await owner(shop, "old"))
    assert [each.outcome for each in await shop.client.audit("old")] == [None]
    readings.open()
    await until(
        lambda: readings.numbers("old", replaying=True)[:7] == list(range(4, 11)), what="waiting for the rewind"
    )
    await shop.client.wait_for("old", 11)
    assert [each.outcome for each in await shop.client.audit("old")] == ["rewound to 3"]


async def is_draining(shop: Shop) -> bool:
    return [each.phase for each in await shop.client.partitions("patient")] == ["draining"]


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
