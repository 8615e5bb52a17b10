"""The ways to the database: direct, by a socket's folder, and another one for sessions."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from headwater.storage.options import StoreOptions
from headwater.storage.postgres.connect import connect


@pytest.mark.parity("T026", "T025")
async def test_the_way_for_sessions_has_the_other_settings_of_the_store(database_url: str) -> None:
    parts = urlsplit(database_url)
    through_a_pooler = parts._replace(path="/a_pooler_would_know").geturl()
    options = StoreOptions(url=through_a_pooler, session_url=database_url, application_name="shop", timeout=7)
    async with await connect(options, session=True) as conn:
        assert conn.info.dbname == parts.path.strip("/")
        assert conn.autocommit
        assert conn.info.get_parameters()["application_name"] == "shop"
        assert conn.info.get_parameters()["connect_timeout"] == "7"


@pytest.mark.parity("T022", "T020")
def test_a_sockets_folder_stays_in_the_url_for_the_driver() -> None:
    options = StoreOptions.read("postgresql:///shop?host=%2Frun%2Fpostgresql&pool_size=3", environment={})
    assert (options.url, options.pool_size) == ("postgresql:///shop?host=%2Frun%2Fpostgresql", 3)
