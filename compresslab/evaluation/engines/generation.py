"""Greedy generation for many prompts that begin alike: what they share is read, kept and attended to once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from compresslab.evaluation.attention import shared as shared_attention
from compresslab.evaluation.attention.shared import Prefix, behind, preallocated_cache
from compresslab.evaluation.attention.swapped import attending
from compresslab.evaluation.engines.cache_name import cache_name
from compresslab.evaluation.engines.journal import Journal

SEQUENCES = 32  # at a time, where the memory allows
OWN_BYTES = 2**30  # most memory for the sequences' own keys and values
# A step for one sequence reads all weights, and one for eight little more, so a batch takes any prompt until it has this many (a choice;
# one by one, 32 answers of gsm8k took over three minutes, side by side 107 s);
FEWEST = 8
# beyond, a prompt joins if it leaves at least this share of the prefix that the batch has in common.
KEPT_PREFIX = 0.5
# A common beginning that is a smaller share of the prompts is not worth reading by itself.
WORTH_SHARING = 0.2


class Prompt(NamedTuple):
    """What to go on from.

    Attributes:
        ids: at least one token. max_new_tokens: new tokens at most. enough: asked after each new token with all of them.
        until: the strings that end an answer.
    """

    ids: list[int]
    max_new_tokens: int
    enough: Callable[[list[int]], bool]
    until: list[str]


@torch.inference_mode()
def generate(
    model: PreTrainedModel, prompts: Sequence[Prompt], budget: int, progress: Callable[[float], None], journals: Path | None = None
) -> list[list[int]]:
    """The likeliest next token, again and again, after each prompt.

    Args:
        budget: tokens of prompts in one forward pass. journals: folder for the answers so far, to go on from after a stop.

    Returns:
        The new ids of each prompt, the last one being that after which it was enough.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    done = 0
    asked = [json.dumps([prompt.ids, prompt.max_new_tokens, prompt.until]).encode() for prompt in prompts]
    journal = Journal(journals, [b"generate", str(budget).encode(), *asked])
    for number, batch in enumerate(batches(prompts, bytes_per_token(model))):
        if number == len(journal.pieces):
            journal.add(_Batch(model, [prompts[index] for index in batch], budget).go())
        for index, new in zip(batch, journal.pieces[number], strict=True):
            answers[index] = new
        done += len(batch)
        progress(done / len(prompts))
    return answers


def batches(prompts: Sequence[Prompt], own_bytes: int) -> Iterator[list[int]]:
    """Numbers of prompts that begin alike, as many together as the memory for their own parts allows.

    Args:
        own_bytes: of keys and values a token.
    """
    batch: list[int] = []
    shared = 0
    for index in sorted(range(len(prompts)), key=lambda i: prompts[i].ids):
        if batch:
            first = prompts[batch[0]].ids
            left = common(first, prompts[index].ids)
            left = min(left, shared)
            room = max(len(prompts[i].ids) + prompts[i].max_new_tokens for i in [*batch, index]) - left
            strange = left < KEPT_PREFIX * shared and len(batch) >= FEWEST
            if len(batch) == SEQUENCES or strange or (len(batch) + 1) * room * own_bytes > OWN_BYTES:
                yield batch
                batch = []
            else:
                shared = left
        if not batch:
            shared = len(prompts[index].ids) - 1
        batch.append(index)
    if batch:
        yield batch


def common(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the common beginning, at most one less than either: each prompt keeps a token to read."""
    most = min(len(left), len(right)) - 1
    return next((place for place in range(most) if left[place] != right[place]), most)


def bytes_per_token(model: PreTrainedModel) -> int:
    """Of keys and values in all layers."""
    config = model.config.get_text_config()
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return int(2 * config.num_hidden_layers * groups * head * model.dtype.itemsize)


class _Batch:
    """Prompts that are answered together."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Prompt], budget: int) -> None:
        self.model, self.prompts, self.budget = model, prompts, budget
        self.shared = min((common(prompts[0].ids, prompt.ids) for prompt in prompts), default=0)
        if self.shared < WORTH_SHARING * max(len(prompt.ids) for prompt in prompts):
            self.shared = 0
        tails = [prompt.ids[self.shared :] for prompt in prompts]
        width = max(map(len, tails))
        self.pads = torch.tensor([width - len(tail) for tail in tails], device=model.device)
        # Tails end together, so that new tokens of all stand side by side.
        self.tails = torch.tensor([[0] * (width - len(tail)) + tail for tail in tails], device=model.device)
        self.layers = model.config.get_text_config().num_hidden_layers
        self.cache = preallocated_cache(self.layers, width + max(prompt.max_new_tokens for prompt in prompts))

    def go(self) -> list[list[int]]:
        """The answers in the order of the prompts."""
        answers: list[list[int]] = [[] for _ in self.prompts]
        active = [number for number, prompt in enumerate(self.prompts) if prompt.max_new_tokens > 0]
        alone = None if self.shared else self._each_alone()
        with attending(self.model, shared_attention.NAME, shared_attention.attend), behind(self._prefix()):
            logits = self._tails() if alone is None else alone
            self._keep(active)
            logits = logits[active]
            while active:
                chosen = logits.argmax(-1)
                for number, token in zip(active, chosen.tolist(), strict=True):
                    answers[number].append(token)
                going = [
                    row
                    for row, number in enumerate(active)
                    if len(answers[number]) < self.prompts[number].max_new_tokens and not self.prompts[number].enough(answers[number])
                ]
                if len(going) < len(active):
                    self._keep(going)
                    active, chosen = [active[row] for row in going], chosen[going]
                if active:
                    logits = self._forward(chosen[:, None])
        return answers

    def _each_alone(self) -> Tensor:
        """Read the prompts one by one by the model's own attention, which is the fastest for a single one; the logits after each."""
        logits = []
        for row, prompt in enumerate(self.prompts):
            cache = DynamicCache()  # without the config, so that layers with a window, too, keep everything
            ids = torch.tensor([prompt.ids], device=self.model.device)
            for start in range(0, ids.shape[1], self.budget):
                part = ids[:, start : start + self.budget]
                output = self.model(input_ids=part, use_cache=True, logits_to_keep=1, **{cache_name(self.model): cache})
            logits.append(output.logits[:, -1])
            for own, read in zip(self.cache.layers, cache.layers, strict=True):
                own.put(row, len(self.prompts), self.tails.shape[1], read.keys, read.values)
        return torch.cat(logits)

    def _tails(self) -> Tensor:
        """Read what follows the prefix, all prompts side by side; the logits after the last tokens."""
        step = max(1, self.budget // len(self.prompts))
        for start in range(0, self.tails.shape[1], step):
            logits = self._forward(self.tails[:, start : start + step])
        return logits

    def _prefix(self) -> Prefix | None:
        """Read what all prompts share."""
        if self.shared == 0:
            return None
        ids = torch.tensor([self.prompts[0].ids[: self.shared]], device=self.model.device)
        cache = preallocated_cache(self.layers, self.shared)
        with behind(None):
            for start in range(0, self.shared, self.budget):
                part = ids[:, start : start + self.budget]
                self._read(part, torch.arange(start, start + part.shape[1], device=ids.device)[None], _seen(start, part, None), cache)
        return [(layer.keys[0], layer.values[0]) for layer in cache.layers]

    def _forward(self, ids: Tensor) -> Tensor:
        """Read more tokens (sequences, new) of each sequence; the logits (sequences, vocabulary) after the last."""
        filled = self.cache.get_seq_length()
        places = torch.arange(filled, filled + ids.shape[1], device=ids.device) - self.pads[:, None] + self.shared
        return self._read(ids, places.clamp(min=0), _seen(filled, ids, self.pads), self.cache)

    def _read(self, ids: Tensor, places: Tensor, seen: Tensor, cache: Any) -> Tensor:
        mask = torch.zeros(seen.shape, dtype=self.model.dtype, device=ids.device)
        mask.masked_fill_(~seen, torch.finfo(self.model.dtype).min)
        output = self.model(
            input_ids=ids,
            attention_mask=mask[:, None],
            position_ids=places,
            use_cache=True,
            logits_to_keep=1,
            **{cache_name(self.model): cache},
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _keep(self, rows: list[int]) -> None:
        if len(rows) == len(self.pads):
            return
        kept = torch.tensor(rows, dtype=torch.long, device=self.pads.device)
        self.pads = self.pads[kept]
        for layer in self.cache.layers:
            layer.select(kept)


def _seen(filled: int, ids: Tensor, pads: Tensor | None) -> Tensor:
    """Which of the own positions each new token sees, (sequences, new, own): those before it and itself, none of the padding."""
    own = torch.arange(filled + ids.shape[1], device=ids.device)
    seen = (own <= own[filled:, None]).expand(len(ids), -1, -1)
    return seen if pads is None else seen & (own >= pads[:, None, None])
