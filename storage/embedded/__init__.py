"""Real servers from wheels or from the system, for development, the demonstration and tests; never for production."""

from headwater.storage.embedded.development import development_servers, serve
from headwater.storage.embedded.postgres import EmbeddedPostgres
from headwater.storage.embedded.redis import EmbeddedRedis

__all__ = ["EmbeddedPostgres", "EmbeddedRedis", "development_servers", "serve"]
