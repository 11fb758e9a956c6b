"""A small model's folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipe.folders import weights


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    weights(path / "model.safetensors")
    (path / "config.json").write_text('{"model_type": "llama"}')
    (path / "tokenizer.json").write_text('{"model": {"vocab": {}}}')
    return path
