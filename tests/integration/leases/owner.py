"""A program that owns a partition, for tests that break it: obeys lines on its standard input, answers each with one.

``claim`` until granted; ``save N``; ``work N``: stay in a transaction that has locked a row of "effects"; ``lost``.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from headwater.storage.errors import HeadwaterError, StoreUnavailable
from headwater.storage.leases import Grant, PartitionKey, Progress
from headwater.storage.options import StoreOptions
from headwater.storage.postgres.checkpoints import PostgresCheckpoints
from headwater.storage.postgres.leases import LeaseSession, Presence
from headwater.storage.postgres.store import PostgresEventStore
from headwater.storage.postgres.transactions import PostgresTransactions
from tests.plugins.waiting import until


class Owner:
    """One session, one partition."""

    def __init__(self, leases: LeaseSession, store: PostgresEventStore, lock_id: int) -> None:
        self._leases = leases
        self._key = PartitionKey("orders", 0, lock_id)
        self._checkpoints = PostgresCheckpoints(store.pool, store.sql)
        self._transactions = PostgresTransactions(store.pool, store.sql, self._checkpoints, store.options)
        self._grant: Grant | None = None

    async def obey(self, verb: str, *arguments: str) -> str:
        """Do one thing; returns the answer."""
        match verb:
            case "claim":
                (self._grant,) = await until(self._try_to_claim)
                return f"granted {self._grant.epoch} {self._grant.progress.checkpoint}"
            case "lost":
                grant = self._grant
                assert grant is not None
                await until(lambda: self._leases.lost(grant))
                return "lost"
            case "save":
                assert self._grant is not None
                await self._checkpoints.save(self._grant, Progress(int(arguments[0])))
                return "saved"
            case "work":
                assert self._grant is not None
                async with self._transactions.open(self._grant, Progress(int(arguments[0]))) as conn:
                    await conn.execute("UPDATE effects SET total = total + 1")
                    print("working", flush=True)
                    await asyncio.to_thread(sys.stdin.readline)
                return "worked"
        raise ValueError(verb)

    async def _try_to_claim(self) -> list[Grant]:
        try:
            return await self._leases.claim([self._key])
        except StoreUnavailable:
            return []


async def open_leases(url: str, host: str, lease: float) -> LeaseSession | None:
    leases = LeaseSession(
        StoreOptions(url=url), host=host, presence=Presence(node="here"), lease=timedelta(seconds=lease)
    )
    try:
        await leases.open()
    except StoreUnavailable:  # it did not answer for the length of the lease
        return None
    return leases


async def main(leases_url: str, store_url: str, host: str, lock_id: int, lease: float) -> None:
    leases = await until(lambda: open_leases(leases_url, host, lease))
    assert leases is not None
    async with await PostgresEventStore.open(store_url) as store:
        owner = Owner(leases, store, lock_id)
        print("ready", flush=True)
        while words := (await asyncio.to_thread(sys.stdin.readline)).split():
            try:
                print(await owner.obey(*words), flush=True)
            except HeadwaterError as error:
                print(type(error).__name__, flush=True)
    await leases.close()


asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])))
