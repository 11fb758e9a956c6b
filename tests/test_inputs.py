"""Whatever a user names as a file is opened only if it is a regular one, and read only as far as its kind may go."""

from __future__ import annotations

import os
import pty
import socket
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from compresslab import inputs
from compresslab.catalog.references import unknown_reference
from compresslab.density.references.reference import Reference
from compresslab.density.references.user import read_table
from compresslab.errors import BadInput
from compresslab.inputs import read_regular
from compresslab.recipe.load import load
from compresslab.recipe.source import text_identity
from compresslab.records import StudyNote, StudyRecord, read_record
from compresslab.store.store import Store


def _text(path: Path) -> object:
    from compresslab.models.text import documents

    return list(documents(str(path), 0))


READERS: dict[str, Callable[[Path], object]] = {
    "r.yaml": load,
    "t.txt": lambda path: text_identity(str(path)),
    "read.txt": _text,
    "reference.json": lambda path: Reference.load(str(path)),
    "table.csv": read_table,
    "study.json": lambda path: read_record(path, StudyRecord, "write it again"),
    "note.json": lambda path: read_record(path, StudyNote, "write it again"),
}


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _terminal(path: Path) -> None:
    _, terminal = pty.openpty()
    path.symlink_to(os.ttyname(terminal))


MADE: dict[str, Callable[[Path], object]] = {
    "a named pipe": os.mkfifo,
    "a socket": _socket,
    "a character device": lambda path: path.symlink_to("/dev/zero"),
    "a character device, a terminal": _terminal,
    "a folder": Path.mkdir,
}


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("name", READERS)
def test_only_regular_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    path = Path(name)
    MADE[kind](path)
    caught: list[BaseException] = []

    def read() -> None:
        try:
            READERS[name](path)
        except BadInput as error:
            caught.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(5)
    assert not reader.is_alive(), "it hangs"
    assert name in str(caught[0])
    assert kind.split(",")[0] in str(caught[0])


@pytest.mark.parametrize("name", READERS)
def test_a_file_without_end_is_not_read_whole(tmp_path: Path, name: str):
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(BadInput, match=r"larger than [\d,]+ bytes|at most [\d,]+"):
        READERS[name](path)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"version":' * 100_000])
@pytest.mark.parametrize("name", [name for name in READERS if name.endswith(".json")])
def test_json_without_a_bottom_is_one_message(tmp_path: Path, name: str, content: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(BadInput, match=name):
        READERS[name](tmp_path / name)


def test_a_deep_line_of_a_text_has_its_place(tmp_path: Path):
    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n' + "[" * 100_000)
    with pytest.raises(BadInput, match=r"t\.jsonl:2: .*nested too deeply"):
        _text(tmp_path / "t.jsonl")


def test_a_note_that_is_a_pipe_does_not_hang_a_store(tmp_path: Path):
    store = Store(tmp_path)
    store.studies.mkdir()
    os.mkfifo(store.note("s"))
    assert store.notes() == {}
    assert "a named pipe" in str(store.broken_notes()[0])


@pytest.mark.parametrize("name", ["\0.json", "a" * 5000 + ".json"])
def test_a_name_that_cannot_be_a_path_is_unknown(name: str):
    assert "there is no reference file" in unknown_reference(name)


def test_a_file_is_digested_again_only_after_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inputs, "SETTLED_SECONDS", -1.0)
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    opened: list[object] = []
    digest = inputs.hashlib.file_digest
    monkeypatch.setattr(inputs.hashlib, "file_digest", lambda *args: opened.append(args) or digest(*args))
    assert inputs.sha256_of(path) == inputs.sha256_of(path)
    assert len(opened) == 1
    path.write_bytes(b"abcd")
    inputs.sha256_of(path)
    assert len(opened) == 2


def test_reading_a_small_file_takes_little_memory_whatever_the_limit(tmp_path: Path):
    (tmp_path / "t").write_bytes(b"small")
    tracemalloc.start()
    assert read_regular(tmp_path / "t", 4 * 2**30) == b"small"
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    (tmp_path / "t").write_bytes(b"x" * 200_000)
    assert len(read_regular(tmp_path / "t", 200_000)) == 200_000
    with pytest.raises(OSError, match="larger than 199,999 bytes"):
        read_regular(tmp_path / "t", 199_999)
