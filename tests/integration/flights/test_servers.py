"""What a run prepares on its servers, takes away again, and refuses."""

from __future__ import annotations

import psycopg
import pytest

from examples.flights.options import Options
from examples.flights.servers import servers
from headwater import ConfigurationError


def schemas(database_url: str) -> set[str]:
    with psycopg.connect(database_url) as conn:
        return {name for (name,) in conn.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'flights%'")}


def test_a_given_database_gets_tables_and_loses_them_again(empty_database_url, redis_url):
    with servers(Options(database_url=empty_database_url, redis_url=redis_url)) as up:
        assert up.database_url == empty_database_url
        assert schemas(empty_database_url) == {"flights"}
    assert schemas(empty_database_url) == set()


def test_kept_tables_stay_and_keep_a_second_run_out(empty_database_url, redis_url):
    with servers(Options(database_url=empty_database_url, redis_url=redis_url, keep=True)):
        pass
    assert schemas(empty_database_url) == {"flights"}
    again = servers(Options(database_url=empty_database_url, redis_url=redis_url))
    with pytest.raises(ConfigurationError, match="holds an earlier run"), again:
        pass
    assert schemas(empty_database_url) == {"flights"}


def test_a_redis_that_does_not_answer_is_a_problem_before_anything_starts(empty_database_url):
    given = servers(Options(database_url=empty_database_url, redis_url="redis://127.0.0.1:1/0"))
    with pytest.raises(ConfigurationError, match="the Redis cannot be used"), given:
        pass
