"""Errors: listed, exported, picklable, with their fields; what is documented is what there is."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

import headwater
from headwater.storage import errors
from headwater.storage.errors import HeadwaterError

KINDS = [
    kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, HeadwaterError)
]  # fmt: skip


def example(kind: type[HeadwaterError]) -> HeadwaterError:
    """Make one, with a word in each field that must be given."""
    parameters = inspect.signature(kind.__init__).parameters.values()
    given = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self"]
    needed = [p.name for p in given if p.kind is p.POSITIONAL_OR_KEYWORD or p.default is p.empty]
    return kind(**dict.fromkeys(needed, "word"))


@pytest.mark.parity("L46")
def test_the_tree_in_the_documentation_is_the_tree_of_classes() -> None:
    assert errors.__doc__ is not None
    _, _, tree = errors.__doc__.partition("::\n\n")
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in tree.splitlines():
        if found := re.match(r"([ │├└─]*)(\w+)", line):
            depth = (len(found[1]) - 4) // 4 if path else 0
            path = [*path[:depth], found[2]]
            drawn[found[2]] = path[-2] if depth else ""
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ if kind is not HeadwaterError else "" for kind in KINDS}


@pytest.mark.parity("L46")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_is_public_and_travels_with_its_fields(kind: type[HeadwaterError]) -> None:
    assert getattr(headwater, kind.__name__) is kind
    assert kind.__name__ in headwater.__all__
    error = example(kind)
    travelled = pickle.loads(pickle.dumps(error))
    assert (type(travelled), travelled.fields, str(travelled)) == (kind, error.fields, str(error))
    assert all(getattr(travelled, name) == value for name, value in error.fields.items())
    assert not str(error).startswith("<"), "a sentence, not a repr"


def test_refusals_say_what_was_refused_and_what_is_missing() -> None:
    missing = str(errors.StreamMissing("order-1", "STREAM_EXISTS"))
    assert missing.startswith("stream 'order-1' does not exist")
    assert "truncate" in str(errors.HardDeletesDisabled("order-1"))
