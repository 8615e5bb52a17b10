"""What the failure policy or the breaker has stopped stays so, whoever owns it, until an operator resumes it."""

from __future__ import annotations

from headwater.cluster.status import PartitionStatus
from tests.integration.host.conftest import Shop
from tests.plugins.waiting import until

PHASES = {"breaks": "paused", "stops": "failed"}


async def by_name(shop: Shop) -> dict[str, PartitionStatus]:
    return {each.subscription: each for each in await shop.client.partitions()}


async def stopped_on(shop: Shop, node: str) -> dict[str, PartitionStatus]:
    async def both_are() -> bool:
        found = await by_name(shop)
        saved = "breaks" in found and found["breaks"].checkpoint == 3  # else what was skipped comes once more
        return saved and {name: (each.phase, each.node) for name, each in found.items()} == {
            name: (phase, node) for name, phase in PHASES.items()
        }

    await until(both_are, what=f"waiting until both are stopped on {node}")
    return await by_name(shop)


async def test_no_later_owner_runs_the_handler_before_an_operator_resumes(shop: Shop) -> None:
    await shop.append(5)
    shop.processes.start("a", app="broken:app")
    first = await stopped_on(shop, "a")
    assert "breaker: 3 events" in (first["breaks"].reason or "")
    assert "position 1 (Placed) failed 2 times: ValueError: no customer of 1" in (first["stops"].reason or "")
    calls = {name: shop.handled(name) for name in PHASES}
    assert calls == {"breaks": [1, 2, 3], "stops": [1, 1]}

    # One is killed where it stands, the next one hands over.
    shop.processes.kill("a")
    shop.processes.start("b", app="broken:app")
    second = await stopped_on(shop, "b")
    assert shop.processes.end("b") == 0

    async def unowned() -> bool:
        return all(each.node is None for each in (await by_name(shop)).values())

    await until(unowned, what="waiting until nobody owns them")
    for name, each in (await by_name(shop)).items():
        assert each.reason == f"no host holds its lease: no host is alive; {PHASES[name]}: {first[name].reason}"
        assert each.since == first[name].since
    shop.processes.start("c", app="broken:app", environment={"MENDED": "1"})
    third = await stopped_on(shop, "c")
    for name in PHASES:
        assert second[name].reason == third[name].reason == first[name].reason
        assert second[name].since == third[name].since == first[name].since
        assert shop.handled(name) == calls[name]
        [audited] = await shop.client.audit(name)
        assert audited.arguments == {"reason": first[name].reason}
        assert audited.issued_by in ("breaker", "failure policy")

    await shop.client.resume("stops")
    await shop.client.resume("breaks")
    await shop.caught_up()
    assert shop.handled("stops") == [1, 1, 1, 2, 3, 4, 5]
    assert shop.handled("breaks") == [1, 2, 3, 4, 5]
    assert [each.verb for each in await shop.client.audit("stops")] == ["resume", "resume", "stop"]


async def test_resumed_while_nobody_owns_it_the_next_owner_begins_with_all_attempts(shop: Shop) -> None:
    await shop.append(1)
    shop.processes.start("a", app="broken:app")
    first = await until(lambda: stopped_at(shop, 2), what="waiting until it is stopped")
    assert first is not None
    shop.processes.kill("a")
    await shop.client.resume("stops")
    shop.processes.start("b", app="broken:app")
    again = await until(lambda: stopped_at(shop, 4), what="waiting until it is stopped again")
    assert again is not None
    assert "failed 2 times: ValueError" in (first.reason or "")
    assert again.reason == first.reason
    assert [each.verb for each in await shop.client.audit("stops")] == ["stop", "resume", "resume", "stop"]


async def stopped_at(shop: Shop, calls: int) -> PartitionStatus | None:
    found = (await by_name(shop)).get("stops")
    if found is None or found.phase != "failed" or len(shop.handled("stops")) < calls:
        return None
    return found
