"""`python -m compresslab`: the command line."""

from __future__ import annotations

from compresslab.cli.main import main

if __name__ == "__main__":
    main()
