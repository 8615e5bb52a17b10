"""The event store, leases and checkpoints on PostgreSQL. The only place that speaks SQL.

Statements are whole and literal in ``sql/``; everything else here sends them and reads the answers.
"""
