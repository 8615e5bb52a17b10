"""Public in-memory twins of the durable side, held to the same contract suites as the Postgres adapters."""
