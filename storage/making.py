"""What a store's payloads are made of: given in code, or named in its options by import paths.

Never makes a store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headwater.storage.codec import JSON, Codec
from headwater.storage.encryption.keys import KeyStore
from headwater.storage.encryption.options import Encryption
from headwater.storage.errors import ConfigurationError
from headwater.storage.event_types import EventTypes
from headwater.storage.imports import resolve
from headwater.storage.options import StoreOptions
from headwater.storage.payloads import Payloads


@dataclass(frozen=True, slots=True)
class Making:
    """What a store's payloads are made of, before its key store is there."""

    codec: Codec
    types: EventTypes | None
    encryption: Encryption | None

    @classmethod
    def of(cls, options: StoreOptions, codec: object = None, types: object = None, encryption: object = None) -> Making:
        """Put it together from what was given, itself or by import path, and for the rest from what the options name.

        Raises ImportPathError, and ConfigurationError for what is of another kind.
        """
        found_codec: Any = _imported(codec, options.codec)
        found_types = _imported(types, options.types)
        found_encryption = _imported(encryption, options.encryption)
        if found_types is not None and not isinstance(found_types, EventTypes):
            raise ConfigurationError(f"types: {found_types!r} is no EventTypes")
        if found_encryption is not None and not isinstance(found_encryption, Encryption):
            raise ConfigurationError(f"encryption: {found_encryption!r} is no Encryption")
        if found_encryption is not None:
            found_encryption.masters()  # that there is none is known before anything is opened
        return cls(JSON if found_codec is None else found_codec, found_types, found_encryption)

    def payloads(self, keys: KeyStore, *, binary: bool) -> Payloads:
        """Make them; ``binary``: the payload columns are bytea."""
        return Payloads(keys, codec=self.codec, types=self.types, encryption=self.encryption, binary=binary)


def _imported(given: object, path: str | None) -> object:
    value = path if given is None else given
    return resolve(value) if isinstance(value, str) else value
