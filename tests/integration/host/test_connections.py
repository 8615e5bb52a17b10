"""The published number of connections is the most that a host opens."""

from __future__ import annotations

import psycopg

from headwater.cluster.options import ClusterOptions
from headwater.storage.options import StoreOptions
from tests.integration.host.conftest import Processes, Shop
from tests.integration.host.crowd import GATE
from tests.plugins.waiting import until

OPEN = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND (application_name LIKE 'headwater%leases of a-%'
        OR application_name IN ('headwater host', 'headwater handlers'))
"""
SETTINGS = {"HEADWATER_POOL_SIZE": "2", "HEADWATER_TRANSACTIONS": "3"}


async def test_a_host_opens_no_more_connections_than_the_formula_says(shop: Shop, processes: Processes) -> None:
    processes.start("a", app="crowd:app", environment=SETTINGS)
    most = ClusterOptions.read(StoreOptions(url=shop.url), SETTINGS).connections_per_host
    assert most == 1 + 2 + 2 * 3
    await shop.settled("a")
    seen: set[int] = set()
    with psycopg.connect(shop.url, autocommit=True) as conn:

        def look() -> None:
            seen.add(conn.execute(OPEN).fetchone()[0])  # type: ignore[index]

        def is_crowded() -> bool:
            look()
            return max(seen) >= most

        conn.execute("SELECT pg_advisory_lock(%s)", [GATE])
        await shop.append(20)
        await until(is_crowded, what="waiting until all the connections are open")
        conn.execute("SELECT pg_advisory_unlock(%s)", [GATE])
        await shop.caught_up(meanwhile=look)
    assert max(seen) == most
