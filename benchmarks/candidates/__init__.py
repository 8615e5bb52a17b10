"""Who is measured: Headwater, the limit that the server sets, and the library ``eventsourcing``."""
