"""Public in-memory twins of the durable side, held to the same contract suites as the Postgres adapters."""

from headwater.storage.memory.store import MemoryEventStore
from headwater.storage.memory.transaction import MemoryTransaction

__all__ = ["MemoryEventStore", "MemoryTransaction"]
