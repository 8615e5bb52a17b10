"""The breaker on a real runtime: nothing gets through, the handler is mended, and everything goes on in order."""

from __future__ import annotations

from datetime import timedelta

import pytest

from headwater import NewEvent, RecordedEvent, RetryPolicy
from headwater.subscriptions.core.phases import Phase
from headwater.subscriptions.options import SubscriptionOptions
from headwater.subscriptions.testing.runtime import MemoryRuntime
from tests.plugins.waiting import until

ONCE = RetryPolicy(attempts=1, first_delay=timedelta(milliseconds=1))


@pytest.mark.parametrize("consumers", [0, 3])
@pytest.mark.parametrize("streams", [1, 10])
async def test_a_handler_that_never_succeeds_is_paused_and_goes_on_in_order_when_it_is_mended(
    streams: int, consumers: int
) -> None:
    mended = False
    handled: dict[str, list[int]] = {}

    async def handler(event: RecordedEvent) -> None:
        if not mended:
            raise ValueError("no database")
        handled.setdefault(event.stream, []).append(event.version)

    async with MemoryRuntime() as runtime:
        for stream in range(streams):
            await runtime.append(f"s-{stream}", *[NewEvent("Placed", {}) for _ in range(100 // streams)])
        await runtime.run("it", handler, SubscriptionOptions(retry=ONCE, breaker=20, consumers=consumers))
        await until(lambda: runtime.status("it").phase is Phase.PAUSED)
        assert "no database" in (runtime.status("it").reason or "")
        await until(lambda: len(runtime.parked("it")) >= streams, what="waiting until what failed is parked")
        assert runtime.status("it").in_flight == 0
        assert len(runtime.parked("it")) <= 20
        mended = True
        runtime.runner("it").resume()
        runtime.retry_parked("it")
        await until(lambda: sum(map(len, handled.values())) == 100)
        assert all(versions == list(range(1, 100 // streams + 1)) for versions in handled.values())
        assert len(handled) == streams


async def test_a_poisoned_key_that_is_busy_holds_up_no_other_one() -> None:
    handled: list[str] = []

    async def handler(event: RecordedEvent) -> None:
        if event.type == "Poison":
            raise ValueError("poison")
        handled.append(event.stream)

    async with MemoryRuntime() as runtime:
        await runtime.run("it", handler, SubscriptionOptions(retry=ONCE, breaker=20))
        await runtime.append("idle", NewEvent("Placed", {}))
        await runtime.append("busy", NewEvent("Placed", {}), NewEvent("Poison", {}))
        for _ in range(60):
            await runtime.append("busy", NewEvent("Placed", {}))
            await runtime.caught_up()
        await runtime.append("idle", NewEvent("Placed", {}))
        await runtime.caught_up()
        assert handled == ["idle", "busy", "idle"]
        assert len(runtime.parked("it")) == 61
