"""The servers of a test run: named ones, else containers, else embedded; one of each kind for all of its workers.

HEADWATER_TEST_DATABASE_URL and HEADWATER_TEST_REDIS_URL name servers. A run in several processes starts its servers in
the first of them, before the others; a run in one process when a test first asks.
"""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from headwater.storage.embedded import EmbeddedPostgres, EmbeddedRedis

POSTGRES_IMAGE: Final = "postgres:18"
REDIS_IMAGE: Final = "valkey/valkey:9.1"


class Servers:
    """Starts each server once, when it is first asked for; closing the stack stops them."""

    def __init__(self, stack: ExitStack, urls: dict[str, str] | None = None) -> None:
        self._stack = stack
        self._urls = dict(urls or {})

    def url(self, kind: str) -> str:
        """Return the URL of the server of that kind, ``"database"`` or ``"redis"``."""
        if kind not in self._urls:
            named = os.environ.get(f"HEADWATER_TEST_{kind.upper()}_URL")
            self._urls[kind] = named or (self._container(kind) if docker_answers() else self._embedded(kind))
        return self._urls[kind]

    def all(self) -> dict[str, str]:
        """Start what is not running; returns the URLs by kind."""
        return {kind: self.url(kind) for kind in ("database", "redis")}

    def _embedded(self, kind: str) -> str:
        server = EmbeddedPostgres(durable=False) if kind == "database" else EmbeddedRedis()
        return self._stack.enter_context(server).url

    def _container(self, kind: str) -> str:
        with warnings.catch_warnings():
            # What testcontainers warns its own authors of is no failure of ours.
            warnings.simplefilter("ignore")
            from testcontainers.postgres import PostgresContainer
            from testcontainers.redis import RedisContainer

            if kind == "redis":
                redis = self._stack.enter_context(RedisContainer(REDIS_IMAGE))
                return f"redis://{redis.get_container_host_ip()}:{redis.get_exposed_port(6379)}/0"
            postgres = PostgresContainer(POSTGRES_IMAGE).with_command("postgres -c max_connections=250 -c fsync=off")
            return str(self._stack.enter_context(postgres).get_connection_url(driver=None))


def docker_answers() -> bool:
    """Ask the Docker engine whether it is there; a missing one fails at once. Docker's own client leaks its sockets."""
    host = urlsplit(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")
    family, address = (
        (socket.AF_UNIX, host.path) if host.scheme == "unix" else (socket.AF_INET, (host.hostname, host.port or 2375))
    )
    with socket.socket(family) as engine:
        engine.settimeout(2)
        try:
            engine.connect(address)
            engine.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in engine.recv(64)
        except OSError:
            return False


STACK: Final = pytest.StashKey[ExitStack]()
SERVERS: Final = pytest.StashKey[Servers]()


def pytest_configure(config: pytest.Config) -> None:
    """Get ready to start servers; a worker takes those of its run."""
    given = getattr(config, "workerinput", {}).get("headwater_servers")
    config.stash[STACK] = ExitStack()
    config.stash[SERVERS] = Servers(config.stash[STACK], given)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Start the servers in the first process and tell each worker where they are."""
    node.workerinput["headwater_servers"] = node.config.stash[SERVERS].all()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what the first process of a run in several has started."""
    config.stash[STACK].close()


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Iterator[Servers]:
    """The run's servers. Those that this process starts end with its last test."""
    yield pytestconfig.stash[SERVERS]
    pytestconfig.stash[STACK].close()


@pytest.fixture(scope="session")
def database_server(servers: Servers) -> str:
    """The URL of a Postgres server, as a superuser. Make databases there, and drop them."""
    return servers.url("database")


@pytest.fixture(scope="session")
def redis_url(servers: Servers) -> str:
    """The URL of a Redis or Valkey that the whole run shares: use it with ``redis_namespace``."""
    return servers.url("redis")
