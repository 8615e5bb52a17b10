"""The embedded PostgreSQL: real starts and stops, on data that is new, old, foreign or in use."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest

from headwater.storage.embedded import EmbeddedPostgres, folder
from headwater.storage.errors import ConfigurationError
from tests.plugins.processes import descendants, is_listening, is_running
from tests.plugins.waiting import wait_until


def fast(data_dir: Path | None = None, port: int = 0, **settings: str) -> EmbeddedPostgres:
    """Return a server that starts quickly: small, and not safe against a crash of the machine."""
    return EmbeddedPostgres(data_dir, port, durable=False, settings={"shared_buffers": "16MB", **settings})


@pytest.fixture
def occupied_port() -> Iterator[int]:
    """Give a port of the loopback interface on which somebody else listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_start_on_existing_data_keeps_it(tmp_path: Path) -> None:
    with fast(tmp_path / "data") as server, psycopg.connect(server.url) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    with fast(tmp_path / "data") as server, psycopg.connect(server.url) as conn:
        assert conn.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_after_a_stop_nothing_runs_listens_or_is_left_of_throw_away_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    server = fast().start()
    pid = server.pid
    assert is_running(pid)
    assert is_listening(server.port)
    server.stop()
    assert not is_running(pid)
    assert not is_listening(server.port)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_was_killed_starts_again_on_its_port_with_its_data(tmp_path: Path) -> None:
    with fast(tmp_path / "data") as server:
        with psycopg.connect(server.url) as conn:
            conn.execute("CREATE TABLE kept ()")
        url = server.url
        os.kill(server.pid, 9)
        wait_until(lambda: not server.running)
        server.start()
        assert server.url == url
        with psycopg.connect(url) as conn:
            conn.execute("SELECT FROM kept")


def test_a_start_waits_for_what_a_killed_server_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fast(tmp_path / "data") as server:
        left = next(each.pid for each in descendants(server.pid) if "checkpointer" in each.command)
        os.kill(left, signal.SIGSTOP)  # it notices the end of its server when it goes on
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.running)

        def goes_on(seconds: float) -> None:
            os.kill(left, signal.SIGCONT)
            wait_until(lambda: not is_running(left))

        monkeypatch.setattr(folder, "time", SimpleNamespace(monotonic=time.monotonic, sleep=goes_on))
        try:
            server.start()
        finally:
            if is_running(left):
                os.kill(left, signal.SIGKILL)
        assert is_running(server.pid)


def test_only_the_loopback_interface_is_listened_on() -> None:
    with fast() as server, psycopg.connect(server.url) as conn:
        assert conn.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
        assert conn.execute("SHOW unix_socket_directories").fetchone() == ("",)


def test_nobody_gets_in_without_the_password() -> None:
    with fast() as server, pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://postgres@127.0.0.1:{server.port}/postgres", password="guessed")


def test_settings_reach_the_server() -> None:
    with fast(wal_level="logical") as server, psycopg.connect(server.url) as conn:
        assert conn.execute("SHOW wal_level").fetchone() == ("logical",)
        assert conn.execute("SHOW fsync").fetchone() == ("off",)


def test_a_port_in_use_is_refused_in_one_line(occupied_port: int) -> None:
    with pytest.raises(ConfigurationError) as refused:
        fast(port=occupied_port).start()
    assert str(refused.value).startswith(f"port {occupied_port} on 127.0.0.1 is in use")
    assert "\n" not in str(refused.value)


def test_an_impossible_port_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="99999 is not a port"):
        fast(port=99999).start()


def test_a_second_server_on_the_same_data_is_refused(tmp_path: Path) -> None:
    with fast(tmp_path / "data"), pytest.raises(ConfigurationError, match="in use by another server"):
        fast(tmp_path / "data").start()


def test_data_of_another_major_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    with fast(tmp_path / "data"):
        pass
    version = tmp_path / "data" / "data" / "PG_VERSION"
    version.write_text("13\n")
    with pytest.raises(ConfigurationError, match="made by PostgreSQL 13, and this is PostgreSQL"):
        fast(tmp_path / "data").start()
    assert version.read_text() == "13\n"


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").write_text("16\n")
    with pytest.raises(ConfigurationError, match=r"not made by Headwater \(it holds PG_VERSION\)"):
        fast(tmp_path).start()
    assert [path.name for path in tmp_path.iterdir()] == ["PG_VERSION"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot make the data folder"):
        fast(tmp_path / "file" / "data").start()


def test_a_server_that_does_not_come_up_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"(?s)PostgreSQL ended with status 1 .*invalid value for parameter"):
        fast(tmp_path / "data", work_mem="plenty").start()


def test_data_that_was_half_made_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "making" / "base").mkdir(parents=True)
    (folder / "lock").touch()
    with fast(folder) as server, psycopg.connect(server.url) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_the_servers_own_environment_variables_do_not_lead_it_astray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("LC_ALL", "xx_YY.UTF-8")
    with fast() as server, psycopg.connect(server.url) as conn:
        assert conn.execute("SHOW server_encoding").fetchone() == ("UTF8",)
