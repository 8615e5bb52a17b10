"""What is chosen about the encryption of a store's payloads.

Values only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from headwater.storage.encryption.cipher import AesGcm, Cipher, MasterKeys, from_environment
from headwater.storage.encryption.keys import KeyStore
from headwater.storage.errors import ConfigurationError
from headwater.storage.model import ERASED, NewEvent, RecordedEvent, Snapshot


def erased_marker(event: RecordedEvent | Snapshot) -> Any:  # noqa: ARG001  # the same for all
    """Return ERASED."""
    return ERASED


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """Encrypts the payloads of events and snapshots that have a subject, each subject's under a key of its own."""

    subject: Callable[[str, NewEvent | Snapshot], str | None] | None = None
    """Chooses the subject of what names none itself, from the stream (or source) and the event (or snapshot)."""
    metadata: bool = False
    """Whether the metadata is encrypted, too."""
    master_keys: MasterKeys = from_environment
    """Returns the master keys by name, the one to wrap with first; by default those of HEADWATER_MASTER_KEYS."""
    keys: KeyStore | None = None
    """Where subjects' keys are kept; None: in the store itself."""
    cipher: Cipher = field(default_factory=AesGcm)
    cache_size: int = 10_000
    """How many subjects' keys a process keeps at a time."""
    cache_time: timedelta = timedelta(seconds=30)
    """How long a process uses a key before it asks again whether it still is there: so long at most a destroyed key
    opens what is read or delivered. In the process that destroyed it: no longer."""
    erased: Callable[[RecordedEvent | Snapshot], Any] = erased_marker
    """Returns what ``data`` shows when the key is destroyed."""
    clock: Callable[[], float] = time.monotonic
    """What ``cache_time`` is measured by, in seconds."""

    def __post_init__(self) -> None:
        """Refuse what can never work. Raises ConfigurationError."""
        if self.cache_size < 1 or self.cache_time < timedelta(0):
            raise ConfigurationError("cache_size must be 1 or more, and cache_time not below 0")

    def masters(self) -> Mapping[str, bytes]:
        """Return the master keys. Raises ConfigurationError when there is none."""
        found = self.master_keys()
        if not found:
            raise ConfigurationError("encryption has no master key")
        return found
