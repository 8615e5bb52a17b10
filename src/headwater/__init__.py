"""Headwater: a distributed event store and subscription runtime."""
