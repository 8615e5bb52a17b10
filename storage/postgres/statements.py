"""Loads the SQL: named, whole statements from ``sql/*.sql`` and numbered migrations, put into a store's schema.

The one place that changes SQL text, and only by exchanging two quoted identifiers: the schema and the payload type.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from headwater.storage.errors import ConfigurationError

PayloadType: TypeAlias = Literal["json", "jsonb", "bytea"]
PAYLOAD_TYPES: Final[tuple[PayloadType, ...]] = get_args(PayloadType)

_FOLDER: Final = Path(__file__).parent / "sql"
_NAMED_BLOCK: Final = re.compile(r"^-- name: (\w+)[^\n]*\n", re.MULTILINE)
_QUOTES: Final = re.compile(r"""["'%$\\]""")
_MIGRATION: Final = re.compile(r"(\d{4})_(\w+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One forward step of the schema."""

    number: int
    name: str
    text: str


class Statements:
    """The named statements of one store: ``statements.read_forward`` is the SQL as bytes, in the store's schema.

    Two stores with the same schema share one object's texts, so that a connection prepares each statement once.
    In a store whose events are in ranges, a statement that is named ``..._partitioned`` takes its namesake's place.
    """

    def __init__(self, schema: str = "headwater", payload: PayloadType = "json", *, partitioned: bool = False) -> None:
        # The name also stands inside literals and function bodies: what could end one of those is refused.
        if not 1 <= len(schema.encode("utf-8", "replace")) <= 63 or not schema.isprintable() or _QUOTES.search(schema):
            raise ConfigurationError(f"schema: {schema!r} is not a name of 1 to 63 bytes without quotes, % and $")
        if payload not in PAYLOAD_TYPES:
            raise ConfigurationError(f"payload: {payload!r} is none of {', '.join(PAYLOAD_TYPES)}")
        self.schema = schema
        self.payload: PayloadType = payload
        self.partitioned = partitioned

    def __getattr__(self, name: str) -> bytes:
        known = named_statements()
        text = (self.partitioned and known.get(f"{name}_partitioned")) or known.get(name)
        if text is None:
            raise AttributeError(f"no statement is named {name!r} in {_FOLDER}")
        statement = self.__dict__[name] = self._placed(text)
        return statement

    def __repr__(self) -> str:
        return f"<Statements of {self.schema!r}, payload {self.payload}>"

    def migration(self, migration: Migration) -> bytes:
        """Return a migration's text for this schema; it is sent without parameters."""
        return self._placed(migration.text)

    def _placed(self, text: str) -> bytes:
        return text.replace('"payload"', self.payload).replace('"headwater"', f'"{self.schema}"').encode()


@functools.cache
def named_statements() -> dict[str, str]:
    """Return every named statement of ``sql/*.sql`` as written there, by its name."""
    found: dict[str, str] = {}
    for path in sorted(_FOLDER.glob("*.sql")):
        _, *parts = _NAMED_BLOCK.split(path.read_text(encoding="utf-8"))
        for name, body in zip(parts[::2], parts[1::2], strict=True):
            if name in found:
                raise ConfigurationError(f"two statements are named {name!r}; the second is in {path.name}")
            found[name] = body.strip().removesuffix(";")
    return found


@functools.cache
def migrations() -> tuple[Migration, ...]:
    """Return all migrations, lowest number first."""
    found = []
    for path in sorted((_FOLDER / "migrations").glob("*.sql")):
        match = _MIGRATION.fullmatch(path.name)
        if match is None:
            raise ConfigurationError(f"{path.name} is not named like a migration: 0001_name.sql")
        found.append(Migration(int(match[1]), match[2], path.read_text(encoding="utf-8")))
    return tuple(found)
