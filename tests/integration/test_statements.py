"""Every named statement is understood by the server: no typing error waits in a rare path."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg
import pytest

from headwater.storage.postgres.statements import Statements, named_statements
from tests.plugins.databases import new_database

# What the server has no plan for is not prepared; migrations, imports and their own tests run it.
UTILITY = re.compile(r"^(--[^\n]*\n)*\s*(CREATE|DROP|BEGIN|SET|LOCK|ALTER|COMMIT|COPY|LISTEN)", re.IGNORECASE)
PARAMETER = re.compile(r"%(?:\((\w+)\))?s")


def prepared(text: str) -> str:
    """Return a statement with the server's own parameters instead of the driver's."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        name = match[1] or f"without a name {len(names)}"
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    return f"PREPARE checked AS {PARAMETER.sub(number, text).replace('%%', '%')}"


@pytest.mark.parametrize("name", [name for name, text in named_statements().items() if not UTILITY.match(text)])
def test_the_server_understands_every_statement(migrated_url: str, name: str) -> None:
    text = getattr(Statements(), name).decode()
    with psycopg.connect(migrated_url) as conn:
        conn.execute(prepared(text))


@pytest.fixture(scope="module")
def migrated_url(database_server: str, template_database: str) -> Iterator[str]:
    """The URL of one database with the schema in it, for all statements."""
    with new_database(database_server, template_database) as url:
        yield url
