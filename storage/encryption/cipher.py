"""How payloads and keys are encrypted: AES-GCM, or anything with these three methods; and the master keys.

Never stores a key.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping
from typing import Final, Protocol, TypeAlias

from headwater.storage.errors import ConfigurationError

MASTER_KEYS_VARIABLE: Final = "HEADWATER_MASTER_KEYS"
KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12

MasterKeys: TypeAlias = Callable[[], Mapping[str, bytes]]
"""Returns the master keys by name, the one to wrap with first. Called whenever keys are fetched."""


class Cipher(Protocol):
    """Authenticated encryption. ``context`` is not part of the text, but must be the same on both sides."""

    def new_key(self) -> bytes: ...

    def encrypt(self, key: bytes, text: bytes, context: bytes) -> bytes: ...

    def decrypt(self, key: bytes, sealed: bytes, context: bytes) -> bytes:
        """Raises ValueError when the key is another one, or the text or the context is not as it was."""
        ...


class AesGcm:
    """AES-256-GCM of the ``cryptography`` package: a random nonce of 12 bytes, then the text and its tag."""

    def __init__(self) -> None:
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise ConfigurationError("encryption needs cryptography: install headwater[encryption]") from None
        self._aes, self._invalid = AESGCM, InvalidTag

    def new_key(self) -> bytes:
        """Return a random key."""
        return os.urandom(KEY_BYTES)

    def encrypt(self, key: bytes, text: bytes, context: bytes) -> bytes:
        """Return nonce, text and tag."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._aes(key).encrypt(nonce, text, context)

    def decrypt(self, key: bytes, sealed: bytes, context: bytes) -> bytes:
        """Return the text. Raises ValueError."""
        try:
            return self._aes(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context)
        except self._invalid:
            raise ValueError("this is not what was encrypted under that key") from None


def from_environment() -> Mapping[str, bytes]:
    """Return the master keys that HEADWATER_MASTER_KEYS holds: ``name:base64`` of 32 bytes, the newest first, commas.

    Raises ConfigurationError, which never shows a key.
    """
    text = os.environ.get(MASTER_KEYS_VARIABLE, "")
    keys: dict[str, bytes] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, encoded = part.partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except ValueError:
            key = b""
        if not name or len(key) != KEY_BYTES:
            raise ConfigurationError(f"{MASTER_KEYS_VARIABLE}: write name:key, the key {KEY_BYTES} bytes in base64")
        keys[name] = key
    if not keys:
        raise ConfigurationError(f"encryption has no master key: set {MASTER_KEYS_VARIABLE} to name:base64")
    return keys
