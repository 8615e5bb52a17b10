"""The durable side: events, streams, checkpoints and leases in Postgres, hints in Redis.

Knows nothing of handlers, of phases or of Ray.
"""
