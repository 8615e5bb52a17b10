"""What is seen of the subscriptions from outside."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from examples.flights.observe import Observer


class Shown:
    """What operators are shown: the owner and the standby of each subscription."""

    def __init__(self, *places: tuple[str | None, str | None]) -> None:
        self._places = places

    async def partitions(self) -> list[Any]:
        return [SimpleNamespace(node=node, standby=standby) for node, standby in self._places]


@pytest.mark.parametrize(
    ("nodes", "places", "settled"),
    [
        ("ab", [("a", "b"), ("b", "a")], True),
        ("ab", [("a", "b"), (None, "a")], False),
        ("ab", [("a", "b"), ("b", None)], False),
        ("ab", [("a", "b")], False),
        ("ab", [("a", "b"), ("a", "b")], False),  # one of them will move to b
        ("abc", [("a", "b"), ("b", "a")], True),
        ("a", [("a", None), ("a", None)], True),
    ],
)
async def test_the_subscriptions_are_settled_once_the_nodes_share_them(
    nodes: str, places: list[tuple[str | None, str | None]], settled: bool
) -> None:
    shown: Any = Shown(*places)
    assert await Observer(shown, shown, ["one", "two"]).settled(tuple(nodes)) is settled
