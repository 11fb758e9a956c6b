"""Packing: every token of a document is there once, with the tokens that begin and end it, and its position in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from compresslab.models.documents.packing import Bos, Packer, end_of_document, positions_in_documents, start_of_document
from compresslab.models.text import sequences
from models.tiny import LINES, make_tokenizer


def tokenizer_with(*special: str, **named: str) -> PreTrainedTokenizerFast:
    """Words as tokens, and special tokens."""
    vocabulary = {token: number for number, token in enumerate(("a", "b", *special))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(special))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


@pytest.mark.parametrize("start", [[], [7]])
def test_pieces_of_documents_hold_every_token_once_and_begin_and_end_as_told(start: list[int]):
    documents = [[10] * 3, [11] * 9, [12], [], [13] * 5]
    packer = Packer(4, start, 8)
    for document in documents:
        packer.add(document)
    count = packer.tokens // 4
    ids, numbers = packer.sequences(count)
    for number, document in enumerate(documents[:-1]):
        own = ids[numbers == number].tolist()
        assert [token for token in own if token not in start] == [*document, 8]
    if start:
        begins = torch.ones_like(numbers, dtype=torch.bool)
        begins[:, 1:] = numbers[:, 1:] != numbers[:, :-1]
        assert torch.equal(ids == 7, begins), "before each piece, also where a sequence begins in a document, and nowhere else"


def test_positions_begin_at_0_in_each_document_and_each_sequence():
    documents = torch.tensor([[0, 0, 0, 1, 2, 2], [2, 2, 3, 3, 3, 3], [4, 5, 6, 7, 7, 7]])
    assert positions_in_documents(documents).tolist() == [[0, 1, 2, 0, 0, 1], [0, 1, 0, 1, 2, 3], [0, 0, 0, 0, 1, 2]]


@pytest.mark.parametrize(
    ("special", "eos", "expected"),
    [
        (("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "<|im_end|>", "<|endoftext|>"),  # SmolLM2, Qwen 2.5 Instruct
        (("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"), "<|eot_id|>", "<|end_of_text|>"),  # Llama 3 Instruct
        (("<bos>", "<eos>", "<|endoftext|>"), "<eos>", "<eos>"),
        (("<end>",), "<end>", "<end>"),
    ],
)
def test_a_document_ends_with_the_token_that_ends_a_text_and_not_with_the_end_of_a_turn(special: tuple[str, ...], eos: str, expected: str):
    tokenizer = tokenizer_with(*special, eos_token=eos)
    assert end_of_document(tokenizer) == tokenizer.convert_tokens_to_ids(expected)


def test_a_word_of_the_vocabulary_that_only_looks_like_it_ends_no_document():
    vocabulary = {"a": 0, "</s>": 1, "<end>": 2}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="a")), eos_token="<end>")
    assert end_of_document(tokenizer) == 2


def test_a_tokenizer_without_an_end_of_sequence_token_ends_documents_with_nothing():
    assert end_of_document(tokenizer_with()) is None
    assert start_of_document(tokenizer_with(), "always") == []


@pytest.mark.parametrize(("bos", "plain", "adding"), [("auto", [], [2]), ("always", [2], [2]), ("never", [], [])])
def test_a_document_begins_as_the_tokenizer_would_begin_a_text(bos: Bos, plain: list[int], adding: list[int]):
    tokenizer = tokenizer_with("<bos>", "<eos>", bos_token="<bos>", eos_token="<eos>")
    assert start_of_document(tokenizer, bos) == plain
    template = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=[("<bos>", 2), ("<eos>", 3)])
    tokenizer.backend_tokenizer.post_processor = template
    assert start_of_document(tokenizer, bos) == adding


def test_a_token_that_begins_a_turn_begins_no_document():
    tokenizer = tokenizer_with("<|endoftext|>", "<|im_start|>", "<|im_end|>", bos_token="<|im_start|>", eos_token="<|im_end|>")
    assert start_of_document(tokenizer, "always") == [2]
    assert start_of_document(tokenizer, "auto") == []


def test_a_text_is_packed_as_asked(tmp_path: Path):
    path, tokenizer = tmp_path / "a.txt", make_tokenizer()
    path.write_text("\n\n\n".join(LINES))
    packed, bounded = (sequences(str(path), tokenizer, 5, 16, 0, bounded=bounded) for bounded in (False, True))
    begun = sequences(str(path), tokenizer, 5, 16, 0, bounded=True, bos="always")
    assert torch.equal(packed.ids, bounded.ids)
    assert packed.input.positions is None
    positions = bounded.input.positions
    assert positions is not None
    assert torch.equal(positions[:, 1:] == 0, bounded.ids[:, :-1] == tokenizer.eos_token_id)
    assert (begun.ids[:, 0] == tokenizer.bos_token_id).all()
    assert torch.equal(begun.input.positions == 0, begun.ids == tokenizer.bos_token_id)
