"""Calibration text through a model one decoder layer at a time, so that only one layer's statistics are ever held.

The hidden states of all text wait between two layers (2 bytes x hidden size a token in bfloat16); what a layer needs beside them
(masks, rotary embeddings) is asked from the model itself, so that every architecture with a list of layers works.
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
    """The hidden states of calibration text before a layer, and the way through it.

    Attributes:
        hidden: one (sequences, length, hidden) tensor a batch, the input of the layer that comes next.
    """

    def __init__(self, model: PreTrainedModel, ids: Tensor) -> None:
        self.layers = decoder_layers(model)
        self.hidden: list[Tensor] = []
        self.extras: list[list[tuple[tuple[Any, ...], dict[str, Any]]]] = []
        for batch in batches(ids):
            self._enter(model, batch.to(model.device))

    def _enter(self, model: PreTrainedModel, ids: Tensor) -> None:
        """Run the model with layers that do nothing but note what they are called with."""
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        entered: list[Tensor] = []

        def note(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if not calls:
                entered.append(hidden)
            calls.append((args, kwargs))
            return hidden

        with replaced(self.layers, note), torch.no_grad():
            model.base_model(input_ids=ids, use_cache=False)
        self.hidden.append(entered[0])
        self.extras.append(calls)

    @torch.no_grad()
    def through(self, number: int) -> list[Tensor]:
        """The outputs of layer `number` on the waiting hidden states, one tensor a batch."""
        outputs = []
        for hidden, calls in zip(self.hidden, self.extras, strict=True):
            args, kwargs = calls[number]
            output = self.layers[number](hidden, *args, **kwargs)
            outputs.append(output[0] if isinstance(output, tuple) else output)
        return outputs


@contextlib.contextmanager
def replaced(layers: nn.ModuleList, forward: Callable[..., Any]) -> Iterator[None]:
    """Another forward function for all layers, and their own again at the end."""
    try:
        for layer in layers:
            layer.forward = forward
        yield
    finally:
        for layer in layers:
            del layer.forward
