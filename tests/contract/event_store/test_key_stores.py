"""What every key store keeps: one living key for a subject, and of a destroyed one nothing but that it was."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from headwater.storage.encryption.keys import KeyStore, StoredKey
from headwater.storage.memory.keys import MemoryKeyStore
from headwater.storage.postgres.keys import PostgresKeyStore
from headwater.storage.postgres.store import PostgresEventStore


@pytest.fixture
async def keys(store_url: str | None) -> AsyncIterator[KeyStore]:
    if store_url is None:
        yield MemoryKeyStore()
        return
    async with await PostgresEventStore.open(store_url) as store:
        yield PostgresKeyStore(store.connection, store.sql)


def key(subject: str, wrapped: bytes = b"wrapped", master: str = "first") -> StoredKey:
    return StoredKey(uuid.uuid4(), subject, wrapped, master)


async def test_a_subject_has_one_key_whoever_makes_it_first(keys: KeyStore) -> None:
    made = [key("ada", str(n).encode()) for n in range(5)]
    await asyncio.gather(*(keys.add([each, key("bob")]) for each in made))
    [kept] = await keys.by_subject(["ada"])
    assert kept in made
    assert await keys.by_id([each.key_id for each in made]) == [kept]
    assert len(await keys.by_subject(["ada", "bob", "nobody"])) == 2


async def test_of_a_destroyed_key_nothing_is_kept_but_that_it_was(keys: KeyStore) -> None:
    first = key("ada")
    await keys.add([first, key("bob")])
    assert await keys.destroy("ada") == [first.key_id]
    assert await keys.destroy("ada") == []
    assert await keys.by_subject(["ada"]) == []
    assert await keys.by_id([first.key_id]) == [StoredKey(first.key_id, None, None, None)]
    second = key("ada")
    await keys.add([second])
    assert await keys.by_subject(["ada"]) == [second]
    assert len(await keys.by_subject(["bob"])) == 1


async def test_keys_are_wrapped_anew_but_a_destroyed_one_stays_so(keys: KeyStore) -> None:
    made = [key(f"s-{n}") for n in range(4)]
    await keys.add([*made, key("new", master="second")])
    assert len(await keys.wrapped_by_others("second", 3)) == 3
    await keys.destroy("s-0")
    await keys.rewrap([StoredKey(each.key_id, each.subject, b"anew", "second") for each in made])
    assert await keys.wrapped_by_others("second", 10) == []
    assert await keys.by_subject(["s-0"]) == []
    assert {each.wrapped for each in await keys.by_subject(["s-1", "s-2", "s-3"])} == {b"anew"}
