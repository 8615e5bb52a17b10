"""Recorded events: values that keep what they were made of, whatever of it is kept as bytes."""

from __future__ import annotations

import copy
import pickle
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from headwater.storage.model import RecordedEvent

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
ID, CAUSE = uuid.UUID("0195a2b4-7c11-7def-8123-456789abcdef"), uuid.UUID(int=7)


def event(position: int = 3, id: uuid.UUID = ID, cause: uuid.UUID | None = CAUSE, **fields: Any) -> RecordedEvent:
    made = RecordedEvent(position, "a-1", 2, position, id, "T", b'{"n":1}', None, cause, None, WHEN, None, 1)
    return made._replace(**fields)


def test_an_event_shows_what_it_was_made_of() -> None:
    made = event()
    assert (made.position, made.stream, made.version, made.number) == (3, "a-1", 2, 3)
    assert (made.id, made.causation_id, made.correlation_id) == (ID, CAUSE, None)
    assert (made.type, made.data, made.metadata, made.created_at) == ("T", {"n": 1}, None, WHEN)
    assert (made.tags, made.schema_version) == ((), 1)


@pytest.mark.parametrize("id", [ID, CAUSE, uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)], ids=str)
def test_an_id_is_a_whole_uuid_each_time_it_is_looked_at(id: uuid.UUID) -> None:
    shown = event(id=id).id
    assert type(shown) is uuid.UUID
    assert (shown, hash(shown), str(shown), shown.version) == (id, hash(id), str(id), id.version)
    assert shown.is_safe is uuid.UUID(int=id.int).is_safe
    assert pickle.loads(pickle.dumps(shown)) == id


@pytest.mark.parametrize("again", [lambda it: pickle.loads(pickle.dumps(it)), copy.copy, copy.deepcopy])
def test_an_event_that_travelled_equals_the_one_that_stayed(again: Any) -> None:
    travelled = again(event())
    assert type(travelled) is RecordedEvent
    assert (travelled, hash(travelled), travelled.id, travelled.causation_id) == (event(), hash(event()), ID, CAUSE)


def test_events_are_equal_by_value_and_ordered_by_position() -> None:
    assert event() == event()
    assert event() != event(id=CAUSE)
    assert sorted([event(3), event(1), event(2)]) == [event(1), event(2), event(3)]


def test_fields_are_replaced_by_the_names_under_which_they_are_shown() -> None:
    changed = event()._replace(id=CAUSE, causation_id=None, correlation_id=ID, number=9)
    assert (changed.id, changed.causation_id, changed.correlation_id, changed.number) == (CAUSE, None, ID, 9)
    assert type(changed) is RecordedEvent
    assert event().id == ID
    with pytest.raises(ValueError, match="colour"):
        event()._replace(colour="red")


@pytest.mark.parametrize("name", ["position", "id", "data", "created_at", "colour"])
def test_an_event_cannot_be_changed(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(event(), name, 1)
