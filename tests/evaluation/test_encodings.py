"""Token ids on disk: tokenized once, whichever variant asks first, and never another tokenizer's."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from compresslab.evaluation.encodings import Encodings
from compresslab.evaluation.treelm import TreeLM

from .conftest import make_tokenizer

STRINGS = ["The quick", "", "brown fox é"]


def test_what_one_process_tokenized_the_next_one_reads(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    def encode(strings: list[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(strings)["input_ids"]
        return ids

    def never(_strings: list[str]) -> list[list[int]]:
        raise AssertionError("tokenized again")

    first = Encodings(tmp_path, tokenizer).encoded(STRINGS, "{}", encode)
    assert Encodings(tmp_path, tokenizer).encoded(STRINGS, "{}", never) == first == encode(STRINGS)
    for other in (
        lambda: Encodings(tmp_path, make_tokenizer(bos=True)).encoded(STRINGS, "{}", never),
        lambda: Encodings(tmp_path, tokenizer).encoded(STRINGS, "{'add_special_tokens': False}", never),
        lambda: Encodings(tmp_path, tokenizer).encoded(STRINGS[:2], "{}", never),
        lambda: Encodings(None, tokenizer).encoded(STRINGS, "{}", never),
    ):
        with pytest.raises(AssertionError, match="again"):
            other()


def test_a_damaged_file_costs_time_and_nothing_else(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    kept = Encodings(tmp_path, tokenizer)
    kept.encoded(STRINGS, "{}", lambda _: [[1], [], [2, 3]])
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:40])
    assert kept.encoded(STRINGS, "{}", lambda _: [[4], [], []]) == [[4], [], []]


def test_a_variant_tokenizes_nothing_that_another_one_has(
    tmp_path: Path, llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [("The quick", " fox"), ("", "dog")]
    first = TreeLM(llama, tokenizer, encodings=tmp_path).encode(pairs)
    monkeypatch.setattr(TreeLM, "_tokenized", lambda *_args, **_settings: pytest.fail("tokenized again"))
    assert TreeLM(llama, tokenizer, encodings=tmp_path).encode(pairs) == first
