"""The published number of connections is the most that a host opens."""

from __future__ import annotations

import psycopg

from headwater.cluster.options import ClusterOptions
from headwater.storage.options import StoreOptions
from tests.integration.host.conftest import Processes, Shop

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
    await shop.append(20)
    seen: set[int] = set()
    with psycopg.connect(shop.url, autocommit=True) as conn:

        def look() -> None:
            seen.add(conn.execute(OPEN).fetchone()[0])  # type: ignore[index]

        await shop.caught_up(meanwhile=look)
    assert max(seen) <= most
    assert max(seen) > 1 + 3  # it was crowded, so the bound was worth having
