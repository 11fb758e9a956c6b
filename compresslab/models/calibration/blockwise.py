"""Runs calibration text through a model one decoder layer at a time, so that only one layer's statistics are in memory.

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
from compresslab.models.text import batches


class Blockwise:
    """The hidden states of calibration text before the next decoder layer, and the arguments of all layers.

    Attributes:
        hidden: one (sequences, length, hidden) tensor per batch, the input of the next layer.
        arguments: for each batch, the other arguments of each layer.
    """

    def __init__(self, model: PreTrainedModel, ids: Tensor) -> None:
        self.layers = decoder_layers(model)
        self.hidden: list[Tensor] = []
        self.arguments: list[list[tuple[tuple[Any, ...], dict[str, Any]]]] = []
        for batch in batches(ids):
            self._record_inputs(model, batch.to(model.device))

    def _record_inputs(self, model: PreTrainedModel, ids: Tensor) -> None:
        """Run the model with layers that only record their arguments."""
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        first_inputs: list[Tensor] = []

        def record(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if not calls:
                first_inputs.append(hidden)
            calls.append((args, kwargs))
            return hidden

        with forward_replaced(self.layers, record), torch.no_grad():
            model.base_model(input_ids=ids, use_cache=False)
        self.hidden.append(first_inputs[0])
        self.arguments.append(calls)

    @torch.no_grad()
    def outputs_of(self, number: int) -> list[Tensor]:
        """The outputs of layer `number` for the stored hidden states, one tensor per batch."""
        outputs = []
        for hidden, calls in zip(self.hidden, self.arguments, strict=True):
            args, kwargs = calls[number]
            output = self.layers[number](hidden, *args, **kwargs)
            outputs.append(output[0] if isinstance(output, tuple) else output)
        return outputs


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
