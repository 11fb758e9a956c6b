"""A base that the store refers to: nothing is copied, results are those of a copy, and a folder that has changed or is gone is told."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from faults.study import make_model
from safetensors.torch import load_file, save_file

from compresslab.plan.prepare import prepare
from compresslab.records import StepRecord
from compresslab.runner.run import run
from compresslab.runner.watcher import Watcher
from compresslab.store.done import is_done
from compresslab.store.reference import copy_model, refer
from compresslab.store.store import Store
from compresslab.store.upkeep import damages


@pytest.fixture
def referred(tmp_path: Path) -> tuple[Store, Path]:
    """A store with one result, `base`, that refers to a model's folder."""
    folder, store = tmp_path / "model", Store(tmp_path / "store")
    make_model(folder)
    with store.stage("base") as staged:
        refer(staged, folder, {path.name: path for path in folder.iterdir()})
        (staged / "record.json").write_text("{}")
        store.commit("base", staged)
    return store, folder


def test_a_study_on_a_referred_base_gives_what_one_on_a_copy_gives(tmp_path: Path, recipe_text: str) -> None:
    start, end = recipe_text.index("  pruned:"), recipe_text.index("evaluate:")
    variants = "  pruned: [{prune: {method: width, keep: 0.5}}, {prune: {method: wanda, sparsity: 0.5}}]\n"
    text = f"{recipe_text[:start]}{variants}{recipe_text[end:]}"
    recipe, store = tmp_path / "recipe.yaml", Store(tmp_path / "store")
    recipe.write_text(text.replace(", store_copy: true", ""))
    plan = prepare(recipe)
    assert not run(plan, store, Watcher()).failures
    base, *made = [node for node in plan.nodes if node.kind == "model"]
    assert not (store.folder(base.key) / "model").exists()
    assert str(store.model(base.key)) == plan.recipe.base.model
    record = store.read(base.key, StepRecord)
    assert record.reload_difference == 0

    recipe.write_text(text)
    copied = prepare(recipe)
    assert [node.key for node in copied.nodes] == [node.key for node in plan.nodes]
    assert not is_done(copied.node(base.key), store)
    other = Store(tmp_path / "other")
    assert not run(copied, other, Watcher()).failures
    assert (other.model(base.key) / "model.safetensors").is_file()
    again = other.read(base.key, StepRecord)
    assert again.model_copy(update={"config": record.config}) == record
    for node in made:
        for file in (store.model(node.key), other.model(node.key)):
            assert file.is_dir()
        assert (store.model(node.key) / "model.safetensors").read_bytes() == (other.model(node.key) / "model.safetensors").read_bytes()

    assert not run(copied, store, Watcher()).failures
    assert (store.folder(base.key) / "model" / "model.safetensors").is_file()


def test_a_base_that_stores_its_tied_head_too_is_copied_with_one_of_them(tmp_path: Path, recipe_text: str) -> None:
    folder, store = tmp_path / "model", Store(tmp_path / "store")
    make_model(folder)
    weights = folder / "model.safetensors"
    plain = load_file(weights)
    save_file(plain | {"lm_head.weight": plain["model.embed_tokens.weight"].clone()}, weights, {"format": "pt"})
    start, end = recipe_text.index("variants:"), recipe_text.index("evaluate:")
    text = f"{recipe_text[:start]}variants: {{}}\n{recipe_text[end:]}".replace(", store_copy: true", "")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(re.sub("model: [^,]*,", f"model: {folder},", text, count=1))
    plan = prepare(recipe)
    assert not run(plan, store, Watcher()).failures
    base = next(plan.of_kind("model"))
    assert not store.refers(base.key)
    size = store.read(base.key, StepRecord).size
    assert size.parameters == sum(tensor.numel() for tensor in plain.values())
    assert size.effective_bits == 16
    assert load_file(store.model(base.key) / "model.safetensors").keys() == plain.keys()


def test_a_referred_folder_that_has_changed_is_told(referred: tuple[Store, Path]) -> None:
    store, folder = referred
    assert store.model("base") == folder
    assert not store.problem("base", None, every_byte=True)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert not store.problem("base", None)
    assert f"{weights}, which it refers to, has changed since" in store.problem("base", None, every_byte=True)
    weights.write_bytes(content + b"0")
    assert "has changed since" in store.problem("base", None)
    assert "has changed since" in damages(store, {"base": None})[0].problems[0]


def test_a_referred_folder_that_is_gone_or_has_more_files_is_told(referred: tuple[Store, Path]) -> None:
    store, folder = referred
    (folder / "added_tokens.json").write_text("{}")
    (folder / "notes.md").write_text("no loader reads this")
    assert store.unwritten("base") == [str(folder / "added_tokens.json")]
    shutil.rmtree(folder)
    assert (
        store.problem("base", None) == f"the folder {folder}, which it refers to, is gone; put it back, or name the model where it is now"
    )


def test_the_same_model_at_another_place_is_the_same_result(referred: tuple[Store, Path], tmp_path: Path) -> None:
    store, folder = referred
    before, moved = store.content("base"), tmp_path / "moved"
    folder.rename(moved)
    with store.stage("base") as staged:
        refer(staged, moved, {path.name: path for path in moved.iterdir()})
        (staged / "record.json").write_text("{}")
        store.commit("base", staged)
    assert store.model("base") == moved
    assert store.content("base") == before


def test_an_export_copies_what_a_loader_reads(referred: tuple[Store, Path], tmp_path: Path) -> None:
    store, folder = referred
    (folder / "pytorch_model.bin").write_text("pickled")
    copy_model(store.folder("base"), tmp_path / "export")
    assert (tmp_path / "export" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert not (tmp_path / "export" / "pytorch_model.bin").exists()
