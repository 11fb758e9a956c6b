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

from compresslab.algorithms.hessian import gram
from compresslab.models.anatomy import decoder_layers, linear_layers
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

        with _replaced(self.layers, note), torch.no_grad():
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

    def grams(self, number: int) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Run layer `number` and sum x x^T over the inputs of each of its linear layers.

        Returns:
            The Gram matrices (inputs, inputs) in float32 by the name of the linear layer within the decoder layer, and the layer's outputs.
            Linear layers that read one tensor (q, k and v) share one matrix.
        """
        linears = linear_layers(self.layers[number])
        sums: dict[str, Tensor] = {}
        leader: dict[str, str] = {}
        seen: dict[int, tuple[str, Tensor]] = {}  # the tensors themselves too: the id of one that is gone is used again

        def watch(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
                del module
                first, _ = seen.setdefault(id(inputs[0]), (name, inputs[0]))
                leader[name] = leader.get(name, first)
                if leader[name] == name:
                    found = gram(inputs[0])
                    sums[name] = found if name not in sums else sums[name].add_(found)

            return hook

        def forget(module: nn.Module, inputs: Any, output: Any) -> None:
            del module, inputs, output
            seen.clear()

        handles = [module.register_forward_pre_hook(watch(name)) for name, module in linears.items()]
        handles.append(self.layers[number].register_forward_hook(forget))
        try:
            outputs = self.through(number)
        finally:
            for handle in handles:
                handle.remove()
        return {name: sums[first] for name, first in leader.items()}, outputs


@contextlib.contextmanager
def _replaced(layers: nn.ModuleList, forward: Callable[..., Any]) -> Iterator[None]:
    """Another forward function for all layers, and their own again at the end."""
    try:
        for layer in layers:
            layer.forward = forward
        yield
    finally:
        for layer in layers:
            del layer.forward
