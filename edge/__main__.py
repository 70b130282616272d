"""`edge` and `python -m edge`: the command line."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the command line; the exit codes are those of design §7 (0 done, 1 findings, 2 usage, 4 unsafe, 70 bug)."""
    # Before anything is loaded: aiohttp makes contexts of its own when imported, and OpenSSL would write session keys there.
    os.environ.pop("SSLKEYLOGFILE", None)
    from edge.cli import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
