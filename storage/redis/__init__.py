"""Hints over Redis or Valkey: the news that the head moved.

Holds no truth: losing all of it costs latency, never an event.
"""

from headwater.storage.redis.hints import RedisHints

__all__ = ["RedisHints"]
