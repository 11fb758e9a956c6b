"""The values of `model:` in a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from compresslab.errors import BadInput
from compresslab.recipe.source import Source, parse_hub_text, parse_source, text_identity


def test_offline_names_are_known_or_nearly_known():
    assert parse_source("offline:smollm2-135m-instruct") == Source("offline", "smollm2-135m-instruct")
    with pytest.raises(BadInput, match=r"unknown offline model 'smolm2-135m'; did you mean 'offline:smollm2-135m-instruct'\?"):
        parse_source("offline:smolm2-135m")
    with pytest.raises(BadInput, match="unknown offline model 'gpt-5'") as caught:
        parse_source("offline:gpt-5")
    assert "did you mean" not in str(caught.value)
    assert "smollm2-135m-instruct" in str(caught.value)


def test_a_folder_is_a_model_only_with_a_config(tmp_path: Path):
    with pytest.raises(BadInput, match=r"holds no config\.json, so it is not a model"):
        parse_source(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert parse_source(str(tmp_path)) == Source("folder", str(tmp_path.resolve()))


@pytest.mark.parametrize("path", ["./none", "../none", "/no/such/folder", "~/no-such-folder-here"])
def test_a_path_without_a_folder_is_not_taken_for_a_hub_id(path: str):
    with pytest.raises(BadInput, match=f"no model folder at {path}"):
        parse_source(path)


def test_a_relative_path_is_told_with_the_folder_in_which_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for read in (parse_source, text_identity):
        with pytest.raises(BadInput, match=rf"at \./none .*looked for in {tmp_path}, where the command runs"):
            read("./none")


def test_an_adapter_without_a_model_is_named_as_one(tmp_path: Path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BadInput, match=r"is an adapter \(adapter_config\.json\), not a model; merge it into its model"):
        parse_source(str(tmp_path))


def test_a_missing_gguf_file_is_named(tmp_path: Path):
    with pytest.raises(BadInput, match=r"no GGUF file at .*none\.gguf"):
        parse_source(str(tmp_path / "none.gguf"))
    (tmp_path / "a.gguf").write_bytes(b"")
    assert parse_source(str(tmp_path / "a.gguf")).kind == "gguf"


def test_hub_ids_with_and_without_a_revision():
    assert parse_source("owner/na.me-1_b") == Source("hub", "owner/na.me-1_b", None)
    assert parse_source("owner/name@abc123") == Source("hub", "owner/name", "abc123")
    assert parse_source("gpt2") == Source("hub", "gpt2", None)


@pytest.mark.parametrize("odd", ["a/b/c", "owner/", "/name", "own er/name", "-x/y", "owner/name?rev", "https://hf.co/a/b", "@main"])
def test_text_that_no_hub_id_can_be_is_refused(odd: str):
    with pytest.raises(BadInput, match=r"nor a Hub id such as owner/name@revision|no model folder"):
        parse_source(odd)


def test_the_identity_of_a_text_follows_its_content(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    before = text_identity(str(path))
    path.write_text("two")
    assert text_identity(str(path)) != before
    with pytest.raises(BadInput, match="no text file at"):
        text_identity(str(tmp_path / "none.txt"))
    assert text_identity("hub:owner/texts") == {"hub": "hub:owner/texts"}
    assert "python" in text_identity("installed-docs")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hub:owner/texts", ("owner/texts", None, None, "train")),
        ("hub:owner/texts@abc123", ("owner/texts", "abc123", None, "train")),
        ("hub:owner/texts@refs/pr/1:sample-10BT#validation", ("owner/texts", "refs/pr/1", "sample-10BT", "validation")),
        ("hub:texts:a config#train[:1%]", ("texts", None, "a config", "train[:1%]")),
    ],
)
def test_a_dataset_of_the_hub_is_named_with_its_revision(source: str, expected: tuple[str | None, ...]):
    assert parse_hub_text(source) == expected


@pytest.mark.parametrize("source", ["hub:", "hub:@abc", "hub:a/b/c", "hub:a b", "hub:owner/texts@"])
def test_a_name_that_no_dataset_has_is_refused(source: str):
    with pytest.raises(BadInput, match="names no dataset of the hub"):
        text_identity(source)


@pytest.mark.parametrize("model", ["~nosuchuser-anywhere/x", "x" * 5000, "a\0b"])
def test_what_no_file_system_can_hold_is_refused_in_words(model: str):
    with pytest.raises(BadInput):
        parse_source(model)
