"""A host that cannot load a handler keeps nothing from one that can."""

from __future__ import annotations

from tests.integration.host.conftest import Shop
from tests.plugins.waiting import until


async def test_what_a_host_cannot_load_is_handed_over_to_one_that_can(shop: Shop) -> None:
    shop.processes.start("good")
    await shop.settled("good")
    shop.processes.end("good")
    shop.processes.start_bare("bare")

    async def all_are(phase: str, node: str) -> bool:
        return all((p.phase, p.node) == (phase, node) for p in await shop.client.partitions())

    await until(lambda: all_are("stuck", "bare"), what="waiting until the bare one says that it cannot")
    assert all("cannot import" in (p.reason or "") for p in await shop.client.partitions())
    shop.processes.start("good")
    await until(lambda: all_are("running", "good"), what="waiting until the good one runs them")
    await shop.append(20)
    await shop.caught_up()
    await until(lambda: all_are("running", "good"), what="waiting until all are where they were")
