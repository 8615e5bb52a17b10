"""A new version catches up beside an old one and takes over exactly, whoever is killed meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from headwater import App, SubscriptionConflict, SubscriptionOptions
from headwater.cluster.status import ReplacementStatus
from headwater.cluster.succession import CLOSE, REST
from tests.integration.host.conftest import Shop
from tests.integration.host.test_replays import Readings
from tests.plugins.waiting import until

PATIENCE = 90.0
"""Seconds: a version is drained, and its owner killed, several times."""


@pytest.fixture
def readings(shop: Shop) -> Readings:
    return Readings(shop.url)


async def standing(shop: Shop) -> ReplacementStatus:
    return (await shop.client.replacements())[0]


@contextlib.asynccontextmanager
async def appending(shop: Shop) -> AsyncIterator[None]:
    """Append all the time, an event in each turn of the loop; all that was begun is there when the block has ended."""
    ended = False

    async def append() -> None:
        while not ended:
            await shop.append(1)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(append())
    try:
        yield
    finally:
        # Not cancelled: an append that is cut off may be committed later, beyond the head that is asked for then.
        ended = True
        await task


async def far_ahead(shop: Shop) -> None:
    """Let the old version come so far that a new one which is held up cannot take over, however long that lasts."""
    await shop.append(CLOSE + 50)
    await shop.client.wait_for("old", timeout=PATIENCE)


async def is_done(shop: Shop) -> bool:
    return (await standing(shop)).phase == "done"


async def check(shop: Shop, readings: Readings, *, repeated: bool = False) -> None:
    """Nothing is missing and nothing is handled by both: the new version goes on where the old one has ended."""
    head = await shop.store.head()
    [old] = await shop.client.partitions("old")
    boundary = old.checkpoint
    assert (old.phase, old.reason) == ("finished", f"replaced by 'new' after {boundary}")
    await shop.client.wait_for("new", head, timeout=PATIENCE)
    before = readings.numbers("old", replaying=False)
    replayed = readings.numbers("new", replaying=True)
    live = readings.numbers("new", replaying=False)
    if repeated:  # by an owner of the same version, after the one before it was killed
        before, replayed, live = sorted(set(before)), sorted(set(replayed)), sorted(set(live))
    assert before == list(range(1, boundary + 1))
    assert replayed == list(range(1, boundary + 1))
    assert live == list(range(boundary + 1, head + 1))
    assert all(side_effects is not replaying for _, replaying, side_effects in readings.rows("new"))


async def test_a_new_version_takes_over_at_an_exact_position_while_events_keep_coming(
    shop: Shop, readings: Readings
) -> None:
    # Whoever is drained has no handler at a gate: it ends what it has begun, however long it is kept waiting.
    shop.processes.start("a", "b", app="reader:app", environment={"READER_DRAIN_TIMEOUT": "60"})
    await shop.settled("a", "b")
    await far_ahead(shop)
    readings.shut("new", 20)
    async with appending(shop):
        await shop.client.replace("old", "new", handler="reader:Reading")
        shown = (await shop.client.status()).replacing["new"]
        assert "to go" in shown
        await until(lambda: readings.numbers("new", replaying=True)[-1:] == [19], what="waiting for the new version")
        with pytest.raises(SubscriptionConflict, match="already"):
            await shop.client.replace("old", "new")
        readings.open()
        await until(lambda: is_done(shop), deadline=PATIENCE, what="waiting until the new version has taken over")
    await check(shop, readings)
    with pytest.raises(SubscriptionConflict, match="taken over"):
        await shop.client.resume("old")
    verbs = [command.verb for command in await shop.client.audit("new")]
    assert verbs == ["take over", "replace"]


async def test_owners_and_supervisors_may_be_killed_at_any_step(shop: Shop, readings: Readings) -> None:
    shop.processes.start("a", "b", app="reader:app")
    await shop.settled("a", "b")
    await shop.append(30)
    readings.shut("old", 25)
    readings.shut("new", 10)
    async with appending(shop):
        await shop.client.replace("old", "new", handler="reader:Reading")
        await until(lambda: readings.numbers("new", replaying=True)[-1:] == [9], what="waiting for the new version")
        await until(lambda: is_taking_over(shop), deadline=PATIENCE, what="waiting until the old version is stopped")
        shop.processes.kill("a")  # while the one is drained in vain and the other one is held up
        shop.processes.start("a", app="reader:app")
        await until(lambda: both_are_alive(shop), what="waiting for the process that was started again")
        shop.processes.kill("b")
        shop.processes.start("b", app="reader:app")
        await until(lambda: both_are_alive(shop), what="waiting for the process that was started again")
        readings.open()
        await until(lambda: is_done(shop), deadline=PATIENCE, what="waiting until the new version has taken over")
    await check(shop, readings, repeated=True)


async def is_taking_over(shop: Shop) -> bool:
    return (await standing(shop)).phase == "taking over"


async def both_are_alive(shop: Shop) -> bool:
    return {host.node for host in await shop.client.hosts()} == {"a", "b"}


async def test_a_replacement_that_is_cancelled_leaves_the_old_version_at_work(shop: Shop, readings: Readings) -> None:
    shop.processes.start("a", app="reader:app")
    await shop.settled("a")
    await far_ahead(shop)
    readings.shut("new", 5)
    app = App("next")
    app.register("new", "reader:Reading", SubscriptionOptions(replaces="old"))
    await shop.client.register(app)
    await until(lambda: readings.numbers("new", replaying=True) == [1, 2, 3, 4], what="waiting for the new version")
    await shop.client.cancel_replace("new")
    await shop.client.register(app)
    assert (await standing(shop)).phase == "cancelled", "registering the app again does not begin anew"
    await shop.append(5)
    head = await shop.client.wait_for("old", timeout=PATIENCE)
    assert readings.numbers("old", replaying=False) == list(range(1, head + 1))
    [new] = await shop.client.partitions("new")
    assert new.phase in ("stopped", "draining", "running")


async def test_what_could_overlap_or_leave_a_gap_is_refused(shop: Shop, readings: Readings) -> None:
    shop.processes.start("a", app="reader:app")
    await shop.settled("a")
    app = App("others")
    app.register("elsewhere", "reader:Reading", SubscriptionOptions(source="order-1"))
    app.register("wider", "reader:Reading", SubscriptionOptions(partitions=2))
    app.register("ahead", "reader:Reading", SubscriptionOptions(start=100))
    await shop.client.register(app)
    for new, why in [("elsewhere", "reads"), ("ahead", "beyond"), ("old", "itself")]:
        with pytest.raises((SubscriptionConflict, ValueError), match=why):
            await shop.client.replace("old", new)
    with pytest.raises(SubscriptionConflict, match="partitions"):
        await shop.client.replace("wider", "ahead")
    assert await shop.client.replacements() == []
    assert readings.rows("old") == []


async def test_a_version_whose_handler_cannot_be_loaded_never_takes_over(shop: Shop, readings: Readings) -> None:
    shop.processes.start("a", app="reader:app")
    await shop.settled("a")
    await shop.append(3)
    await shop.client.wait_for("old")
    await shop.client.replace("old", "new", handler="reader:Typo")

    async def is_stuck() -> bool:
        [new] = await shop.client.partitions("new")
        return new.phase == "stuck" and "Typo" in (new.reason or "")

    await until(is_stuck, what="waiting until the new version cannot be started")
    await until(lambda: has_run_for(shop, REST + 2), what="waiting until the old version could have been stopped")
    assert (await standing(shop)).phase == "catching up"
    [old] = await shop.client.partitions("old")
    assert old.phase == "running"
    await shop.append(2)
    await shop.client.wait_for("old", timeout=PATIENCE)
    with pytest.raises(SubscriptionConflict, match="already"):
        await shop.client.replace("old", "new", handler="reader:Reading")
    await shop.client.cancel_replace("new")
    assert readings.numbers("old", replaying=False) == [1, 2, 3, 4, 5]


async def has_run_for(shop: Shop, seconds: float) -> bool:
    return (datetime.now(UTC) - (await standing(shop)).since).total_seconds() > seconds
