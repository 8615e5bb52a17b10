"""A caller's transaction on the in-memory store: what is done within it is seen by others when it ends well, or never.

Never shared between tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from headwater.storage.errors import SqlRefused
from headwater.storage.memory.state import State


class MemoryTransaction:
    """What to pass as ``conn``. From its first write on it holds the store's order, until it ends."""

    def __init__(self) -> None:
        self.state: State | None = None
        """What the transaction sees once it has written; None before."""
        self._undo: list[Callable[[], None]] = []

    def on_rollback(self, undo: Callable[[], None]) -> None:
        """Call ``undo`` when the transaction fails: for what is not part of the store's state."""
        self._undo.append(undo)

    def __getattr__(self, name: str) -> NoReturn:
        """Say what is missing here, instead of only that it is. Raises SqlRefused."""
        raise SqlRefused(name)

    def roll_back(self) -> None:
        """Undo everything, the last first."""
        self.state = None
        while self._undo:
            self._undo.pop()()
