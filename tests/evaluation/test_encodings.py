"""Token ids on disk: strings are tokenized once for all variants with the same tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from compresslab.evaluation.engines.encodings import SLICE, Encodings
from compresslab.evaluation.scores import Pair
from compresslab.evaluation.tree_lm import TreeLM

from .conftest import make_tokenizer

PAIRS = [("The quick", ""), ("", ""), ("brown", " fox é")]


def test_what_one_process_tokenized_the_next_one_reads(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    def encode(pairs: Sequence[Pair]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(["".join(pair) for pair in pairs])["input_ids"]
        return ids

    def never(_pairs: Sequence[Pair]) -> list[list[int]]:
        raise AssertionError("tokenized again")

    first = Encodings(tmp_path, tokenizer).encoded(PAIRS, "{}", encode)
    assert Encodings(tmp_path, tokenizer).encoded(PAIRS, "{}", never) == first
    assert [list(ids) for ids in first] == encode(PAIRS)
    for other in (
        lambda: Encodings(tmp_path, make_tokenizer(bos=True)).encoded(PAIRS, "{}", never),
        lambda: Encodings(tmp_path, tokenizer).encoded(PAIRS, "{'add_special_tokens': False}", never),
        lambda: Encodings(tmp_path, tokenizer).encoded(PAIRS[:2], "{}", never),
        lambda: Encodings(tmp_path, tokenizer).encoded([("The", " quick"), *PAIRS[1:]], "{}", never),
        lambda: Encodings(None, tokenizer).encoded(PAIRS, "{}", never),
    ):
        with pytest.raises(AssertionError, match="again"):
            other()


DAMAGES = [lambda old: old[:40], lambda _: b"", lambda old: old[:100] + b"00000000" + old[108:]]


@pytest.mark.parametrize("damage", DAMAGES, ids=["cut off", "empty", "overwritten"])
def test_a_damaged_file_costs_time_and_nothing_else(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, damage: Callable[[bytes], bytes]
) -> None:
    kept = Encodings(tmp_path, tokenizer)
    kept.encoded(PAIRS, "{}", lambda _: [[1], [], [2, 3]])
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert [list(ids) for ids in kept.encoded(PAIRS, "{}", lambda _: [[4], [], []])] == [[4], [], []]


def test_a_tokenizer_is_never_asked_for_all_of_a_large_task_at_once(tokenizer: PreTrainedTokenizerFast) -> None:
    asked: list[int] = []
    pairs = [(str(number), "") for number in range(2 * SLICE + 1)]
    found = Encodings(None, tokenizer).encoded(pairs, "{}", lambda part: asked.append(len(part)) or [[int(text)] for text, _ in part])
    assert asked == [SLICE, SLICE, 1]
    assert [list(ids) for ids in found] == [[number] for number in range(len(pairs))]


def test_a_variant_tokenizes_nothing_that_another_one_has(
    tmp_path: Path, llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [("The quick", " fox"), ("", "dog")]
    first = TreeLM(llama, tokenizer, encodings=tmp_path).encode(pairs)
    monkeypatch.setattr(TreeLM, "_tokenized", lambda *_args, **_settings: pytest.fail("tokenized again"))
    assert TreeLM(llama, tokenizer, encodings=tmp_path).encode(pairs) == first
