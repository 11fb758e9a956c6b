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

from compresslab.errors import UnsupportedModel, out_of_memory
from compresslab.models.anatomy import backbone, decoder_layers
from compresslab.models.calibration.hidden_states import HiddenStates
from compresslab.models.documents.boundaries import ModelInput, batches, crosses, crossing, trial
from compresslab.models.streamed.weights import StoredWeights

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Blockwise:
    """The hidden states of calibration text before the next decoder layer, and the arguments of all layers.

    Attributes:
        hidden: one (sequences, length, hidden) tensor per batch, the input of the next layer.
        arguments: for each batch, the other arguments of each layer. Batches with equal arguments share them.
    """

    def __init__(self, model: PreTrainedModel, text: ModelInput, weights: StoredWeights | None = None) -> None:
        """Take a model and its text.

        Args:
            weights: of a model that is not in memory. The caller holds a layer while it runs.

        Raises:
            UnsupportedModel: more than hidden states goes from layer to layer, or a layer does not keep documents apart that the text does.
        """
        self.layers = decoder_layers(model)
        self._in_a_tuple = False
        self.arguments: list[list[Arguments]] = []
        device = model.device if weights is None else weights.device
        with weights.rows_on_demand() if weights is not None else contextlib.nullcontext():
            if text.positions is not None:
                self._refuse_crossing(model, weights, device)
            self.hidden = HiddenStates(self._first_inputs(model, batch.to(device)) for batch in batches(text))

    def _refuse_crossing(self, model: PreTrainedModel, weights: StoredWeights | None, device: torch.device) -> None:
        """Refuse a model with a layer that does not keep documents apart. The first layer of each kind is tried."""
        try:
            (hidden, calls), (own, own_calls) = (self._inputs(model, one) for one in trial(model, device))
        except TypeError as error:
            if "position_ids" not in str(error):
                raise
            raise crossing(model) from None
        kinds = getattr(model.config.get_text_config(), "layer_types", None) or [""] * len(self.layers)
        first = {(kinds[number], *map(type, layer.modules())): number for number, layer in reversed(list(enumerate(self.layers)))}
        for number in first.values():
            layer, (args, kwargs), (own_args, own_kwargs) = self.layers[number], calls[number], own_calls[number]
            with weights.held(layer) if weights is not None else contextlib.nullcontext(), torch.no_grad():
                both, alone = first_output(layer(hidden, *args, **kwargs)), first_output(layer(own, *own_args, **own_kwargs))
            if crosses(hidden, own) or crosses(both - hidden, alone - own):
                raise crossing(model)

    def _first_inputs(self, model: PreTrainedModel, text: ModelInput) -> Tensor:
        """The input of the first layer; the other arguments of all layers are recorded."""
        first, calls = self._inputs(model, text)
        known = self.arguments[-1] if self.arguments else None
        self.arguments.append(known if known is not None and _equal(known, calls) else calls)
        return first

    def _inputs(self, model: PreTrainedModel, text: ModelInput) -> tuple[Tensor, list[Arguments]]:
        """The input of the first layer, and the other arguments of each layer."""
        recorded = self._recorded(model, text)
        if recorded is None and not self._in_a_tuple:
            self._in_a_tuple = True
            recorded = self._recorded(model, text)
        if recorded is None:
            raise UnsupportedModel(
                f"{model.config.model_type}: more than hidden states goes from one of its decoder layers to the next; "
                "steps that go layer by layer do not serve it"
            )
        return recorded

    def _recorded(self, model: PreTrainedModel, text: ModelInput) -> tuple[Tensor, list[Arguments]] | None:
        """Run the model with layers that only record their arguments; `None` if hidden states did not get from each layer to the next."""
        calls: list[Arguments] = []
        inputs: list[Tensor] = []

        def record(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            inputs.append(hidden)
            calls.append((args, kwargs))
            return self.returned(hidden)

        try:
            with forward_replaced(self.layers, record), torch.no_grad():
                last = backbone(model)(**text.arguments)[0]
        except (ValueError, TypeError, RuntimeError, IndexError) as error:
            # What a model's own code raises for an output of another form.
            if not calls or out_of_memory(error):
                raise
            return None
        # A model that expects several outputs takes the first sequence of a tensor for the hidden states. Of the last layer, or the only
        # one, the shape of the model's output tells it.
        passed = (
            len(inputs) == len(self.layers) and all(hidden is inputs[0] for hidden in inputs) and last.shape[:-1] == inputs[0].shape[:-1]
        )
        return (inputs[0], calls) if passed else None

    def returned(self, hidden: Tensor) -> Any:
        """Hidden states as a layer of this architecture returns them: in older ones the first of several outputs."""
        return (hidden, None, None) if self._in_a_tuple else hidden

    @torch.no_grad()
    def outputs_of(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """For each batch the input of layer `number`, the next one, and its output, which is the input of the layer after it."""
        for batch, calls in enumerate(self.arguments):
            hidden = self.hidden[batch]
            args, kwargs = calls[number]
            output = self.layers[number](hidden, *args, **kwargs)
            after = first_output(output)
            self.hidden.replace(batch, after)
            yield hidden, after


def first_output(output: Any) -> Tensor:
    """The hidden states in the output of a decoder layer."""
    hidden: Tensor = output[0] if isinstance(output, tuple | list) else output
    return hidden


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
