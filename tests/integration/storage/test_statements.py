"""Every statement is one that Postgres understands, and the hot ones use their indexes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from headwater.storage.postgres.statements import Statements, named_statements


@pytest.fixture
def conn(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as conn:
        yield conn


def numbered(statement: str) -> str:
    """Return a statement with the driver's placeholders as the server wants them."""
    numbers: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        return f"${numbers.setdefault(match[1] or str(len(numbers)), len(numbers) + 1)}"

    return re.sub(r"%%|%(?:\((\w+)\))?s", number, statement)


def test_postgres_understands_every_statement(conn: psycopg.Connection[Any]) -> None:
    sql = Statements()
    refused = {}
    for name in named_statements():
        statement = numbered(getattr(sql, name).decode())
        if not re.match(r"\s*(--[^\n]*\n\s*)*(SELECT|INSERT|UPDATE|DELETE|WITH|VALUES|MERGE)", statement):
            continue  # what changes the schema cannot be prepared; the migrations run it
        try:
            conn.execute(f"PREPARE tried AS {statement}".encode())
            conn.execute("DEALLOCATE tried")
        except psycopg.Error as error:
            refused[name] = str(error)
    assert not refused


def test_a_statement_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="read_nothing"):
        _ = Statements().read_nothing


def fill(conn: psycopg.Connection[Any]) -> None:
    conn.execute(
        'INSERT INTO "headwater"."events"'
        " SELECT n, 's-' || n % 300, n / 300 + 1, gen_random_uuid(), 'T' || n % 5, '{}',"
        " NULL, NULL, NULL, now(), NULL, 1"
        " FROM generate_series(1, 30000) AS n"
    )
    conn.execute(
        'INSERT INTO "headwater"."streams" ("name", "version") SELECT \'s-\' || n, 100 FROM generate_series(0, 9999) n'
    )
    conn.execute('UPDATE "headwater"."head" SET "position" = 30000')
    conn.execute('ANALYZE "headwater"."events"')
    conn.execute('ANALYZE "headwater"."streams"')


HOT = {
    "read_forward": {"stream": "s-7", "start": 1, "limit": 1000},
    "read_backward": {"stream": "s-7", "start": 2**62, "limit": 1000},
    "read_linked_forward": {"stream": "s-7", "start": 1, "limit": 100},
    "read_all_forward": {"start": 100, "limit": 1000},
    "read_all_backward": {"start": 20000, "limit": 1000},
    "stream_state": {"stream": "s-7"},
    "read_window": dict.fromkeys(("types", "streams", "categories", "prefix", "tags", "since", "until"))
    | {"after": 100, "to": 4100, "limit": 100},
}


@pytest.mark.parametrize("name", HOT)
def test_a_hot_statement_reads_by_index(conn: psycopg.Connection[Any], name: str) -> None:
    fill(conn)
    statement = getattr(Statements(), name)
    parameters: Any = HOT[name]
    row = conn.execute(b"EXPLAIN (FORMAT JSON) " + statement, parameters, prepare=True).fetchone()
    assert row is not None
    text = json.dumps(row[0])
    assert "Seq Scan" not in text, text
    assert "Index" in text
