"""The deciding side: what a subscription does next, and the thin shell that does it.

Knows nothing of nodes, of placement or of Ray; reaches the database only through the ports it owns.
"""
