"""How a store is opened: every setting once, with its default and its meaning; from code, URL and environment.

Values only; nothing is connected here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, get_args
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit, urlunsplit

from headwater.storage.errors import ConfigurationError

ENVIRONMENT_PREFIX: Final = "HEADWATER_"
URL_VARIABLE: Final = "HEADWATER_DATABASE_URL"

IMPORTED: Final = ("types", "encryption", "codec")
"""The settings that are import paths."""

Payload = Literal["json", "jsonb", "bytea"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreOptions:
    """Everything that can be chosen for a store.

    Each field is also a ``HEADWATER_<NAME>`` environment variable; that of ``url`` is ``HEADWATER_DATABASE_URL``.
    """

    url: str
    """Where the database is: ``postgresql://user:password@host:5432/database``. ``schema``, ``pool_size``,
    ``timeout``, ``payload``, ``hard_deletes`` and the other fields may stand in its query; what is left belongs to
    the driver (``sslmode``, ``sslrootcert``, ...)."""
    session_url: str | None = None
    """A direct way to the same database, for locks and LISTEN, when ``url`` goes through a transaction-mode pooler.
    Setting it turns server-side prepared statements off on ``url``."""
    schema: str = "headwater"
    """The schema that holds the store's tables: several stores can share a database."""
    pool_size: int = 10
    """The most connections that the store opens for its statements."""
    timeout: float = 15.0
    """How many seconds one call may take before it fails with StoreUnavailable."""
    payload: Payload = "json"
    """The column type of payloads, chosen when the schema is made; an opened store finds it out by itself."""
    hard_deletes: bool = False
    """Whether streams may be deleted or truncated for good."""
    redis_url: str | None = None
    """Where hints are published: ``redis://host:6379/0``. Without it, readers poll."""
    archive: str | None = None
    """The folder of the archive, the same for every program: old ranges of events are moved there, and read from there.
    Without it, a read that needs them raises RangeArchived."""
    application_name: str = "headwater"
    """How the store's sessions are named in the server's list."""
    types: str | None = None
    """Import path of the store's EventTypes: classes of events, and how old shapes are lifted."""
    encryption: str | None = None
    """Import path of the store's Encryption: whose payloads are encrypted, and how."""
    codec: str | None = None
    """Import path of the store's Codec, when payloads are not JSON."""

    def __post_init__(self) -> None:
        if not isinstance(self.url, str) or not self.url:
            raise ConfigurationError("url: say where the database is: postgresql://user@host:5432/database")
        if not isinstance(self.schema, str):
            raise ConfigurationError(f"schema: {self.schema!r} is not a name")
        for name in ("redis_url", "application_name"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or "\0" in value):
                raise ConfigurationError(f"{name}: must be a str without NUL characters, not {value!r:.100}")
        parts = _split(self.url)
        for name in ("url", "session_url"):
            value = getattr(self, name)
            if value is not None and _split(value).scheme not in {"postgresql", "postgres"}:
                raise ConfigurationError(f"{name}: must begin with postgresql://")
        if not parts.path.strip("/"):
            raise ConfigurationError("url: the path must name the database: postgresql://user@host:5432/database")
        if isinstance(self.pool_size, bool) or not isinstance(self.pool_size, int) or not 1 <= self.pool_size <= 10_000:
            raise ConfigurationError(f"pool_size: {self.pool_size!r} is not a number of 1 to 10000")
        if isinstance(self.timeout, bool) or not isinstance(self.timeout, int | float) or not 0 < self.timeout < 1e6:
            raise ConfigurationError(f"timeout: {self.timeout!r} is not a number of seconds above 0")
        if self.payload not in get_args(Payload):
            raise ConfigurationError(f"payload: {self.payload!r} is none of {', '.join(get_args(Payload))}")
        for name in IMPORTED:
            if not isinstance(getattr(self, name), str | None):
                raise ConfigurationError(f"{name}: must be an import path, not {getattr(self, name)!r}")
        if not isinstance(self.hard_deletes, bool):
            raise ConfigurationError(f"hard_deletes: {self.hard_deletes!r} is neither True nor False")

    def __repr__(self) -> str:
        parts = _split(self.url)
        return f"<StoreOptions {parts.hostname or 'socket'}{parts.path} schema={self.schema!r}>"

    def place(self, *, whole_database: bool = False) -> str:
        """Say in words where the store is, without its password."""
        parts = _split(self.url)
        database = f"database {parts.path.lstrip('/')!r} on {parts.hostname or 'the local socket'}"
        return f"the whole {database}" if whole_database else f"schema {self.schema!r} of {database}"

    @property
    def through_pooler(self) -> bool:
        """Whether ``url`` may give each transaction another server session."""
        return self.session_url is not None

    @classmethod
    def read(
        cls, url: str | None = None, *, environment: Mapping[str, str] | None = None, **settings: Any
    ) -> StoreOptions:
        """Put options together: what is given in code wins over the URL's query, and that over the environment."""
        environment = os.environ if environment is None else environment
        names = {field.name for field in fields(cls)}
        if unknown := settings.keys() - names:
            raise ConfigurationError(f"unknown settings: {', '.join(sorted(unknown))}")
        found: dict[str, Any] = {
            name: environment[variable]
            for name in names
            if environment.get(variable := ENVIRONMENT_PREFIX + name.upper())
        }
        found["url"] = url or environment.get(URL_VARIABLE) or environment.get("DATABASE_URL") or ""
        if not found["url"]:
            raise ConfigurationError(
                f"url: say where the database is, postgresql://user@host:5432/database, or set {URL_VARIABLE}"
            )
        # What a URL says may come from afar: it never says what to import.
        bare, in_query = _take_query(found["url"], names - {"url", *IMPORTED})
        found |= in_query | {"url": bare}
        parsed = {name: _parse(name, value) for name, value in found.items()}
        return cls(**(parsed | {name: value for name, value in settings.items() if value is not None}))

    def without_payloads(self) -> StoreOptions:
        """Return the same options for a program that never looks into a payload: it need not import the user's code."""
        return replace(self, types=None, encryption=None, codec=None)

    def with_schema(self, schema: str) -> StoreOptions:
        """Return the same options for another schema of the database."""
        return replace(self, schema=schema)


def join_url(parts: SplitResult) -> str:
    """Put a URL together; one without a host, for a socket, keeps its empty place."""
    if parts.netloc:
        return urlunsplit(parts)
    return f"{parts.scheme}://{urlunsplit(parts._replace(scheme=''))}"


def _split(url: object) -> Any:
    if not isinstance(url, str):
        raise ConfigurationError(f"url: must be a str, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ConfigurationError(f"url: {error}") from error
    return parts


def _take_query(url: str, names: set[str]) -> tuple[str, dict[str, Any]]:
    parts = _split(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    taken = {name: value for name, value in pairs if name in names}
    # libpq takes a plus for a plus, and only %20 for a space.
    rest = urlencode([(name, value) for name, value in pairs if name not in names], quote_via=quote)
    return join_url(parts._replace(query=rest)), taken


def _parse(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        if name == "pool_size":
            return int(value)
        if name == "timeout":
            return float(value)
    except ValueError:
        raise ConfigurationError(f"{name}: {value!r} is not a number") from None
    if name == "hard_deletes":
        if value.lower() in {"1", "true", "yes", "on"}:
            return True
        if value.lower() in {"0", "false", "no", "off"}:
            return False
        raise ConfigurationError(f"hard_deletes: {value!r} is neither true nor false")
    return value
