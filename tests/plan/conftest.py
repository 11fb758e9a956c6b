"""Minimal model folders for plans, and modules whose code is another one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from plan_helpers import CONFIG, FolderMaker, write_safetensors

from compresslab.plan import keys


@pytest.fixture
def folder(tmp_path: Path) -> FolderMaker:
    """Makes a model folder: a config, a tokenizer, a header of weights."""

    def make(name: str, words: str = "a b c", shapes: dict[str, list[int]] | None = None, **config: object) -> Path:
        path = tmp_path / name
        path.mkdir()
        (path / "config.json").write_text(json.dumps(CONFIG | config))
        vocabulary = {word: number for number, word in enumerate(words.split())}
        (path / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": vocabulary, "merges": []}, "added_tokens": []}))
        write_safetensors(path / "model.safetensors", shapes or {"w": [10, 10]})
        return path

    return make


@pytest.fixture
def change(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Makes the code of one module another one. Of the sandbox, too, whose modules keys name one by one."""
    read = keys._code

    def changed(module: str) -> None:
        assert read(module)
        monkeypatch.setattr(keys, "_code", lambda name: read(name)._replace(digest="another") if name == module else read(name))
        keys.code_version.cache_clear()

    yield changed
    keys.code_version.cache_clear()
