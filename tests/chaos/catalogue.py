"""Every kind of fault, and in which world it is made."""

from __future__ import annotations

from typing import Final

from tests.chaos.campaign import Kind
from tests.chaos.faults.hosts import PLAIN
from tests.chaos.faults.network import NETWORK
from tests.chaos.faults.pairs import PAIRS
from tests.chaos.faults.postgres import POSTGRES
from tests.chaos.faults.ray import RAY
from tests.chaos.faults.redis import REDIS
from tests.chaos.world import World

ON_HOSTS: Final[tuple[Kind, ...]] = (*PLAIN, *POSTGRES, *REDIS, *PAIRS)
ON_RAY: Final[tuple[Kind, ...]] = RAY
ON_NETWORK: Final[tuple[Kind, ...]] = NETWORK
EVERYTHING: Final[tuple[Kind, ...]] = tuple(dict.fromkeys((*ON_HOSTS, *ON_RAY, *ON_NETWORK)))


def possible(kinds: tuple[Kind, ...], world: World) -> tuple[list[Kind], list[str]]:
    """Return the kinds that can be made here, and in words what is missing for the others."""
    missing = {kind: kind.needs(world) for kind in kinds}
    return (
        [kind for kind in kinds if missing[kind] is None],
        [f"{kind.name}: needs {need}" for kind, need in missing.items() if need is not None],
    )
