"""What becomes of a partition when its owner's process, session or network breaks: others go on, it writes nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from headwater.storage.options import StoreOptions
from headwater.storage.postgres.registry import Registry
from headwater.storage.postgres.store import PostgresEventStore
from tests.integration.leases.programs import LEASE, LONG, MANY_TRIES, owner
from tests.plugins.proxies import wire
from tests.plugins.waiting import wait_until


async def _register(url: str) -> int:
    async with await PostgresEventStore.open(options=StoreOptions(url=url)) as store:
        registry = Registry(store.pool, store.sql, store)
        await registry.register("orders", "package.module:handler", {})
        (state,) = await registry.states("orders")
        return state.key.lock_id


@pytest.fixture
def lock_id(database_url: str) -> int:
    """The lock of the only partition of a registered subscription."""
    return asyncio.run(_register(database_url))


@pytest.mark.parity("T306", "T328")
@pytest.mark.timeout(45)  # the reference looks again after 60 seconds
@pytest.mark.parity("L14")
def test_a_standby_gets_the_partition_of_an_owner_that_was_killed(database_url: str, lock_id: int) -> None:
    with (
        owner(database_url, "first", lock_id, lease=LONG) as first,
        owner(database_url, "second", lock_id, lease=LONG) as second,
    ):
        assert first.ask("claim") == "granted 1 0"
        assert first.ask("save 7") == "saved"
        second.tell("claim")
        os.kill(first.pid, signal.SIGKILL)
        assert second.answer() == "granted 2 7"


@pytest.mark.parity("L3")
def test_an_owner_that_was_frozen_is_replaced_and_writes_nothing_when_it_thaws(database_url: str, lock_id: int) -> None:
    with owner(database_url, "first", lock_id) as first, owner(database_url, "second", lock_id) as second:
        assert first.ask("claim") == "granted 1 0"
        os.kill(first.pid, signal.SIGSTOP)
        assert second.ask("claim") == "granted 2 0"
        assert second.ask("save 9") == "saved"
        os.kill(first.pid, signal.SIGCONT)
        assert first.ask("save 5") == "StaleEpoch"
        assert first.ask("lost") == "lost"
        assert second.ask("save 10") == "saved"


def test_the_transaction_of_a_frozen_owner_blocks_nobody(database_url: str, lock_id: int) -> None:
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("CREATE TABLE effects (total integer)")
        conn.execute("INSERT INTO effects VALUES (0)")
    with owner(database_url, "first", lock_id) as first, owner(database_url, "second", lock_id) as second:
        assert first.ask("claim") == "granted 1 0"
        assert first.ask("work 3") == "working"
        os.kill(first.pid, signal.SIGSTOP)
        assert second.ask("claim") == "granted 2 0"
        assert second.ask("work 3") == "working"
        assert second.ask("end") == "worked"
        os.kill(first.pid, signal.SIGCONT)
        first.tell("end")
        with psycopg.connect(database_url) as conn:
            assert conn.execute("SELECT total FROM effects").fetchone() == (1,)


@pytest.mark.parity("T005", "L2", "T350")
def test_an_owner_notices_that_the_server_ended_its_session_and_comes_back_by_itself(
    database_url: str, lock_id: int
) -> None:
    with owner(database_url, "first", lock_id, lease=LONG) as first:
        assert first.ask("claim") == "granted 1 0"
        with psycopg.connect(database_url, autocommit=True) as conn:
            ended = conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity JOIN pg_locks USING (pid) "
                "WHERE datname = current_database() AND locktype = 'advisory' AND objid = %s "
                "AND classid = 'headwater.partitions'::regclass",
                [lock_id],
            ).fetchall()
        assert ended == [(True,)]
        assert first.ask("lost") == "lost"
        assert first.ask("claim") == "granted 2 0"


def test_an_owner_whose_lease_session_is_cut_off_knows_it_and_is_replaced(database_url: str, lock_id: int) -> None:
    with (
        wire(database_url) as network,
        owner(database_url, "first", lock_id, leases_url=network.url) as first,
        owner(database_url, "second", lock_id) as second,
    ):
        assert first.ask("claim") == "granted 1 0"
        network.cut()
        first.tell("lost")
        assert second.ask("claim") == "granted 2 0"
        assert first.answer() == "lost"
        assert first.ask("save 5") == "StaleEpoch"


def test_heartbeats_keep_a_lease_for_longer_than_its_length(database_url: str, lock_id: int) -> None:
    with owner(database_url, "first", lock_id) as first, psycopg.connect(database_url, autocommit=True) as conn:

        def has_outlived_leases() -> bool:
            row = conn.execute(
                "SELECT extract(epoch FROM clock_timestamp() - a.backend_start)::float8 "
                "FROM pg_stat_activity AS a JOIN pg_locks AS l USING (pid) "
                "WHERE a.datname = current_database() AND l.locktype = 'advisory' AND l.objid = %s "
                "AND l.classid = 'headwater.partitions'::regclass",
                [lock_id],
            ).fetchone()
            if row is None:
                # The first time, or somebody stood still for longer than a lease: then another session is to show it.
                # Nothing else is asked of it, so that without heartbeats each one ends when it is a lease old.
                assert first.ask("claim").startswith("granted")
                return False
            return bool(row[0] >= 2.5 * LEASE)

        wait_until(has_outlived_leases, MANY_TRIES, what="a session that holds the lease has outlived two leases")


@contextmanager
def other_network() -> Iterator[tuple[str, str, str]]:
    """Make a network with one cable to this one; gives its name, the cable's name here, and the address here."""
    number = os.getpid() % 60000
    name, here, there = f"headwater-{number}", f"hw{number}a", f"hw{number}b"
    net = f"10.213.{number % 250}"
    commands = [
        f"ip netns add {name}",
        f"ip link add {here} type veth peer name {there}",
        f"ip link set {there} netns {name}",
        f"ip addr add {net}.1/24 dev {here}",
        f"ip link set {here} up",
        f"ip netns exec {name} ip addr add {net}.2/24 dev {there}",
        f"ip netns exec {name} ip link set {there} up",
        f"ip netns exec {name} ip link set lo up",
    ]
    try:
        for command in commands:
            subprocess.run(command.split(), check=True, capture_output=True)
        yield name, here, f"{net}.1"
    finally:
        subprocess.run(["ip", "link", "del", here], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def may_make_networks() -> bool:
    """Whether this process may make network namespaces, found out by making one."""
    if os.geteuid() != 0 or not Path("/proc/self/ns/net").exists():
        return False
    try:
        with other_network():
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def test_an_owner_behind_an_unplugged_cable_is_replaced(database_url: str, lock_id: int) -> None:
    if not may_make_networks():
        pytest.skip("network namespaces need root, on Linux")
    with other_network() as (name, cable, address), wire(database_url, host=address) as gateway:
        prefix = ("ip", "netns", "exec", name)
        with (
            owner(gateway.url, "first", lock_id, prefix=prefix) as first,
            owner(database_url, "second", lock_id) as second,
        ):
            assert first.ask("claim") == "granted 1 0"
            subprocess.run(["ip", "link", "set", cable, "down"], check=True, capture_output=True)
            first.tell("lost")
            assert second.ask("claim") == "granted 2 0"
            assert first.answer() == "lost"
