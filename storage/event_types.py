"""Event types as classes, and the steps that lift what was written in an older shape.

Never does I/O. Register everything at the top level of one module, so that any process finds it by its import path.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias, TypeVar

from headwater.storage.checks import check_name, check_number
from headwater.storage.codec import is_model, type_of
from headwater.storage.errors import ConfigurationError, EncodingFailed, InvalidArgument, UpcastingFailed
from headwater.storage.model import NewEvent

Kind = TypeVar("Kind", bound=type)
Upcaster: TypeAlias = Callable[[Any], Any]
"""Turns the JSON value of one shape into that of the next; it may change what it is given."""
Step = TypeVar("Step", bound=Upcaster)

MAX_VERSION = 32767


class Shape(NamedTuple):
    """A type, and which version of it."""

    type: str
    version: int


class EventTypes:
    """The event types of a store: which class each one has, and how old shapes are lifted.

    ::

        types = EventTypes()

        @types.register(version=2)
        @dataclass(frozen=True)
        class OrderPlaced:
            total: int
            currency: str

        @types.upcaster("OrderPlaced", 1)
        def with_currency(data):
            return {**data, "currency": "EUR"}

    1. A class has one type and a type has one class.
    2. The steps never go round in a circle: the one that would close it is refused.
    """

    def __init__(self) -> None:
        self._shapes: dict[type, Shape] = {}
        self._classes: dict[str, type] = {}
        self._steps: dict[Shape, tuple[Upcaster, Shape]] = {}
        self._newest: dict[str, int] = {}

    def register(self, kind: Kind | None = None, /, *, name: str | None = None, version: int = 1) -> Any:
        """Register a dataclass, pydantic model, attrs class or msgspec struct; with or without arguments, to decorate.

        ``name`` is what its events are called (the class's own name), ``version`` the shape that it has now. Raises
        ConfigurationError for what is registered already or is no such class.
        """
        if kind is None:
            return lambda kind: self.register(kind, name=name, version=version)
        if not isinstance(kind, type):
            raise ConfigurationError(f"{kind!r} is no class")
        shape = Shape(check_name("name", kind.__name__ if name is None else name), _check_version("version", version))
        if kind in self._shapes or shape.type in self._classes:
            raise ConfigurationError(f"{kind.__qualname__} or the type {shape.type!r} is registered already")
        if not is_model(kind):
            _check_class(kind)
        self._shapes[kind], self._classes[shape.type] = shape, kind
        self._know(shape)
        return kind

    def upcaster(
        self, name: str, version: int, *, to_name: str | None = None, to_version: int | None = None
    ) -> Callable[[Step], Step]:
        """Register the decorated function as the step from this version to the next, or to ``to_version``.

        With ``to_name`` the event is called that from then on. The function gets the JSON value and returns the new
        one. Raises ConfigurationError for a second step from the same shape, or one to an older version;
        UpcastingFailed when the steps would go round in a circle.
        """
        source = Shape(check_name("name", name), _check_version("version", version))
        target = Shape(
            check_name("to_name", name if to_name is None else to_name),
            _check_version("to_version", version + 1 if to_version is None else to_version),
        )
        if source in self._steps:
            raise ConfigurationError(f"{name!r} version {version} has an upcaster already")
        if source.type == target.type and target.version <= source.version:
            raise ConfigurationError(f"an upcaster of {name!r} leads from version {version} to {target.version}")
        if self.newest(target) == source:
            raise UpcastingFailed(name, version, f"its upcasters go round in a circle, by {target.type!r}")

        def register(step: Step) -> Step:
            self._steps[source] = (step, target)
            self._know(source)
            self._know(target)
            return step

        return register

    def _know(self, shape: Shape) -> None:
        self._newest[shape.type] = max(shape.version, self._newest.get(shape.type, 0))

    def __contains__(self, name: object) -> bool:
        """Whether anything is known of a type, under its present name or a former one."""
        return name in self._newest

    def __repr__(self) -> str:
        return f"<EventTypes {len(self._classes)} classes, {len(self._steps)} upcasters>"

    def newest(self, shape: Shape) -> Shape:
        """Return the shape that the steps lead to."""
        while (step := self._steps.get(shape)) is not None:
            shape = step[1]
        return shape

    def lift(self, shape: Shape, data: Any, position: int | None = None) -> Any:
        """Return the JSON value in the newest shape. Raises UpcastingFailed, which names where it came to an end."""
        while (step := self._steps.get(shape)) is not None:
            try:
                data = step[0](data)
            except Exception as error:
                raise UpcastingFailed(*shape, f"{type(error).__name__}: {error}", position) from error
            shape = step[1]
        if shape.version < (newest := self._newest.get(shape.type, 0)):
            raise UpcastingFailed(*shape, f"no upcaster leads on to version {newest}", position)
        return data

    def load(self, name: str, data: Any) -> Any:
        """Return an instance of the type's class, from a JSON value in the newest shape; the value when there is none.

        Raises EncodingFailed for a value that the class refuses.
        """
        kind: Any = self._classes.get(name)
        if kind is None:
            return data
        try:
            if is_model(kind):
                return kind.model_validate(data)
            return _msgspec().convert(data, kind, str_keys=True)
        except (ValueError, TypeError) as error:
            raise EncodingFailed(name, f"{kind.__qualname__} refuses it: {error}") from error

    def dump(self, event: NewEvent) -> tuple[NewEvent, Any]:
        """Return an event with its type and version filled in, and its payload as JSON values.

        Raises InvalidArgument for an instance that is given another type or version than its class is registered for.
        """
        data = event.data
        shape = self._shapes.get(type(data))
        if shape is None:
            return (event if event.type else event._replace(type=type_of(data))), data
        if event.type not in ("", shape.type):
            raise InvalidArgument("event.type", f"{event.type!r}, but its payload is a {shape.type!r}")
        if event.schema_version not in (1, shape.version):
            raise InvalidArgument("event.schema_version", f"must be {shape.version}, as its class is registered")
        if event.type == "" or event.schema_version != shape.version:
            event = event._replace(type=shape.type, schema_version=shape.version)
        return event, self.values(shape.type, data)

    def shape_of(self, value: object) -> Shape | None:
        """Return what an instance is registered as; None when its class is not."""
        return self._shapes.get(type(value))

    def values(self, name: str, value: Any) -> Any:
        """Return an instance of a registered class as JSON values. Raises EncodingFailed."""
        try:
            return (
                value.model_dump(mode="json") if is_model(type(value)) else _msgspec().to_builtins(value, str_keys=True)
            )
        except (ValueError, TypeError, RecursionError) as error:
            raise EncodingFailed(name, str(error)) from error


def _check_version(argument: str, version: object) -> int:
    return check_number(argument, version, 1, MAX_VERSION)


def _check_class(kind: type) -> None:
    if not (dataclasses.is_dataclass(kind) or hasattr(kind, "__attrs_attrs__") or issubclass(kind, _msgspec().Struct)):
        raise ConfigurationError(f"{kind.__qualname__} is no dataclass, pydantic model, attrs class or struct")
    _msgspec()


def _msgspec() -> ModuleType:
    try:
        import msgspec
    except ImportError:
        raise ConfigurationError("event types that are dataclasses need msgspec: install headwater[types]") from None
    return msgspec
