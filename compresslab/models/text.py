"""Calibration and training text: documents from a source, tokenized into equal sequences."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from compresslab.errors import BadInput
from compresslab.models.documents.boundaries import ModelInput
from compresslab.models.documents.installed import installed_documents
from compresslab.models.documents.packing import Bos, Packer, end_of_document, positions_in_documents, start_of_document
from compresslab.recipe.source import INSTALLED, HubText, for_role, parse_hub_text, part_of_installed
from compresslab.text_files import text_documents

if TYPE_CHECKING:  # the schema loads the methods of other packages, which may import this module
    from compresslab.recipe.schema import Calibration, FidelityText, Training


class TokenSequences(NamedTuple):
    """Token ids (sequences, length) and the sha256 of the documents that they came from.

    Attributes:
        rows: (sequences,) the index of each sequence among the different ones; `None` if all are different.
        documents: (sequences, length) the number of the document that each token is of; `None` if it is not known.
        bounded: whether documents are kept apart: no attention from one to the next, and positions that begin anew.
    """

    ids: torch.Tensor
    sha256: str
    rows: torch.Tensor | None = None
    documents: torch.Tensor | None = None
    bounded: bool = False

    @property
    def numbers(self) -> torch.Tensor:
        """The index (sequences,) of each sequence among the different ones, from 0."""
        return torch.arange(len(self.ids)) if self.rows is None else self.rows

    @property
    def input(self) -> ModelInput:
        """What a model reads."""
        if not self.bounded:
            return ModelInput(self.ids)
        assert self.documents is not None
        return ModelInput(self.ids, positions_in_documents(self.documents))

    def at(self, places: Tensor) -> TokenSequences:
        """The sequences at some places, with their numbers."""
        documents = None if self.documents is None else self.documents[places]
        return self._replace(ids=self.ids[places], rows=self.numbers[places], documents=documents)


def calibration_tokens(config: Calibration, tokenizer: PreTrainedTokenizerBase) -> TokenSequences:
    """`samples` sequences of `length` tokens.

    Raises:
        BadInput: the source is unknown, unreadable, or too short.
    """
    source = for_role(config.source, "calibration")
    return _packed(config, source, tokenizer, config.samples)


def training_tokens(config: Training, tokenizer: PreTrainedTokenizerBase, tokens: int) -> TokenSequences:
    """At least `tokens` tokens in sequences of `length`, of which at most `config.tokens` are different.

    Further tokens repeat the text, each time in another order that `config.seed` decides.

    Raises:
        BadInput: the source is unknown, unreadable, or too short.
    """
    count = -(-tokens // config.length)
    source, different = for_role(config.source, "training"), min(count, -(-config.tokens // config.length))
    text = _packed(config, source, tokenizer, different)
    order = torch.Generator().manual_seed(config.seed)
    passes = [torch.arange(len(text.ids))]
    while sum(map(len, passes)) < count:
        passes.append(torch.randperm(len(text.ids), generator=order))
    return text.at(torch.cat(passes)[:count])


def held_out_tokens(config: FidelityText, tokenizer: PreTrainedTokenizerBase) -> TokenSequences:
    """At least `tokens` tokens in sequences of `length`, of a text on which models are compared.

    Raises:
        BadInput: the source is unknown, unreadable, or too short.
    """
    count = -(-config.tokens // config.length)
    return _packed(config, for_role(config.source, "held-out"), tokenizer, count)


def _packed(config: Calibration | Training | FidelityText, source: str, tokenizer: PreTrainedTokenizerBase, count: int) -> TokenSequences:
    bounded = config.documents == "bounded"
    return sequences(source, tokenizer, count, config.length, config.seed, bounded=bounded, bos=config.bos)


def sequences(
    source: str, tokenizer: PreTrainedTokenizerBase, count: int, length: int, seed: int, *, bounded: bool = False, bos: Bos = "auto"
) -> TokenSequences:
    """Documents in an order shuffled by `seed`, packed into `count` sequences of `length` tokens.

    Documents are read until there are enough tokens. The digest covers the documents read, in their order.

    Args:
        bounded: whether documents are kept apart. bos: which token stands before a document.
    """
    needed = count * length
    digest = hashlib.sha256()
    packer = Packer(length, start_of_document(tokenizer, bos), end_of_document(tokenizer))
    for document in documents(source, seed):
        digest.update(document.encode() + b"\0")
        # `verbose=False` suppresses the warning about long documents, which are cut into sequences here.
        packer.add(tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"])
        if packer.tokens >= needed:
            ids, numbers = packer.sequences(count)
            return TokenSequences(ids, digest.hexdigest(), documents=numbers, bounded=bounded)
    raise BadInput(
        f"the text {source!r} has {packer.tokens} tokens; {count} sequences of {length} need {needed}. "
        "Use a longer text, or ask for fewer tokens"
    )


def documents(source: str, seed: int) -> Iterator[str]:
    """The documents of a source: `installed-docs[#<part>]`, a `.txt` or `.jsonl` file, or a dataset of the Hub (`parse_hub_text`)."""
    if source.partition("#")[0] == INSTALLED:
        for texts in installed_documents(part_of_installed(source)):
            yield from _shuffled(texts, seed)
    elif source.startswith("hub:"):
        yield from _hub(parse_hub_text(source), seed)
    else:
        yield from _shuffled(text_documents(Path(source).expanduser()), seed)


def _shuffled(texts: list[str], seed: int) -> list[str]:
    order = list(texts)
    random.Random(seed).shuffle(order)
    return order


def _hub(text: HubText, seed: int) -> Iterator[str]:
    """Stream the column `text` of a Hub dataset."""
    from datasets import load_dataset

    dataset = text.dataset
    try:
        rows = load_dataset(dataset, text.config, split=text.split, revision=text.revision, streaming=True)
        rows = rows.shuffle(seed=seed, buffer_size=1000)
        for row in rows:
            yield row["text"]
    except KeyError as error:
        raise BadInput(f"the dataset {dataset} has no column {error}; a text dataset has a column named text") from error
    except Exception as error:  # datasets raises many types of errors if the hub cannot be reached
        first = " ".join(str(error).split())[:300]
        raise BadInput(
            f"the dataset {dataset} could not be read from the hub: {first}. Without a hub, use installed-docs or a local file"
        ) from error
