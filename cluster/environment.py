"""What Ray is told through the environment, before it is imported for the first time.

Imports nothing of Ray and starts nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Final

ALWAYS: Final[Mapping[str, str]] = {
    # Nothing is reported to anybody. Opting out still sends one "disabled" report, so its address leads nowhere.
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",
    # 'uv run' would otherwise make a fresh environment for each worker, and may download packages for it.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Events of single calls are of no use here and make the head grow without bound.
    "RAY_task_events_report_interval_ms": "0",
    # Ray will change its mind about devices hidden from actors without any; the future behaviour is the right one.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

LOCAL: Final[Mapping[str, str]] = {
    # Everything binds to loopback only, and nobody else is on loopback: no token is needed.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "disabled",
}

SYSTEM_CONFIG: Final[Mapping[str, int]] = {
    # A dead node is noticed within two seconds instead of fourteen, and a frozen one within five instead of 65.
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
    # Not below everything else: a host that gets no processor for as long as a lease loses all that it has.
    "worker_niceness": 0,
}
"""The cluster-wide settings of a head: as ``_system_config``, ``--system-config`` or ``RAY_<name>``."""


def persistence(folder: str) -> dict[str, str]:
    """Return what lets a head that was killed, and is started again, find its nodes and actors as they were."""
    return {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": folder}


NO_PROBES: Final[Mapping[str, str]] = {
    # The head's side process asks the cloud's metadata service who it is, also when told not to report: a proxy that
    # is not there keeps it from leaving the machine. Only the head gets this, so handlers reach what they want.
    "http_proxy": "http://127.0.0.1:9",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
}


def prepare(*, local: bool) -> None:
    """Set what is not set yet. Call before Ray is imported; ``local`` for a cluster on this machine alone."""
    for name, value in {**ALWAYS, **(LOCAL if local else {})}.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def without_probes() -> Iterator[None]:
    """Keep the processes that are started meanwhile from asking the cloud's metadata service anything."""
    before = {name: os.environ.get(name) for name in NO_PROBES}
    os.environ.update(NO_PROBES)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
