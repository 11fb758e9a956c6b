"""Greedy decoding for prompts that share prefixes. A shared prefix is computed, stored and read once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from compresslab.evaluation.attention import shared as shared_attention
from compresslab.evaluation.attention.shared import SharedPrefix, preallocated_cache, use_prefix
from compresslab.evaluation.engines.cache_name import cache_name
from compresslab.evaluation.engines.journal import Journal, complete
from compresslab.evaluation.engines.work import GenerationWork, Prompt
from compresslab.models.attention import attention_replaced
from compresslab.models.counting.attention_layers import attention_layers

MAX_BATCH = 32  # prompts, if the memory suffices
MAX_CACHE_BYTES = 2**30  # of the keys and values that the sequences of a batch do not share
# A batch takes any prompt until it has this many, since a decoding step reads all weights for one sequence or for eight. (A choice; 32
# answers of gsm8k took over three minutes one by one, and 107 s in one batch.)
MIN_BATCH = 8
# Further prompts join only if the batch keeps at least this share of its common prefix.
MIN_PREFIX_KEPT = 0.5
# A common prefix below this share of the longest prompt is not computed separately.
MIN_PREFIX = 0.2


@torch.inference_mode()
def generate(
    model: PreTrainedModel, work: GenerationWork, budget: int, progress: Callable[[float], None], journal: Journal
) -> list[list[int]]:
    """The new token ids of each prompt, until `stop_reached` returns true or there are `max_new_tokens`; see `work.Engine`."""
    prompts = work.prompts
    batches = list(prompt_batches(prompts, cache_bytes_per_token(model)))

    def compute(numbers: Sequence[int]) -> Iterator[list[list[int]]]:
        for number in numbers:
            yield _Batch(model, [prompts[index] for index in batches[number]], budget).generate()

    answers: dict[int, list[int]] = {}
    for batch, found in zip(batches, complete(len(batches), compute, journal, progress), strict=True):
        answers.update(zip(batch, found, strict=True))
    return [answers[index] for index in range(len(prompts))]


def prompt_batches(prompts: Sequence[Prompt], bytes_per_token: int) -> Iterator[list[int]]:
    """Batches of indices of prompts that share a prefix, as large as the memory for their unshared keys and values allows.

    Args:
        bytes_per_token: bytes of keys and values per token.
    """
    batch: list[int] = []
    shared = 0
    for index in sorted(range(len(prompts)), key=lambda i: prompts[i].input_ids):
        if batch:
            common = min(common_prefix(prompts[batch[0]].input_ids, prompts[index].input_ids), shared)
            longest = max(len(prompts[i].input_ids) + prompts[i].max_new_tokens for i in [*batch, index]) - common
            differs = common < MIN_PREFIX_KEPT * shared and len(batch) >= MIN_BATCH
            if len(batch) == MAX_BATCH or differs or (len(batch) + 1) * longest * bytes_per_token > MAX_CACHE_BYTES:
                yield batch
                batch = []
            else:
                shared = common
        if not batch:
            shared = len(prompts[index].input_ids) - 1
        batch.append(index)
    if batch:
        yield batch


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the common prefix, which is shorter than both sequences, so that each prompt keeps a token to read."""
    maximum = min(len(left), len(right)) - 1
    return next((place for place in range(maximum) if left[place] != right[place]), maximum)


def cache_bytes_per_token(model: PreTrainedModel) -> int:
    """Bytes of the keys and values of a token in all layers, at least 1."""
    features = sum(kind.layers * kind.kept for kind in attention_layers(model.config.get_text_config()))
    return max(1, features * int(model.dtype.itemsize))


class _Batch:
    """Prompts that are answered together: a shared prefix, which may be empty, and a suffix for each prompt."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Prompt], budget: int) -> None:
        self.model, self.prompts, self.budget = model, prompts, budget
        self.shared = min((common_prefix(prompts[0].input_ids, prompt.input_ids) for prompt in prompts), default=0)
        if self.shared < MIN_PREFIX * max(len(prompt.input_ids) for prompt in prompts):
            self.shared = 0
        suffixes = [prompt.input_ids[self.shared :] for prompt in prompts]
        width = max(map(len, suffixes))
        self.padding = torch.tensor([width - len(suffix) for suffix in suffixes], device=model.device)
        # Padding is on the left, so that new tokens of all sequences have the same position in the cache.
        self.suffixes = torch.tensor([[0] * (width - len(suffix)) + suffix for suffix in suffixes], device=model.device)
        self.layers = model.config.get_text_config().num_hidden_layers
        self.cache = preallocated_cache(self.layers, width + max(prompt.max_new_tokens for prompt in prompts))

    def generate(self) -> list[list[int]]:
        """The new token ids in the order of the prompts."""
        answers: list[list[int]] = [[] for _ in self.prompts]
        active = [number for number, prompt in enumerate(self.prompts) if prompt.max_new_tokens > 0]
        first = None if self.shared else self._prefill_one_by_one()
        with attention_replaced(self.model, shared_attention.NAME, shared_attention.attend), use_prefix(self._prefill_prefix()):
            logits = (self._prefill_suffixes() if first is None else first)[active]
            self._keep_sequences(active)
            while active:
                chosen = logits.argmax(-1)
                for number, token in zip(active, chosen.tolist(), strict=True):
                    answers[number].append(token)
                unfinished = [row for row, number in enumerate(active) if not self._finished(self.prompts[number], answers[number])]
                if len(unfinished) < len(active):
                    self._keep_sequences(unfinished)
                    active, chosen = [active[row] for row in unfinished], chosen[unfinished]
                if active:
                    logits = self._next_logits(chosen[:, None])
        return answers

    def _finished(self, prompt: Prompt, answer: list[int]) -> bool:
        return len(answer) >= prompt.max_new_tokens or prompt.stop_reached(answer)

    def _prefill_one_by_one(self) -> Tensor:
        """Compute each prompt with the model's own attention, which is fastest for a single sequence. Returns the logits after each."""
        logits = []
        for row, prompt in enumerate(self.prompts):
            cache = DynamicCache()  # without the config, so that layers with a window also keep all positions
            ids = torch.tensor([prompt.input_ids], device=self.model.device)
            for start in range(0, ids.shape[1], self.budget):
                part = ids[:, start : start + self.budget]
                output = self.model(input_ids=part, use_cache=True, logits_to_keep=1, **{cache_name(self.model): cache})
            logits.append(output.logits[:, -1])
            for own, read in zip(self.cache.layers, cache.layers, strict=True):
                own.write_sequence(row, len(self.prompts), self.suffixes.shape[1], read.keys, read.values)
        return torch.cat(logits)

    def _prefill_prefix(self) -> SharedPrefix | None:
        """Compute the shared prefix. Returns its keys and values."""
        if self.shared == 0:
            return None
        ids = torch.tensor([self.prompts[0].input_ids[: self.shared]], device=self.model.device)
        cache = preallocated_cache(self.layers, self.shared)
        with use_prefix(None):
            for start in range(0, self.shared, self.budget):
                part = ids[:, start : start + self.budget]
                positions = torch.arange(start, start + part.shape[1], device=ids.device)[None]
                self._forward(part, positions, _visible(start, part, None), cache)
        return [(layer.keys[0], layer.values[0]) for layer in cache.layers]

    def _prefill_suffixes(self) -> Tensor:
        """Compute the suffixes of all prompts in one batch. Returns the logits after the last tokens."""
        step = max(1, self.budget // len(self.prompts))
        for start in range(0, self.suffixes.shape[1], step):
            logits = self._next_logits(self.suffixes[:, start : start + step])
        return logits

    def _next_logits(self, ids: Tensor) -> Tensor:
        """Compute more tokens (sequences, new) of each sequence. Returns the logits (sequences, vocabulary) after the last."""
        filled = self.cache.get_seq_length()
        positions = torch.arange(filled, filled + ids.shape[1], device=ids.device) - self.padding[:, None] + self.shared
        return self._forward(ids, positions.clamp(min=0), _visible(filled, ids, self.padding), self.cache)

    def _forward(self, ids: Tensor, positions: Tensor, visible: Tensor, cache: Any) -> Tensor:
        mask = torch.zeros(visible.shape, dtype=self.model.dtype, device=ids.device)
        mask.masked_fill_(~visible, torch.finfo(self.model.dtype).min)
        output = self.model(
            input_ids=ids,
            attention_mask=mask[:, None],
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
            **{cache_name(self.model): cache},
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _keep_sequences(self, rows: list[int]) -> None:
        if len(rows) == len(self.padding):
            return
        kept_rows = torch.tensor(rows, dtype=torch.long, device=self.padding.device)
        self.padding = self.padding[kept_rows]
        for layer in self.cache.layers:
            layer.select(kept_rows)


def _visible(filled: int, ids: Tensor, padding: Tensor | None) -> Tensor:
    """Whether each new token attends to each own position, (sequences, new, own): to itself and those before it, without padding."""
    own = torch.arange(filled + ids.shape[1], device=ids.device)
    visible = (own <= own[filled:, None]).expand(len(ids), -1, -1)
    return visible if padding is None else visible & (own >= padding[:, None, None])
