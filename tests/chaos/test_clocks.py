"""The server's clock is set back, and nobody keeps a lease for longer because of it."""

from __future__ import annotations

import signal

import pytest

from tests.chaos.processes import frozen
from tests.chaos.servers import SERVER_CLOCK, Servers
from tests.chaos.world import PlainWorld
from tests.plugins.waiting import until

HOUR = 3600
ALL_HEARD = """
SELECT min(state_change) > now() - interval '30 minutes' FROM pg_stat_activity
WHERE application_name LIKE '% leases of %'
"""

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


async def test_an_owner_that_freezes_as_the_servers_clock_is_set_back_loses_its_leases() -> None:
    with Servers() as servers:
        if servers.clocks is None:
            pytest.skip("needs Linux and a C compiler")
        async with PlainWorld(servers, "clocks", seed=1) as world:
            node = (await world.settled())[0].node
            assert node is not None
            owner = world.hosts[node]
            with servers.connect(world.url) as conn:
                servers.clocks.step(SERVER_CLOCK, HOUR)
                await until(lambda: conn.execute(ALL_HEARD).fetchone() == (True,), what="a heartbeat of everybody")
            owner.signal(signal.SIGSTOP)
            await until(lambda: frozen(owner.pid))
            servers.clocks.step(SERVER_CLOCK, 0)

            async def others_own_everything() -> bool:
                return all(p.node not in (node, None) for p in await world.client.partitions())

            await until(others_own_everything)
            owner.signal(signal.SIGCONT)
