"""Which files of a model's folder are in its keys, and which folders are refused before anything reads them."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from importlib import util
from pathlib import Path

import pytest
from recipe.folders import identity, pipe, put, shards, socket_at, weights

from compresslab import inputs
from compresslab.errors import BadInput
from compresslab.plan import keys
from compresslab.plan.rules import start
from compresslab.recipe import model_folder
from compresslab.recipe.source import Source


@pytest.mark.parametrize(
    "name",
    [
        *("qwen.tiktoken", "source.spm", "ice_text.model", "added_tokens.json", "vocab", "additional_chat_templates/tool.jinja"),
    ],
)
def test_every_file_that_a_loader_may_read_is_in_the_keys(folder: Path, name: str):
    before = identity(folder)
    put(name, "one")(folder)
    one = identity(folder)
    put(name, "two")(folder)
    assert len({str(found) for found in (before, one, identity(folder))}) == 3


@pytest.mark.parametrize(
    "name",
    [
        *("README.md", "LICENSE", ".git/index", "picture.png", "__pycache__/a.pyc", "checkpoint-20/model.safetensors", "model.onnx"),
        *("checkpoint-4bit-128g.safetensors", "model-00001-of-00002.safetensors", "consolidated.safetensors"),
        *("recipe.yaml", "Thumbs.db", "config.json~", "run.log", "reports/s/study.json", "store/objects/1/model/config.json"),
    ],
)
def test_what_no_loader_reads_leaves_the_keys(folder: Path, name: str):
    before = identity(folder)
    put(name)(folder)
    assert identity(folder) == before


def test_shards_in_a_subfolder_are_in_the_keys_wherever_they_lie(folder: Path):
    weights(folder / "checkpoint-20" / "a.safetensors", b"one!")
    shards(folder, "checkpoint-20/a.safetensors")
    before = identity(folder)
    weights(folder / "checkpoint-20" / "a.safetensors", b"two!")
    assert "checkpoint-20/a.safetensors" in before
    assert identity(folder) != before


def test_code_that_the_configuration_names_is_in_the_keys(folder: Path):
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoConfig": "runs/code.Config", "AutoTokenizer": ["code.T", None]}}))
    put("runs/code.py")(folder)
    assert "runs/code.py" in identity(folder)


def test_weights_that_the_configuration_names_are_in_the_keys(folder: Path):
    (folder / "config.json").write_text(json.dumps({"transformers_weights": "runs/a.safetensors"}))
    weights(folder / "runs" / "a.safetensors")
    assert "runs/a.safetensors" in identity(folder)


@pytest.mark.parametrize("config", [{"auto_map": {"AutoConfig": "../code.C"}}, {"transformers_weights": "/a.safetensors"}])
def test_a_configuration_names_files_of_its_folder(folder: Path, config: dict[str, object]):
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match=r"config\.json names '.*', which is outside of the model's folder"):
        start(str(folder))


@pytest.mark.parametrize("cached_from", [0, 2**40])
def test_a_file_edited_with_its_size_and_time_restored_changes_the_keys(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached_from: int
):
    monkeypatch.setenv("COMPRESSLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(keys, "CACHED_FROM_BYTES", cached_from)
    monkeypatch.setattr(inputs, "SETTLED_SECONDS", 0.01)
    time.sleep(0.03)
    before, status = identity(folder), (folder / "model.safetensors").stat()
    assert identity(folder) == before
    assert (tmp_path / "cache" / keys.DIGEST_CACHE).exists() is (cached_from == 0)
    weights(folder / "model.safetensors", b"4321")
    os.utime(folder / "model.safetensors", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (folder / "model.safetensors").stat().st_mtime_ns == status.st_mtime_ns
    assert identity(folder) != before


def test_a_file_that_changes_right_after_it_was_read_changes_the_keys(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Within one tick of the file system's clock, two writes leave the same stamp."""
    now = time.time_ns()
    monkeypatch.setattr(inputs.Stamp, "of", lambda _: inputs.Stamp(0, 0, 0, now, now))
    before = identity(folder)
    weights(folder / "model.safetensors", b"4321")
    assert identity(folder) != before


def test_a_snapshot_of_the_hubs_cache_may_consist_of_links(tmp_path: Path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    weights(blobs / "1")
    (blobs / "2").write_text(json.dumps({"metadata": {}, "weight_map": {"w": "model-1.safetensors"}}))
    (blobs / "3").write_text("{}")
    for link, blob in {"model-1.safetensors": "1", "model.safetensors.index.json": "2", "config.json": "3"}.items():
        (snapshot / link).symlink_to(f"../../blobs/{blob}")
    assert set(identity(snapshot)) == {"config.json", "model-1.safetensors", "model.safetensors.index.json"}


def own_code(folder: Path, reference: str = "code.Config") -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "auto_map": {"AutoConfig": reference}}))


@pytest.mark.parametrize("name", ["code/nested/layers.py", "table.bin", "checkpoint-2/a.pt", "README.md"])
def test_code_of_the_folder_may_read_every_file(folder: Path, name: str):
    own_code(folder)
    put(name, "one")(folder)
    source = Source("folder", str(folder))
    one, plain = keys.model_identity(source, own_code=True), identity(folder)
    put(name, "two")(folder)
    assert keys.model_identity(source, own_code=True) != one
    assert identity(folder) == plain


def test_linked_folders_count(folder: Path, tmp_path: Path):
    other = tmp_path / "other"
    put("tool.jinja", "one")(other)
    (folder / "additional_chat_templates").symlink_to(other)
    before = identity(folder)
    put("tool.jinja", "two")(other)
    assert identity(folder) != before
    own_code(folder)
    (other / "again").symlink_to(folder)  # a circle
    (folder / "data").symlink_to(other)
    source = Source("folder", str(folder))
    before = keys.model_identity(source, own_code=True)
    put("more.bin")(other)
    assert len(keys.model_identity(source, own_code=True)) == len(before) + 1


@pytest.mark.parametrize("reference", ["/elsewhere--code.C", "../x--code.C", "here/model--code.C"])
def test_code_of_another_folder_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str):
    own_code(folder, reference)
    (tmp_path / "here/model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=r"config\.json names code in '.*', outside of the model's folder; copy it there"):
        start(str(folder), own_code=True)
    start(str(folder))  # it is not run


@pytest.mark.parametrize("where", ["itself", "text_config"])
def test_pickled_weights_that_a_configuration_names_are_refused(folder: Path, where: str):
    named = {"transformers_weights": "adapter_model.bin"}
    (folder / "config.json").write_text(json.dumps(named if where == "itself" else {where: named}))
    with pytest.raises(BadInput, match=r"config\.json names 'adapter_model\.bin' as weights; pickled weights are not loaded"):
        start(str(folder))


def test_shards_of_an_index_that_the_configuration_names_are_in_the_keys(folder: Path):
    weights(folder / "parts" / "a.safetensors")
    (folder / "my.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"w": "parts/a.safetensors"}}))
    (folder / "config.json").write_text(json.dumps({"transformers_weights": "my.safetensors.index.json"}))
    assert "parts/a.safetensors" in identity(folder)


def test_the_configuration_for_another_version_of_transformers_is_read(folder: Path):
    (folder / "config.json").write_text(json.dumps({"configuration_files": ["config.5.0.0.json"]}))
    (folder / "config.5.0.0.json").write_text(json.dumps({"transformers_weights": "adapter_model.bin"}))
    with pytest.raises(BadInput, match=r"config\.5\.0\.0\.json names 'adapter_model\.bin' as weights"):
        start(str(folder))


def test_an_adapter_is_refused(folder: Path):
    put("adapter_config.json", "{}")(folder)
    with pytest.raises(BadInput, match=r"has an adapter \(adapter_config\.json\); merge it into its model"):
        start(str(folder))


def _unreadable_folder(folder: Path) -> None:
    (folder / "lost+found").mkdir(mode=0)


def _folder_called(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).mkdir()


def _huge(name: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            file.truncate(2**40)  # sparse

    return write


def _pipe_below(folder: Path) -> None:
    (folder / "sub").mkdir()
    os.mkfifo(folder / "sub" / "config.json")


@pytest.mark.parametrize(
    "add",
    [
        _unreadable_folder,
        _pipe_below,
        put("consolidated.safetensors", "version https://git-lfs.github.com/spec/v1"),
        put("old/model.safetensors", "damaged"),
        put("old/model.safetensors.index.json", "damaged"),
        put("other.safetensors.index.json", "damaged"),
        lambda folder: socket_at(folder / "s.safetensors"),
        *(_folder_called(name) for name in ("vocab", "something.json", "tokenizer.model", "chat_template.jinja", "old.safetensors")),
        *(_huge(name) for name in ("notes.txt", "samples.json", "old.model", "prompt.jinja")),
        lambda folder: pipe(folder / "log.txt"),
        lambda folder: socket_at(folder / "daemon.json"),
    ],
)
def test_files_that_are_not_loaded_do_not_refuse_a_model(folder: Path, add: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    before = identity(folder)
    add(Path())
    start(str(folder))
    assert before.items() <= identity(folder).items()


def test_a_folder_in_the_place_of_the_weights_is_passed_over_as_transformers_does(folder: Path):
    weights(folder / "a.safetensors")
    shards(folder, "a.safetensors")
    (folder / "model.safetensors").mkdir()
    assert set(identity(folder)) == {"config.json", "tokenizer.json", "a.safetensors", "model.safetensors.index.json"}


def test_the_names_that_are_checked_are_those_of_transformers_tokenizers():
    """From its sources, since some tokenizers need further packages to be imported."""
    (place,) = util.find_spec("transformers").submodule_search_locations  # type: ignore[union-attr]
    sources = [path.read_text() for path in Path(place).rglob("tokenization_*.py")]
    named = {name for text in sources for name in re.findall(r'"\w+_file": "([\w.-]+)"|\b[A-Z_]+_FILE = "([\w.-]+)"', text)}
    assert {one or other for one, other in named} - {""} - model_folder.BY_NAME == set()


def test_an_index_of_very_many_shards_is_refused_at_once(folder: Path):
    shards(folder, *(f"model-{number}.safetensors" for number in range(300_000)))
    begun = time.monotonic()
    with pytest.raises(BadInput, match="names 300,000 files of weights; at most 10,000 are read"):
        start(str(folder))
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("make", [lambda _: None, lambda path: path.symlink_to("nowhere")])
def test_shards_that_are_missing_are_told_before_loading(folder: Path, make: Callable[[Path], object]):
    weights(folder / "model-1.safetensors")
    shards(folder, *(f"model-{number}.safetensors" for number in (1, 2, 3)))
    make(folder / "model-2.safetensors")
    said = r"lacks 2 of the 3 files of weights that model\.safetensors\.index\.json names: 'model-2\.safetensors'; download it"
    with pytest.raises(BadInput, match=said):
        start(str(folder))


def test_missing_weights_that_the_configuration_names_are_told_before_loading(folder: Path):
    (folder / "config.json").write_text(json.dumps({"transformers_weights": "best.safetensors"}))
    with pytest.raises(BadInput, match=r"lacks one file of weights that its configuration names: 'best\.safetensors'; download it"):
        start(str(folder))
