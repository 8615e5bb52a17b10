"""``python -m headwater``: the command line."""

from headwater.cluster.cli import main

main()
