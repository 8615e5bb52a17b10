"""Several processes on one database share its subscriptions and take over from each other; real signals, no Ray."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC
from pathlib import Path

import pytest

from headwater import App, Delivery, SubscriptionOptions
from tests.integration.host.conftest import SHORT_LEASE, Shop
from tests.plugins.waiting import until


@pytest.mark.parity("L27")
async def test_processes_share_the_partitions_and_handle_everything_once(shop: Shop) -> None:
    shop.processes.start("a", "b")
    await shop.settled("a", "b")
    await shop.append(120)
    await shop.append(30, "invoice-1")
    await shop.caught_up()
    assert shop.handled("exact") == list(range(1, 151))
    assert shop.handled("exact-sync") == list(range(1, 151))
    assert shop.handled("shared") == list(range(1, 121))


async def test_it_is_said_once_that_handler_actors_need_ray(shop: Shop) -> None:
    shop.processes.start("a")
    await shop.settled("a")
    told = [line for line in shop.processes.log("a").splitlines() if "handler actors" in line]
    assert len(told) == 1, "for both partitions together"
    assert told[0].startswith("shop:Shared asks for 2 handler actors: without Ray they are tasks of this process")


async def test_a_killed_process_is_replaced_and_nothing_is_lost_or_repeated(shop: Shop) -> None:
    shop.processes.start("a", "b")
    owners = await shop.settled("a", "b")
    await shop.append(200)
    shop.processes.kill(owners["exact", 0] or "")
    survivor = "b" if owners["exact", 0] == "a" else "a"
    await shop.append(200)
    partitions = await shop.caught_up()
    assert {p.node for p in partitions} == {survivor}
    assert shop.handled("exact") == list(range(1, 401))
    assert shop.handled("exact-sync") == list(range(1, 401))
    assert set(shop.handled("shared")) == set(range(1, 401))


async def test_a_frozen_owner_is_replaced_and_harmless_when_it_thaws(shop: Shop) -> None:
    shop.processes.start("a", "b", environment={"HEADWATER_LEASE": str(SHORT_LEASE)})
    owners = await shop.settled("a", "b")
    frozen = owners["exact", 0] or ""
    shop.processes.signal(frozen, signal.SIGSTOP)
    await shop.append(200)
    await shop.caught_up()
    shop.processes.signal(frozen, signal.SIGCONT)
    await shop.settled("a", "b")
    await shop.append(100)
    await shop.caught_up()
    assert shop.handled("exact") == list(range(1, 301))
    assert shop.handled("exact-sync") == list(range(1, 301))
    assert set(shop.handled("shared")) == set(range(1, 301))


async def test_a_handler_that_keeps_its_event_loop_keeps_nothing_else(shop: Shop, tmp_path: Path) -> None:
    """It is as good as frozen: others take over all that was there."""
    gate = tmp_path / "gate"
    environment = {
        "HEADWATER_LEASE": str(SHORT_LEASE), "HEADWATER_STALL": str(SHORT_LEASE), "BLOCKER_GATE": str(gate),
    }  # fmt: skip
    shop.processes.start("a", "b", app="blocking:app", environment=environment)
    await shop.settled("a", "b")
    await shop.append(1, "stone-1")
    await shop.append(50)
    partitions = await shop.caught_up()
    assert shop.handled("exact") == list(range(1, 52))
    [left] = {"a", "b"} - {p.node for p in partitions}
    assert "keeps_the_loop" in shop.processes.log(left)
    gate.touch()
    await shop.settled("a", "b")


async def test_sigterm_ends_a_process_whose_handler_pays_no_heed(shop: Shop, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    shop.processes.start("a", app="blocking:stubborn_app", environment={"BLOCKER_GATE": str(gate)})
    await shop.append(1)
    await until(gate.exists, what="waiting until the handler is at work")
    assert await asyncio.to_thread(shop.processes.end, "a") == 0
    assert "leaves 1 handlers behind" in shop.processes.log("a")
    [partition] = await shop.client.partitions()
    assert partition.checkpoint == 0


async def test_sigterm_hands_over_and_repeats_nothing(shop: Shop) -> None:
    shop.processes.start("a", "b")
    await shop.settled("a", "b")
    await shop.append(100)
    await shop.caught_up()
    assert shop.processes.end("a") == 0
    await shop.append(100)
    partitions = await shop.caught_up()
    assert {p.node for p in partitions} == {"b"}
    for subscription in ("exact", "exact-sync", "shared"):
        assert shop.handled(subscription) == list(range(1, 201))


async def test_a_process_that_joins_gets_its_share(shop: Shop) -> None:
    shop.processes.start("a")
    await shop.settled("a")
    shop.processes.start("b")
    await shop.settled("a", "b")
    await shop.append(50)
    await shop.caught_up()
    assert shop.handled("exact") == list(range(1, 51))


async def test_an_operator_moves_pauses_and_rewinds_from_anywhere(shop: Shop) -> None:
    shop.processes.start("a", "b")
    owners = await shop.settled("a", "b")
    await shop.append(10)
    await shop.caught_up()
    other = "b" if owners["exact", 0] == "a" else "a"

    await shop.client.move("exact", other)
    await until(lambda: _node_is(shop, other), what="waiting for the move")

    await shop.client.pause("exact", reason="the month is being closed")
    await until(lambda: _phase_is(shop, "paused"), what="waiting for the pause")
    [paused] = await shop.client.partitions("exact")
    asked = (await shop.client.audit("exact", limit=1))[0]
    assert paused.reason is not None
    assert paused.reason.startswith(f"paused by {asked.issued_by} at {asked.issued_at.astimezone(UTC):%Y-%m-%d %H:%M}")
    assert paused.reason.endswith("Z: the month is being closed")
    assert asked.arguments == {"reason": "the month is being closed"}
    await shop.append(10)
    await shop.client.resume("exact")
    await shop.caught_up()
    assert shop.handled("exact") == list(range(1, 21))

    await shop.client.rewind("exact", 15)
    await until(lambda: len(shop.handled("exact")) == 25, what="waiting for the rewind")
    assert [c.verb for c in await shop.client.audit("exact")] == ["rewind", "resume", "resume", "pause", "move"]


@pytest.mark.parity("T190", "T191")
async def test_what_is_deleted_ends_wherever_it_runs_and_its_name_is_free(shop: Shop) -> None:
    shop.processes.start("a", "b")
    await shop.settled("a", "b")
    await shop.append(10)
    await shop.caught_up()
    assert await shop.client.delete("exact")
    assert not await shop.client.delete("exact")
    await shop.append(10)
    partitions = await shop.caught_up()
    assert {p.subscription for p in partitions} == {"exact-sync", "shared"}
    anew = App("anew")
    options = SubscriptionOptions(delivery=Delivery.EXACTLY_ONCE, batch_size=50, start=15)
    anew.register("exact", "shop:exact", options)
    await shop.client.register(anew)
    await shop.caught_up()
    assert shop.handled("exact") == [*range(1, 11), *range(16, 21)]
    assert await shop.client.audit("exact") == []
    for node in ("a", "b"):
        assert "Traceback" not in shop.processes.log(node)


async def test_a_drained_node_ends_and_another_one_goes_on(shop: Shop) -> None:
    shop.processes.start("a", "b")
    await shop.settled("a", "b")
    assert await shop.client.drain("a", wait=20)
    await shop.settled("b")
    assert [host.node for host in await shop.client.hosts()] == ["b"]


async def _node_is(shop: Shop, node: str) -> bool:
    return (await shop.owners())["exact", 0] == node


async def _phase_is(shop: Shop, phase: str) -> bool:
    return (await shop.client.partitions("exact"))[0].phase == phase
