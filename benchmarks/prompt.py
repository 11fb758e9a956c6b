"""How soon the prompt is back after the commands that a person waits for: the best of some calls, in seconds.

    python benchmarks/prompt.py

Processor time stands beside wall time, since other work on the machine adds to the latter only.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

QUICKSTART = str(Path(__file__).parent.parent / "recipes" / "quickstart.yaml")
COMMANDS = (["--help"], ["validate", QUICKSTART], ["plan", QUICKSTART], ["ls"])


def call(arguments: list[str], folder: str) -> tuple[float, float]:
    """Wall and processor seconds of one call."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "compresslab.cli.main", *arguments], cwd=folder, capture_output=True, check=True)
    wall = time.perf_counter() - began
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def main() -> None:
    """Parse, call, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=8, help="calls of each command")
    calls = parser.parse_args().calls
    with tempfile.TemporaryDirectory() as folder:
        for arguments in COMMANDS:
            walls, processor = zip(*(call(arguments, folder) for _ in range(calls)), strict=True)
            print(f"{' '.join(arguments[:1]):10s} {min(walls):5.2f} s wall, {min(processor):5.2f} s of the processor")


if __name__ == "__main__":
    main()
