"""Which programs are taken, and what is said when there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.storage.embedded import binaries
from headwater.storage.errors import ConfigurationError


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which neither the wheels nor any server program is installed."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr(binaries, "SYSTEM_POSTGRES", ())
    monkeypatch.setenv("PATH", "")


def program(path: Path, answer: str = "") -> Path:
    """Make a program that says one thing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


def postgres(folder: Path, version: str) -> Path:
    """Make a folder that looks like an installed PostgreSQL."""
    program(folder / "initdb")
    return program(folder / "postgres", f"postgres (PostgreSQL) {version}").parent


def test_without_any_postgres_the_ways_to_one_are_named() -> None:
    with pytest.raises(ConfigurationError) as missing:
        binaries.postgres_folder()
    for way in ("URL", "pip install 'headwater[embedded]'", "from the system", "docker compose up"):
        assert way in str(missing.value)
    assert "\n" not in str(missing.value)


def test_without_any_redis_the_ways_to_one_are_named() -> None:
    with pytest.raises(ConfigurationError, match="pip install 'headwater"):
        binaries.redis_program()


def test_the_newest_system_postgres_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("9.6.24", "15.4", "17.0", "16.9"):
        postgres(tmp_path / version.partition(".")[0] / "bin", version)
    monkeypatch.setattr(binaries, "SYSTEM_POSTGRES", (f"{tmp_path}/*/bin",))
    assert binaries.postgres_folder() == tmp_path / "17" / "bin"


def test_a_postgres_that_is_too_old_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres(tmp_path / "13" / "bin", "13.14")
    monkeypatch.setattr(binaries, "SYSTEM_POSTGRES", (f"{tmp_path}/*/bin",))
    with pytest.raises(ConfigurationError, match="version 14 or newer"):
        binaries.postgres_folder()


def test_pg_config_on_the_path_goes_before_the_usual_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, usual = postgres(tmp_path / "named", "16.1"), postgres(tmp_path / "usual" / "18", "18.0")
    program(tmp_path / "path" / "pg_config", str(named))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setattr(binaries, "SYSTEM_POSTGRES", (str(usual),))
    assert binaries.postgres_folder() == named


def test_a_redis_server_on_the_path_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program(tmp_path / "redis-server") == binaries.redis_program()
