"""How often a wait looks, whatever it waits for."""

from __future__ import annotations

import pytest

from headwater.storage.errors import WaitTimedOut
from headwater.storage.waiting import Standing, Trouble, wait_for


async def test_a_wait_looks_at_most_fifty_times_a_second() -> None:
    looks = 0

    async def look(subscription: str, position: int) -> list[Standing]:
        nonlocal looks
        looks += 1
        return [Standing(0, 3, "$all", deleted=False, target=position, same_stream=True, reached=True)]

    async def explain(subscription: str, partition: int) -> Trouble:
        return Trouble("running", None, 1)

    with pytest.raises(WaitTimedOut):
        await wait_for(look, explain, "totals", 4, 0.5)
    assert 2 <= looks <= 25 + 3, "the first pauses are shorter, and the last look is at the end"
