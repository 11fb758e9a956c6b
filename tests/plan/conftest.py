"""Minimal model folders for plans."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from plan_helpers import CONFIG, FolderMaker, write_safetensors


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
