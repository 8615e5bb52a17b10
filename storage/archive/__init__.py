"""Archived ranges of events as files: an open format, written once and checked before anything relies on it.

Knows no database.
"""
