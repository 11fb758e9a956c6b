"""A teacher's largest logits on the training text, computed once and read by every student of a study.

A folder contains `logits.json` and safetensors files of several sequences each. Sequences are read one by one, in any order.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from compresslab.algorithms.divergence import blocks, of_tokens
from compresslab.errors import BadInput, RunFailed
from compresslab.files import damage_explained
from compresslab.models.anatomy import backbone, output_head
from compresslab.models.calibration.scratch import in_scratch_folder
from compresslab.models.chunks import chunks
from compresslab.models.documents.boundaries import ModelInput, batches, refuse_crossing
from compresslab.models.load import Loaded
from compresslab.models.progress import Amount, Progress
from compresslab.models.ranks import ALONE, Ranks
from compresslab.models.text import TokenSequences

SUMMARY = "logits.json"
# Size of one file: it fits into memory while it is gathered, and few files are open.
FILE_BYTES = 128 * 2**20
# Smaller log-probabilities have no influence on training, and minus infinity multiplied by 0 is not a number.
LOWEST = -60.0


class Targets(NamedTuple):
    """A teacher's token ids (n, length, k) and log-probabilities (n, length, k + 1), the last one that of all other tokens."""

    tokens: Tensor
    log_probabilities: Tensor


class StoredLogits:
    """The logits in a folder.

    Attributes:
        top_k: number of logits of a position. vocabulary: number of tokens with a probability. bytes_per_token: bytes on disk.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with damage_explained(folder / SUMMARY):
            summary = json.loads((folder / SUMMARY).read_text())
            self.top_k: int = summary["top_k"]
            self.vocabulary: int = summary["vocabulary"]
            self.bytes_per_token: int = summary["bytes_per_token"]
            self._tokenizer: str = summary["tokenizer"]
            self._sequences: list[str] = summary["sequences"]
            self._sequences_per_file: int = summary["sequences_a_file"]
        self._open: dict[int, Any] = {}

    def check(self, student: Loaded, text: TokenSequences) -> None:
        """Check that the logits fit a student and its text.

        Raises:
            BadInput: the student has another vocabulary, or reads another text.
        """
        if tokenizer_digest(student.tokenizer) != self._tokenizer:
            raise BadInput(
                "the stored logits are of a teacher with another vocabulary, so they mean other tokens; choose one of the same tokenizer"
            )
        rows = student.model.get_output_embeddings().weight.shape[0]
        if rows < self.vocabulary:
            raise BadInput(f"the stored logits are over {self.vocabulary} tokens, and the student's output head has {rows}")
        numbers, read = distinct(text)
        for number, digest in zip(numbers, digests(read), strict=True):
            if number >= len(self._sequences) or digest != self._sequences[number]:
                raise BadInput(
                    f"the stored logits are for another text: sequence {number + 1} of the training text is not the one that the teacher "
                    f"read (it read {len(self._sequences)}); store them again for this text"
                )

    def read(self, numbers: Tensor) -> Targets:
        """The targets of the sequences with the given numbers (n,)."""
        tokens, log_probabilities = [], []
        for number in numbers.tolist():
            file, row = divmod(number, self._sequences_per_file)
            if file not in self._open:
                self._open[file] = safe_open(self.folder / _file(file), "pt")
            tokens.append(self._open[file].get_slice("tokens")[row].to(torch.int64))
            log_probabilities.append(self._open[file].get_slice("log_probabilities")[row].to(torch.float32))
        return Targets(torch.stack(tokens), torch.stack(log_probabilities))


def store_logits(teacher: Loaded, text: TokenSequences, top_k: int, folder: Path, progress: Progress, ranks: Ranks = ALONE) -> None:
    """Write the `top_k` largest log-probabilities of every position, and the log-probability of all other tokens together.

    A position takes `top_k` integers of the smallest type for the vocabulary and `top_k` + 1 numbers in float16, whose relative error is
    at most 2^-11. Each different sequence is read once.

    Args:
        ranks: the processes that each read a part of the text. The files are those of one process. The first one writes them.

    Raises:
        BadInput: `top_k` leaves no other tokens, or the teacher does not keep documents apart that the text does.
        RunFailed: a logit is not finite.
    """
    vocabulary = min(teacher.model.get_output_embeddings().weight.shape[0], max(teacher.tokenizer.get_vocab().values()) + 1)
    if top_k >= vocabulary:
        raise BadInput(f"top_k {top_k} is not below the vocabulary of {vocabulary} tokens; store fewer, or drop top_k")
    folder.mkdir(parents=True, exist_ok=True)
    rows = distinct(text)[1]
    if rows.positions is not None:
        refuse_crossing(teacher.model)
    count = len(rows.ids)
    integers = next(kind for kind in (torch.uint8, torch.uint16, torch.int32) if vocabulary <= torch.iinfo(kind).max + 1)
    bytes_per_token = top_k * integers.itemsize + (top_k + 1) * torch.float16.itemsize
    sequences_per_file = max(1, FILE_BYTES // (bytes_per_token * text.ids.shape[1]))
    for file, start in enumerate(range(0, count, sequences_per_file)):
        own = []
        for batch in ranks.part(list(batches(rows.rows(slice(start, start + sequences_per_file))))):
            targets = _largest(teacher, batch, top_k, vocabulary)
            # As arrays, since torch does not send all types of integers.
            own.append((targets.tokens.to(integers).numpy(), targets.log_probabilities.to(torch.float16).numpy()))
            done = min(count, start + ranks.size * sum(len(tokens) for tokens, _ in own))
            read = Amount(done * text.ids.shape[1], count * text.ids.shape[1], "tokens")
            progress(done / count, f"the teacher's {top_k} largest logits", read)
        found = [arrays for part in ranks.gathered(own) for arrays in part]
        if ranks.rank == 0:
            tokens, log_probabilities = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*found, strict=True))
            save_file({"tokens": tokens, "log_probabilities": log_probabilities}, folder / _file(file))
    if ranks.rank:
        return
    summary = {
        "top_k": top_k,
        "vocabulary": vocabulary,
        "bytes_per_token": bytes_per_token,
        "tokenizer": tokenizer_digest(teacher.tokenizer),
        "text": text.sha256,
        "sequences": digests(rows),
        "sequences_a_file": sequences_per_file,
    }
    (folder / SUMMARY).write_text(json.dumps(summary))


def store_temporarily(teacher: Loaded, text: TokenSequences, top_k: int, progress: Progress) -> StoredLogits:
    """`store_logits` in a temporary folder that is removed with the result, for a step that runs outside a study."""

    def stored(folder: Path) -> StoredLogits:
        store_logits(teacher, text, top_k, folder, progress)
        return StoredLogits(folder)

    return in_scratch_folder(stored)


@torch.no_grad()
def _largest(teacher: Loaded, batch: ModelInput, top_k: int, vocabulary: int) -> Targets:
    """For sequences (n, length)."""
    model = teacher.model
    head = output_head(model)
    hidden = backbone(model)(**batch.to(model.device).arguments).last_hidden_state.flatten(0, 1)
    tokens, log_probabilities = [], []
    for part in chunks(len(hidden), model):
        logits = of_tokens(head(hidden[part]), vocabulary)
        for rows in blocks(logits):
            every = F.log_softmax(logits[rows].float(), dim=-1)
            largest, chosen = every.topk(top_k, dim=-1)
            rest = every.scatter_(1, chosen, -torch.inf).logsumexp(-1, keepdim=True)
            tokens.append(chosen.cpu())
            log_probabilities.append(torch.cat([largest, rest], dim=1).cpu())
    probabilities = torch.cat(log_probabilities).clamp(min=LOWEST)
    if not torch.isfinite(probabilities).all():
        raise RunFailed("the teacher's logits on the training text are not finite (NaN or infinite); try dtype float32 or bfloat16")
    shape = (*batch.ids.shape, -1)
    return Targets(torch.cat(tokens).view(shape), probabilities.view(shape))


def distinct(text: TokenSequences) -> tuple[list[int], ModelInput]:
    """The numbers of the different sequences in ascending order, and the sequences."""
    first = {number: place for place, number in reversed(list(enumerate(text.numbers.tolist())))}
    numbers = sorted(first)
    return numbers, text.input.rows(torch.tensor([first[number] for number in numbers]))


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """A digest of the tokens and their ids."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def digests(text: ModelInput) -> list[str]:
    """A short digest of each sequence: of its token ids and of where its documents begin, if they are kept apart."""
    parts = [text.ids] if text.positions is None else [text.ids, text.positions]
    rows = torch.cat([part.to(torch.int64).cpu() for part in parts], dim=1).contiguous().numpy()
    return [hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in rows]


def _file(number: int) -> str:
    return f"logits-{number:05}.safetensors"
