"""`python -m compresslab` and the command `compresslab`."""

from __future__ import annotations

import sys

INTERRUPTED = 130  # as `cli.main`: 128 and the number of SIGINT


def main() -> None:
    """Run the command line. Ctrl-C while its libraries are imported ends it without a traceback, too."""
    try:
        from compresslab.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
