"""What is not installed is asked for by name, and only by whoever needs it."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pydantic
import pytest

from headwater import ConfigurationError, Encryption, EventTypes
from headwater.storage.memory import MemoryEventStore


@dataclass
class Plain:
    n: int


class Model(pydantic.BaseModel):
    n: int


def test_a_dataclass_needs_the_extra_for_types_and_a_model_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgspec", None)
    types = EventTypes()
    with pytest.raises(ConfigurationError, match=r"headwater\[types\]"):
        types.register(Plain)
    types.register(Model)
    assert types.load("Model", {"n": 1}) == Model(n=1)


async def test_encryption_needs_its_extra_and_a_store_without_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(ConfigurationError, match=r"headwater\[encryption\]"):
        Encryption()
    async with MemoryEventStore() as store:
        assert await store.forget("nobody") is False
