"""The subjects' keys that a process has in use: fetched, unwrapped, kept for a while, and asked for again.

Never writes a key down unwrapped.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

from headwater.storage.encryption.keys import KeyStore, StoredKey
from headwater.storage.encryption.options import Encryption
from headwater.storage.errors import KeyUnavailable

_BATCH: Final = 500


class State(NamedTuple):
    """What is known of a key: itself, that it was destroyed, or why it cannot be had."""

    key: bytes | None = None
    destroyed: bool = False
    problem: str = "nobody has asked for it"


class Handle:
    """A key, as far as it is known. Shared by all events that need it: what is learnt of it, they learn."""

    __slots__ = ("checked_at", "key_id", "state", "subject")

    def __init__(self, key_id: uuid.UUID) -> None:
        self.key_id = key_id
        self.state = State()
        """Exchanged as a whole: a synchronous program looks at its events in another thread."""
        self.subject: str | None = None
        self.checked_at = float("-inf")

    def usable(self) -> bytes:
        """Return the key. Raises KeyUnavailable."""
        key, _, problem = self.state
        if key is None:
            raise KeyUnavailable(self.key_id, problem)
        return key

    def __repr__(self) -> str:
        key, destroyed, problem = self.state
        return f"<Handle {self.key_id} {'destroyed' if destroyed else problem if key is None else 'usable'}>"


class KeyRing:
    """The keys of one store in one process.

    1. No more than ``cache_size`` keys are kept, those that were used last.
    2. None is used for longer than ``cache_time`` without having been asked for again.
    3. A key that was destroyed stays so, whatever is learnt of it later.
    """

    def __init__(self, encryption: Encryption, keys: KeyStore) -> None:
        self._encryption = encryption
        self._cipher = encryption.cipher
        self._store = keys
        self._time = encryption.cache_time.total_seconds()
        self._handles: OrderedDict[uuid.UUID, Handle] = OrderedDict()
        self._of_subject: dict[str, Handle] = {}

    async def by_id(self, key_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, Handle]:
        """Return a handle for each id; what is wrong with a key, its handle says. Raises StoreUnavailable."""
        now = self._encryption.clock()
        found = {key_id: handle for key_id in key_ids if (handle := self._fresh(self._handles.get(key_id), now))}
        missing = [key_id for key_id in key_ids if key_id not in found]
        if missing:
            stored = {key.key_id: key for key in await self._store.by_id(missing)}
            masters = self._encryption.masters()
            for key_id in missing:
                key = stored.get(key_id)
                found[key_id] = self._missing(key_id, now) if key is None else self._learn(key, masters, now)
        return found

    async def by_subject(self, subjects: Collection[str]) -> dict[str, Handle]:
        """Return a usable key for each subject, made when it has none. Raises KeyUnavailable, StoreUnavailable."""
        now = self._encryption.clock()
        found = {name: handle for name in subjects if (handle := self._fresh(self._of_subject.get(name), now))}
        masters = self._encryption.masters() if len(found) < len(subjects) else {}
        while missing := [name for name in subjects if name not in found]:
            stored = await self._store.by_subject(missing)
            if without := set(missing) - {key.subject for key in stored}:
                await self._store.add([self._new(name, masters) for name in sorted(without)])
                # Another program may have made one first: all use the one that is kept.
                stored = await self._store.by_subject(missing)
            for key in stored:
                assert key.subject is not None
                handle = self._learn(key, masters, now)
                if not handle.state.destroyed:
                    found[key.subject] = handle
        for handle in found.values():
            handle.usable()
        return found

    async def forget(self, subject: str) -> bool:
        """Destroy a subject's key; returns whether there was one."""
        gone = await self._store.destroy(subject)
        for key_id in gone:
            self._learn(StoredKey(key_id, None, None, None), {}, self._encryption.clock())
        return bool(gone)

    async def rewrap(self) -> int:
        """Wrap every key that another master key wraps with the first one; returns how many there were.

        Safe to repeat and to interrupt. Raises KeyUnavailable for one that none of the master keys opens.
        """
        masters = self._encryption.masters()
        name = next(iter(masters))
        done = 0
        while stored := await self._store.wrapped_by_others(name, _BATCH):
            await self._store.rewrap([self._wrapped(key, self._unwrapped(key, masters), masters) for key in stored])
            done += len(stored)
        return done

    def _fresh(self, handle: Handle | None, now: float) -> Handle | None:
        if handle is None or now - handle.checked_at >= self._time:
            return None
        if handle.key_id in self._handles:
            self._handles.move_to_end(handle.key_id)
        return handle

    def _learn(self, stored: StoredKey, masters: Mapping[str, bytes], now: float) -> Handle:
        """Put down what the key store said of a key."""
        if stored.wrapped is None:
            return self._put_down(stored.key_id, State(destroyed=True, problem="it was destroyed"), now)
        try:
            state = State(self._unwrapped(stored, masters))
        except KeyUnavailable as error:
            state = State(problem=error.problem)
        handle = self._put_down(stored.key_id, state, now)
        if stored.subject is not None and not handle.state.destroyed:
            handle.subject = stored.subject
            self._of_subject[stored.subject] = handle
        return handle

    def _missing(self, key_id: uuid.UUID, now: float) -> Handle:
        return self._put_down(key_id, State(problem="it is not in the key store"), now)

    def _put_down(self, key_id: uuid.UUID, state: State, now: float) -> Handle:
        handle = self._handles.setdefault(key_id, Handle(key_id))
        self._handles.move_to_end(key_id)
        self._forget_subject(handle)
        handle.checked_at = now
        if not handle.state.destroyed:  # an answer that was under way when the key was destroyed brings nothing back
            handle.state = state
        while len(self._handles) > self._encryption.cache_size:
            self._forget_subject(self._handles.popitem(last=False)[1])
        return handle

    def _forget_subject(self, handle: Handle) -> None:
        if handle.subject is not None and self._of_subject.get(handle.subject) is handle:
            del self._of_subject[handle.subject]
        handle.subject = None

    def _new(self, subject: str, masters: Mapping[str, bytes]) -> StoredKey:
        return self._wrapped(StoredKey(uuid.uuid4(), subject, None, None), self._cipher.new_key(), masters)

    def _wrapped(self, key: StoredKey, content: bytes, masters: Mapping[str, bytes]) -> StoredKey:
        name, master = next(iter(masters.items()))
        return StoredKey(key.key_id, key.subject, self._cipher.encrypt(master, content, key.key_id.bytes), name)

    def _unwrapped(self, key: StoredKey, masters: Mapping[str, bytes]) -> bytes:
        master = masters.get(key.master_key or "")
        if master is None or key.wrapped is None:
            raise KeyUnavailable(key.key_id, f"there is no master key {key.master_key!r}")
        try:
            return self._cipher.decrypt(master, key.wrapped, key.key_id.bytes)
        except ValueError:
            raise KeyUnavailable(
                key.key_id, f"the master key {key.master_key!r} is not the one that wrapped it"
            ) from None
