"""The embedded Valkey."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from headwater.storage.embedded import EmbeddedRedis
from headwater.storage.errors import ConfigurationError
from tests.plugins.processes import is_listening, is_running


def test_it_passes_messages_and_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with EmbeddedRedis() as server:
        pid = server.pid
        with redis.Redis.from_url(server.url) as client, client.pubsub() as pubsub:
            pubsub.subscribe("hints")
            assert pubsub.get_message(timeout=10)["type"] == "subscribe"
            assert client.publish("hints", b"7") == 1
            assert pubsub.get_message(timeout=10)["data"] == b"7"
            assert client.config_get("save") == {"save": ""}
            assert client.config_get("bind") == {"bind": "127.0.0.1"}
    assert not is_running(pid)
    assert not is_listening(server.port)
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_refused() -> None:
    with EmbeddedRedis() as first, pytest.raises(ConfigurationError, match=f"port {first.port} on .* is in use"):
        EmbeddedRedis(first.port).start()


def test_a_stop_without_a_start_and_a_second_start_do_nothing() -> None:
    server = EmbeddedRedis()
    server.stop()
    with server:
        pid = server.pid
        assert server.start().pid == pid
