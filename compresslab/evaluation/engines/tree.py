"""Log-likelihoods of requests that share prefixes, as one trie whose nodes are each computed once.

The trie (see `trie`) is computed in forward passes of a fixed number of nodes. A mask limits each node's attention to its ancestors, and
positions are depths in the trie. The memory needed is that of one pass and one path for every task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from compresslab.evaluation.attention import tree as tree_attention
from compresslab.evaluation.attention.tree import layout, use_layout
from compresslab.evaluation.engines.cache_name import cache_name
from compresslab.evaluation.engines.exactness import outgrown_window
from compresslab.evaluation.engines.journal import Journal, complete
from compresslab.evaluation.engines.target_scores import piece_scores, request_scores
from compresslab.evaluation.engines.trie import Forward, Trie, forward_at, forward_count, with_ancestors
from compresslab.evaluation.engines.work import LogLikelihood, LogLikelihoodWork
from compresslab.models.attention import attention_replaced


@torch.inference_mode()
def log_likelihoods(
    model: PreTrainedModel, work: LogLikelihoodWork, budget: int, progress: Callable[[float], None], journal: Journal
) -> list[LogLikelihood]:
    """Log-likelihoods of the requests; see `work.Engine`."""
    trie = work.trie
    window = outgrown_window(model.config, work.longest)
    chunked = window is None and _takes_chunked_attention(model)

    def compute(numbers: Sequence[int]) -> Iterator[list[list[float]]]:
        computed, asked = with_ancestors(trie, budget, numbers), set(numbers)
        pieces = (forward_at(trie, budget, number) for number in computed)
        found = piece_scores(trie, pieces, _ForwardPasses(model, trie, window, chunked).logits)
        return (scores for number, scores in zip(computed, found, strict=True) if number in asked)

    with attention_replaced(model, tree_attention.NAME, tree_attention.attend) if chunked else nullcontext():
        return request_scores(trie, complete(forward_count(trie, budget), compute, journal, progress))


def _takes_chunked_attention(model: PreTrainedModel) -> bool:
    """Whether the model can use attention in chunks, which is a kernel for processors and cannot cap scores."""
    text = model.config.get_text_config()
    capped = getattr(text, "attn_logit_softcapping", None) is not None
    return bool(model.device.type == "cpu" and text._attn_implementation == "sdpa" and not capped)


class _ForwardPasses:
    """Forward passes over a trie's nodes in order. The KV cache contains the path to the next pass.

    Args:
        window: the attention window in positions, if a sequence is longer. chunked: attention is that of `attention.tree`.
    """

    def __init__(self, model: PreTrainedModel, trie: Trie, window: int | None, chunked: bool) -> None:
        self.model, self.trie, self.window, self.chunked = model, trie, window, chunked
        self.cache = DynamicCache()  # without the config, so that layers with a window also keep the whole path

    def logits(self, forward: Forward, rows: Tensor) -> Tensor:
        """Logits (rows, vocabulary) after the nodes `rows`, counted from the forward's first node."""
        self._keep(slice(forward.past))  # passes between this one and the last may be skipped
        if self.chunked:
            # Attention in chunks ignores the mask, but without one transformers would build its own.
            ignored_mask = torch.zeros((1, 1, 1, 1), dtype=self.model.dtype, device=self.model.device)
            with use_layout(layout(self.trie, forward)):
                logits = self._compute(forward, rows, ignored_mask)
        else:
            logits = self._compute(forward, rows, self._masks(forward))
        self._keep(torch.from_numpy(forward.keep).to(self.model.device))
        return logits

    def _compute(self, forward: Forward, rows: Tensor, masks: Tensor | dict[str, Tensor]) -> Tensor:
        nodes, device = slice(forward.start, forward.stop), self.model.device
        logits: Tensor = self.model(
            input_ids=torch.from_numpy(self.trie.tokens[nodes])[None].to(device),
            attention_mask=masks,
            position_ids=torch.from_numpy(self.trie.depth[nodes])[None].to(device),
            use_cache=True,
            logits_to_keep=rows.to(device),
            **{cache_name(self.model): self.cache},
        ).logits[0]
        return logits

    def _masks(self, forward: Forward) -> Tensor | dict[str, Tensor]:
        """Masks to add to the attention scores: (1, 1, new, past + new), or one for each kind of layer."""
        if self.window is None:
            return self._mask(forward.visible)
        depth = self.trie.depth[forward.start : forward.stop]
        near = np.concatenate([np.arange(forward.past), depth]) > depth[:, None] - self.window
        sliding = self._mask(forward.visible & near)
        if not getattr(self.model.config.get_text_config(), "layer_types", None):
            return sliding
        return {"full_attention": self._mask(forward.visible), "sliding_attention": sliding}

    def _mask(self, visible: NDArray[np.bool_]) -> Tensor:
        mask = torch.zeros(visible.shape, dtype=self.model.dtype)
        mask.masked_fill_(~torch.from_numpy(visible), torch.finfo(self.model.dtype).min)
        return mask[None, None].to(self.model.device)

    def _keep(self, positions: Tensor | slice) -> None:
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[:, :, positions], layer.values[:, :, positions]
