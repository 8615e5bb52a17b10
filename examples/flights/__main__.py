"""The demo's entry point: ``python -m examples.flights``."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        from examples.flights.main import main

        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(130)
