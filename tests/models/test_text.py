"""Calibration and training text: equal for equal seeds, of the exact length, or refused with numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from compresslab.errors import BadInput
from compresslab.models.text import calibration_tokens, documents, sequences, training_tokens
from compresslab.recipe.schema import Calibration, Training
from models.tiny import LINES, make_tokenizer

TEXTS = [f"Text number {number}. {LINES[number % 3]}" for number in range(20)]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def test_equal_seeds_give_equal_tokens_and_another_seed_another_order(jsonl: Path, tokenizer: PreTrainedTokenizerFast):
    first, again, other = (sequences(str(jsonl), tokenizer, 4, 16, seed) for seed in (1, 1, 2))
    assert torch.equal(first.ids, again.ids)
    assert first.sha256 == again.sha256
    assert not torch.equal(first.ids, other.ids)
    assert first.sha256 != other.sha256


def test_the_digest_changes_with_the_text(jsonl: Path, tokenizer: PreTrainedTokenizerFast):
    before = sequences(str(jsonl), tokenizer, 2, 16, 0)
    jsonl.write_text(jsonl.read_text().replace("Text number", "Text nomber"))
    assert sequences(str(jsonl), tokenizer, 2, 16, 0).sha256 != before.sha256


def test_the_count_is_exact(jsonl: Path, tokenizer: PreTrainedTokenizerFast):
    assert calibration_tokens(Calibration(source=str(jsonl), samples=5, length=12), tokenizer).ids.shape == (5, 12)
    assert training_tokens(Training(source=str(jsonl), length=16), tokenizer, 33).ids.shape == (3, 16)
    assert training_tokens(Training(source=str(jsonl), length=16), tokenizer, 32).ids.shape == (2, 16)


def test_documents_are_joined_whole_by_the_end_of_sequence_token(tmp_path: Path, tokenizer: PreTrainedTokenizerFast):
    (tmp_path / "a.txt").write_text("The fox.\n\n\nThe dog.\n\n\n")
    length = len(tokenizer("The fox.The dog.").input_ids) + 2
    spelled = tokenizer.decode(sequences(str(tmp_path / "a.txt"), tokenizer, 1, length, 0).ids[0].tolist())
    assert spelled in ("The fox.</s>The dog.</s>", "The dog.</s>The fox.</s>")


def test_a_text_that_is_too_short_is_refused_with_both_numbers(tmp_path: Path, tokenizer: PreTrainedTokenizerFast):
    (tmp_path / "short.txt").write_text("The quick brown fox.")
    with pytest.raises(BadInput, match=r"has \d+ tokens; 10 sequences of 32 need 320"):
        sequences(str(tmp_path / "short.txt"), tokenizer, 10, 32, 0)


def test_a_text_file_is_split_at_two_blank_lines(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one\n\nstill one\n\n\ntwo\n\n\n\n")
    assert sorted(documents(str(tmp_path / "a.txt"), 0)) == ["one\n\nstill one", "two"]


def test_jsonl_texts_come_through_whole_with_whatever_they_hold(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    texts = ["line\u2028separator", "next\u0085line", "plain\nbreak"]
    path.write_text("\n".join(json.dumps({"text": text, "id": 1}, ensure_ascii=False) for text in texts) + "\n\n", encoding="utf-8")
    assert sorted(documents(str(path), 0)) == sorted(texts)


@pytest.mark.parametrize("bad", ['{"text": "a"', '{"title": "a"}', '["a"]', '"a"', '{"text": 5}', '{"text": null}'])
def test_a_bad_line_of_a_jsonl_text_is_named(tmp_path: Path, bad: str):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n\n' + bad + "\n")
    with pytest.raises(BadInput, match=r"a\.jsonl:3: "):
        list(documents(str(path), 0))


def test_a_missing_text_is_named(tmp_path: Path):
    with pytest.raises(BadInput, match=r"no text file at .*none\.txt"):
        list(documents(str(tmp_path / "none.txt"), 0))
    with pytest.raises(BadInput, match=rf"the text {tmp_path} cannot be read \(a folder"):
        list(documents(str(tmp_path), 0))


def test_a_text_that_is_not_utf_8_is_refused_with_the_place(tmp_path: Path):
    path = tmp_path / "latin.txt"
    path.write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(BadInput, match=r"latin\.txt is not UTF-8 text: .*position 3"):
        list(documents(str(path), 0))


def test_the_docs_that_every_installation_carries_are_english_prose(tokenizer: PreTrainedTokenizerFast):
    first, again = (sequences("installed-docs", tokenizer, 4, 256, seed) for seed in (0, 0))
    assert torch.equal(first.ids, again.ids)
    assert " the " in tokenizer.decode(first.ids.flatten().tolist())


def test_the_docs_go_on_with_the_docstrings_of_installed_packages(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("compresslab.models.documents.installed.DOCSTRING_PACKAGES", ("safetensors", "no_such_package"))
    topics = sum(1 for _ in documents("installed-docs", 0))
    monkeypatch.setattr("compresslab.models.documents.installed.DOCSTRING_PACKAGES", ())
    assert topics > sum(1 for _ in documents("installed-docs", 0)) > 50


def test_a_step_that_asks_for_more_than_the_text_goes_over_it_again_in_another_order(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    path = tmp_path / "text.txt"
    path.write_text("\n\n\n".join(f"Sentence {number} is number {number}." * 3 for number in range(80)))
    config = Training(source=str(path), tokens=64, length=16)
    ids = training_tokens(config, tokenizer, 160).ids
    assert ids.shape == (10, 16)
    first, second = ids[:4].tolist(), ids[4:8].tolist()
    assert sorted(first) == sorted(second)
    assert first != second
    assert torch.equal(ids, training_tokens(config, tokenizer, 160).ids)


def test_each_sequence_of_a_repeated_text_knows_which_of_the_different_ones_it_is(jsonl: Path, tokenizer: PreTrainedTokenizerFast):
    once = training_tokens(Training(source=str(jsonl), tokens=64, length=16), tokenizer, 64)
    often = training_tokens(Training(source=str(jsonl), tokens=64, length=16), tokenizer, 160)
    assert once.numbers.tolist() == [0, 1, 2, 3]
    assert often.numbers[:4].tolist() == [0, 1, 2, 3]
    assert sorted(often.numbers[4:8].tolist()) == [0, 1, 2, 3]
    assert torch.equal(often.ids, once.ids[often.numbers])
    assert often.sha256 == once.sha256
    assert sequences(str(jsonl), tokenizer, 3, 16, 0).numbers.tolist() == [0, 1, 2]


def test_a_dataset_of_the_hub_is_read_at_its_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    class Rows(list[dict[str, str]]):
        def shuffle(self, **_: object) -> Rows:
            return self

    def load_dataset(name: str, config: str | None, **settings: object) -> Rows:
        asked.append((name, config, settings["revision"], settings["split"]))
        return Rows([{"text": "a text"}])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert list(documents("hub:owner/texts@0123abc:part#test", 0)) == ["a text"]
    assert asked == [("owner/texts", "part", "0123abc", "test")]
