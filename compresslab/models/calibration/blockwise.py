"""Runs calibration text through a model one decoder layer at a time, so that only one layer and its statistics are in memory.

The hidden states of all text are stored between two layers (2 bytes x hidden size per token in bfloat16). The other arguments of a layer
(masks, rotary embeddings) are recorded from the model itself, so that every architecture with a list of layers works.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compresslab.models.anatomy import decoder_layers
from compresslab.models.calibration.hidden_states import HiddenStates
from compresslab.models.streamed.weights import StoredWeights
from compresslab.models.text import batches

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Blockwise:
    """The hidden states of calibration text before the next decoder layer, and the arguments of all layers.

    Attributes:
        hidden: one (sequences, length, hidden) tensor per batch, the input of the next layer.
        arguments: for each batch, the other arguments of each layer. Batches with equal arguments share them.
    """

    def __init__(self, model: PreTrainedModel, ids: Tensor, weights: StoredWeights | None = None) -> None:
        """Take a model and its text.

        Args:
            weights: of a model that is not in memory. The caller holds a layer while it runs.
        """
        self.layers = decoder_layers(model)
        self.arguments: list[list[Arguments]] = []
        device = model.device if weights is None else weights.device
        with weights.rows_on_demand() if weights is not None else contextlib.nullcontext():
            self.hidden = HiddenStates(self._first_inputs(model, batch.to(device)) for batch in batches(ids))

    def _first_inputs(self, model: PreTrainedModel, ids: Tensor) -> Tensor:
        """Run the model with layers that only record their arguments."""
        calls: list[Arguments] = []
        first_inputs: list[Tensor] = []

        def record(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if not calls:
                first_inputs.append(hidden)
            calls.append((args, kwargs))
            return hidden

        with forward_replaced(self.layers, record), torch.no_grad():
            model.base_model(input_ids=ids, use_cache=False)
        known = self.arguments[-1] if self.arguments else None
        self.arguments.append(known if known is not None and _equal(known, calls) else calls)
        return first_inputs[0]

    @torch.no_grad()
    def outputs_of(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """For each batch the input of layer `number`, the next one, and its output, which is the input of the layer after it."""
        for batch, calls in enumerate(self.arguments):
            hidden = self.hidden[batch]
            args, kwargs = calls[number]
            output = self.layers[number](hidden, *args, **kwargs)
            after = output[0] if isinstance(output, tuple) else output
            self.hidden.replace(batch, after)
            yield hidden, after


def _equal(first: Any, second: Any) -> bool:
    """Whether two nested collections of arguments are equal."""
    if first is second:
        return True
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor):
        return first.shape == second.shape and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_equal(first[name], second[name]) for name in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(_equal, first, second))
    return bool(first == second)


@contextlib.contextmanager
def forward_replaced(layers: nn.ModuleList, forward: Callable[..., Any]) -> Iterator[None]:
    """A context in which all layers have another forward function."""
    try:
        for layer in layers:
            layer.forward = forward
        yield
    finally:
        for layer in layers:
            del layer.forward
