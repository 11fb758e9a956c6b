"""A power failure on a real file system: what an ext4 image holds a moment after commits that were said to be done.

The image is mounted by a loop device. It is copied while it is mounted, as a power failure would leave it, and the copy is mounted and
read. This needs root and loop devices.

    python tests/faults/ext4_image.py [--commits 20]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from compresslab.store.store import Store

MEGABYTES = 96
WEIGHTS = 1_000_000


class Found(NamedTuple):
    """Of all commits that were done, how many are there and whole, and how many look whole and are not."""

    commits: int
    whole: int
    wrong: int


def available() -> bool:
    """Whether this system lets us mount an image."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("mkfs.ext4", "mount", "umount", "losetup"))):
        return False
    with tempfile.TemporaryDirectory(prefix="ext4-image-") as scratch:
        try:
            with _mounted(_image(Path(scratch)), Path(scratch) / "mounted"):
                return True
        except subprocess.CalledProcessError:
            return False


def after_a_power_failure(commits: int) -> Found:
    """Commit results onto an image, copy it at once, and look at the copy."""
    with tempfile.TemporaryDirectory(prefix="ext4-image-") as scratch:
        image, copy = _image(Path(scratch)), Path(scratch) / "copy"
        with _mounted(image, Path(scratch) / "mounted") as root:
            store = Store(root / "store")
            for number in range(commits):
                key = f"{number:024x}"
                with store.leases.waited(key), store.stage(key) as staged:
                    (staged / "model").mkdir()
                    (staged / "model" / "weights").write_bytes(bytes([number + 1]) * WEIGHTS)
                    (staged / "items").write_bytes(bytes([number + 1]) * 500)
                    store.commit(key, staged)
            shutil.copyfile(image, copy)
        with _mounted(copy, Path(scratch) / "mounted-copy") as root:
            store, whole, wrong = Store(root / "store"), 0, 0
            for number in range(commits):
                key = f"{number:024x}"
                if store.has(key):
                    right = (store.model(key) / "weights").read_bytes() == bytes([number + 1]) * WEIGHTS
                    whole, wrong = whole + right, wrong + (not right)
        return Found(commits, whole, wrong)


def _image(folder: Path) -> Path:
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(MEGABYTES * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, capture_output=True)
    return image


@contextlib.contextmanager
def _mounted(image: Path, place: Path) -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True, capture_output=True)


def main() -> None:
    """Print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=20)
    if not available():
        print("ext4 image: not tried, since this system gives no loop devices")
        return
    found = after_a_power_failure(parser.parse_args().commits)
    text = f"ext4 image: of {found.commits} commits {found.whole} are there and whole, {found.wrong} look whole and are not"
    print(text)
    raise SystemExit(found != (found.commits, found.commits, 0))


if __name__ == "__main__":
    main()
