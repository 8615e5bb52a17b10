"""A stored subscription that cannot be read stops no other, and operators are told of it."""

from __future__ import annotations

from typing import Any

from headwater.storage.postgres.registry import Registry
from tests.integration.host.conftest import Shop
from tests.plugins.waiting import until

GOOD: dict[str, Any] = {"delivery": "exactly-once", "batch_size": 50}


async def test_what_cannot_be_read_is_stuck_with_its_reason_and_the_others_run(shop: Shop) -> None:
    registry = Registry(shop.store.pool, shop.store.sql, shop.store)
    unreadable: dict[str, Any] = {
        "dict": {"labels": {"zone": "a"}},
        "letters": {"labels": {"ab": "c"}},
        "newer": {"warp_factor": 9},
        "nowhere": {"retry": {"never": ["no.such.module:Error"]}},
    }
    for name, options in unreadable.items():
        await registry.register(name, "shop:exact", options)
    shop.processes.start("a")
    await shop.append(10)
    phases: dict[str, str] = {}

    async def all_told() -> bool:
        phases.update({p.subscription: p.phase for p in await shop.client.partitions()})
        return all(phases[name] == "stuck" for name in unreadable) and set(phases.values()) == {"stuck", "running"}

    await until(all_told, what=f"waiting until it is told what is stuck: {phases}")
    stuck = {p.subscription: p.reason or "" for p in await shop.client.partitions() if p.phase == "stuck"}
    assert stuck.keys() == unreadable.keys()
    assert all("options cannot be read" in reason for reason in stuck.values())
    assert "labels" in stuck["dict"]
    assert "warp_factor" in stuck["newer"]
    assert "Traceback" not in shop.processes.log("a")

    for name in unreadable:
        await registry.register(name, "shop:exact", GOOD)
    await shop.caught_up()
    # The mended ones have the handler of another one: it has handled everything once for each.
    assert shop.handled("exact") == sorted([*range(1, 11)] * (1 + len(unreadable)))
