"""Where subjects' keys are kept, as one narrow protocol. By default beside the events; or in a vault of the user's own.

Never sees a key itself: what is stored is wrapped by a master key.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A subject's key as it is kept."""

    key_id: uuid.UUID
    """Random, and all that events say about their key."""
    subject: str | None
    """None once the key is destroyed."""
    wrapped: bytes | None
    """The key under a master key; None once it is destroyed."""
    master_key: str | None
    """The name of that master key."""


class KeyStore(Protocol):
    """Keeps wrapped keys. A subject has at most one that is not destroyed."""

    async def by_id(self, key_ids: Sequence[uuid.UUID]) -> list[StoredKey]:
        """Return the keys of these ids, destroyed ones without their content; unknown ids are left out."""
        ...

    async def by_subject(self, subjects: Sequence[str]) -> list[StoredKey]:
        """Return the keys of these subjects that are not destroyed."""
        ...

    async def add(self, keys: Sequence[StoredKey]) -> None:
        """Keep new keys; one whose subject has got a key meanwhile is passed over."""
        ...

    async def destroy(self, subject: str) -> list[uuid.UUID]:
        """Destroy the subject's key for good; returns its id, nothing when there is none. Safe to repeat."""
        ...

    async def wrapped_by_others(self, master_key: str, limit: int) -> list[StoredKey]:
        """Return some keys, up to ``limit``, that another master key wraps than this one."""
        ...

    async def rewrap(self, keys: Sequence[StoredKey]) -> None:
        """Exchange the wrapping of these keys, unless they are destroyed."""
        ...
