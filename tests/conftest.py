"""Loads the fixture plugins: one file for each concern, all of them in tests/plugins."""

pytest_plugins = [
    "tests.plugins.leaks",
    "tests.plugins.environment",
    "tests.plugins.generated",
    "tests.plugins.servers",
    "tests.plugins.databases",
    "tests.plugins.grouping",
    "tests.plugins.budget",
    "tests.plugins.parity",
]
