"""Files appear whole or not at all."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from compresslab.files import atomic_write

LENGTH = 1 << 20


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", ["ä\n", "ä\n".encode(), lambda part: part.write_text("ä\n", encoding="utf-8")])
def test_a_file_is_written_and_replaced(tmp_path: Path, content: str | bytes | Callable[[Path], object]) -> None:
    path = tmp_path / "a.json"
    for _ in range(2):
        atomic_write(path, content)
        assert path.read_bytes() == "ä\n".encode()
        assert names(tmp_path) == ["a.json"]


def test_a_writer_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")

    def fail(part: Path) -> None:
        part.write_text("half")
        assert path.read_text() == "old"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(path, fail)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_a_writer_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "a.json", lambda _: None)
    assert names(tmp_path) == []


def test_the_writer_sees_the_suffix_and_the_folder_of_the_file(tmp_path: Path) -> None:
    seen: list[Path] = []
    atomic_write(tmp_path / "ids.npz", lambda part: (seen.append(part), part.write_bytes(b"x")))
    assert (seen[0].parent, seen[0].suffix) == (tmp_path, ".npz")


def test_a_link_stays_a_link_and_a_long_name_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / ("n" * 245 + ".json"), tmp_path / "a.json"
    target.write_text("old")
    link.symlink_to(target)
    atomic_write(link, "new")
    assert (link.is_symlink(), target.read_text()) == (True, "new")


def test_the_folder_must_be_there(tmp_path: Path) -> None:
    """A staged result that was removed meanwhile must not come back as a folder of one file."""
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "gone" / "cost.json", "{}")
    assert names(tmp_path) == []


def test_content_is_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, synced = tmp_path / "a.json", []
    monkeypatch.setattr("compresslab.files.os.fsync", lambda _: synced.append(path.exists()))
    atomic_write(path, "new")
    assert synced == [False, True]  # the file, and after the rename its folder


def _write_often(path: Path, letter: str) -> None:
    for _ in range(20):
        atomic_write(path, letter * LENGTH)


def test_two_processes_that_write_one_path_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_write_often, args=(path, letter)) for letter in "ab"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            text = path.read_text()
            assert text in ("a" * LENGTH, "b" * LENGTH)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert names(tmp_path) == ["a.txt"]
