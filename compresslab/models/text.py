"""Calibration and training text: documents from a source, tokenized into equal sequences."""

from __future__ import annotations

import ast
import hashlib
import random
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from compresslab.errors import BadInput
from compresslab.methods.layerwise import BATCH_TOKENS
from compresslab.recipe.source import DOCSTRING_PACKAGES, HubText, parse_hub_text
from compresslab.text_files import text_documents

if TYPE_CHECKING:  # the schema loads the methods of other packages, which may import this module
    from compresslab.recipe.schema import Calibration, Training

SHORTEST_DOCSTRING = 400


class TokenSequences(NamedTuple):
    """Token ids (sequences, length) and the sha256 of the documents that they came from.

    Attributes:
        rows: (sequences,) the index of each sequence among the different ones; `None` if all are different.
    """

    ids: torch.Tensor
    sha256: str
    rows: torch.Tensor | None = None

    @property
    def numbers(self) -> torch.Tensor:
        """The index (sequences,) of each sequence among the different ones, from 0."""
        return torch.arange(len(self.ids)) if self.rows is None else self.rows


def calibration_tokens(config: Calibration, tokenizer: PreTrainedTokenizerBase) -> TokenSequences:
    """`samples` sequences of `length` tokens.

    Raises:
        BadInput: the source is unknown, unreadable, or too short.
    """
    return sequences(config.source, tokenizer, config.samples, config.length, config.seed)


def training_tokens(config: Training, tokenizer: PreTrainedTokenizerBase, tokens: int) -> TokenSequences:
    """At least `tokens` tokens in sequences of `length`, of which at most `config.tokens` are different.

    Further tokens repeat the text, each time in another order that `config.seed` decides.

    Raises:
        BadInput: the source is unknown, unreadable, or too short.
    """
    count = -(-tokens // config.length)
    text = sequences(config.source, tokenizer, min(count, -(-config.tokens // config.length)), config.length, config.seed)
    order = torch.Generator().manual_seed(config.seed)
    passes = [torch.arange(len(text.ids))]
    while sum(map(len, passes)) < count:
        passes.append(torch.randperm(len(text.ids), generator=order))
    rows = torch.cat(passes)[:count]
    return TokenSequences(text.ids[rows], text.sha256, rows)


def sequences(source: str, tokenizer: PreTrainedTokenizerBase, count: int, length: int, seed: int) -> TokenSequences:
    """Documents in an order shuffled by `seed`, joined by the end-of-sequence token, cut into `count` x `length`.

    Documents are read until there are enough tokens. The digest covers the documents read, in their order.
    """
    needed = count * length
    ids: list[int] = []
    digest = hashlib.sha256()
    separator = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    for document in documents(source, seed):
        digest.update(document.encode() + b"\0")
        # `verbose=False` suppresses the warning about long documents, which are cut into sequences here.
        ids += tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"] + separator
        if len(ids) >= needed:
            return TokenSequences(torch.tensor(ids[:needed]).view(count, length), digest.hexdigest())
    raise BadInput(
        f"the text {source!r} has {len(ids)} tokens; {count} sequences of {length} need {needed}. "
        "Use a longer text, or ask for fewer tokens"
    )


def documents(source: str, seed: int) -> Iterator[str]:
    """The documents of a source: `installed-docs`, a `.txt` or `.jsonl` file, or `hub:<dataset>[@<revision>][:<config>][#<split>]`."""
    if source == "installed-docs":
        yield from _shuffled(_help_topics(), seed)
        for package in DOCSTRING_PACKAGES:
            yield from _shuffled(_docstrings(package), seed)
    elif source.startswith("hub:"):
        yield from _hub(parse_hub_text(source), seed)
    else:
        yield from _shuffled(text_documents(Path(source).expanduser()), seed)


def _shuffled(texts: list[str], seed: int) -> list[str]:
    order = list(texts)
    random.Random(seed).shuffle(order)
    return order


def _help_topics() -> list[str]:
    """CPython's help topics: 465 kB of English prose in every installation."""
    from pydoc_data.topics import topics

    return [topics[name] for name in sorted(topics)]


def _docstrings(package: str) -> list[str]:
    """Long docstrings of an installed package, read from its source files without importing it."""
    spec = util.find_spec(package)
    if spec is None or spec.origin is None:
        return []
    found: list[str] = []
    for path in sorted(Path(spec.origin).parent.rglob("*.py")):
        if "tests" in path.parts:
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node)
                if text and len(text) >= SHORTEST_DOCSTRING:
                    found.append(text)
    return found


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


def batches(ids: Tensor) -> Iterator[Tensor]:
    """Calibration ids (sequences, length) in batches of about `BATCH_TOKENS` tokens."""
    rows = max(1, BATCH_TOKENS // ids.shape[1])
    for start in range(0, ids.shape[0], rows):
        yield ids[start : start + rows]
