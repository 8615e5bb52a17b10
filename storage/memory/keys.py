"""Subjects' keys in memory: wrapped as in a database, and gone with the process.

Never sees a key itself.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace

from headwater.storage.encryption.keys import StoredKey


class MemoryKeyStore:
    """A :class:`~headwater.storage.encryption.keys.KeyStore` whose keys end with the process."""

    def __init__(self) -> None:
        self._keys: dict[uuid.UUID, StoredKey] = {}

    async def by_id(self, key_ids: Sequence[uuid.UUID]) -> list[StoredKey]:
        return [self._keys[key_id] for key_id in key_ids if key_id in self._keys]

    async def by_subject(self, subjects: Sequence[str]) -> list[StoredKey]:
        return [key for key in self._keys.values() if key.subject in subjects and key.subject is not None]

    async def add(self, keys: Sequence[StoredKey]) -> None:
        for key in keys:
            if key.subject is not None and not await self.by_subject([key.subject]):
                self._keys[key.key_id] = key

    async def destroy(self, subject: str) -> list[uuid.UUID]:
        gone = [key.key_id for key in await self.by_subject([subject])]
        for key_id in gone:
            self._keys[key_id] = StoredKey(key_id, None, None, None)
        return gone

    async def wrapped_by_others(self, master_key: str, limit: int) -> list[StoredKey]:
        others = [key for key in self._keys.values() if key.wrapped is not None and key.master_key != master_key]
        return others[:limit]

    async def rewrap(self, keys: Sequence[StoredKey]) -> None:
        for key in keys:
            kept = self._keys[key.key_id]
            if kept.wrapped is not None:
                self._keys[key.key_id] = replace(kept, wrapped=key.wrapped, master_key=key.master_key)
