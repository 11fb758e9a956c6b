"""Sums over the inputs of linear layers while a decoder layer runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.algorithms.hessian import gram
from compresslab.models.anatomy import linear_layers
from compresslab.models.calibration.attention import recorded_rows
from compresslab.models.ranks import Ranks

VALUES = "v_proj"
# Elements that a processor sums at a time: 1 MB in float32.
BLOCK = 2**18


class InputSums:
    """Sums over the inputs of the linear layers inside `layer`, while it is entered.

    Linear layers that read the same tensor (q and k) share one sum. The projection of the values has its own sum, over A X: the inputs X
    weighted by the attention weights A of every eighth query of each head. A value influences the output through the queries that attend
    to it. The first token of a sequence, to which nearly all queries attend, has over a thousand times the influence of the median one
    (SmolLM2). Rounding SmolLM2's values by the plain sum is worse than rounding them to the nearest; see experiments/calibration.

    Attributes:
        leaders: for each linear layer, the layer under whose name its sum is stored.
        sources: for each linear layer, the first layer that reads the same tensor.
    """

    def __init__(self, layer: nn.Module, *, grams: bool) -> None:
        self.linears, self.grams = linear_layers(layer), grams
        self.leaders: dict[str, str] = {}
        self.sources: dict[str, str] = {}
        self._attentions = {
            name: module for name, module in layer.named_modules() if f"{name}.{VALUES}" in self.linears and hasattr(module, VALUES)
        }
        self._sums: dict[str, Tensor] = {}
        self._last: tuple[Tensor, str] | None = None
        self._values: dict[str, Tensor] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> None:
        self._handles = [module.register_forward_pre_hook(self._input_hook(name)) for name, module in self.linears.items()]
        self._handles += [module.register_forward_hook(self._attention_hook(name)) for name, module in self._attentions.items()]

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._last = None
        self._values.clear()

    def add_others(self, ranks: Ranks) -> None:
        """Add the sums of the other processes to those of the first one, which then knows all leaders. All processes must call this."""
        for leaders, sources in reversed(ranks.gathered((self.leaders, self.sources))):
            self.leaders, self.sources = {**self.leaders, **leaders}, {**self.sources, **sources}
        self._sums = ranks.add_to_first(self._sums)

    def tensors(self, tokens: int) -> dict[str, Tensor]:
        """`sum_of_squares/`, `magnitude/` and, with `grams`, `gram/` with each leader's name, on the processor.

        A linear layer without tokens (an expert) has sums of zero. `magnitude` is the mean over `tokens`.
        """
        for name, linear in self.linears.items():
            if name not in self.leaders:
                self.leaders[name] = self.sources[name] = name
                self._add(name, linear.weight.new_zeros(1, linear.in_features))
                self._add_magnitude(name, linear.weight.new_zeros(1, linear.in_features))
        return {name: (value / tokens if name.startswith("magnitude/") else value).cpu().contiguous() for name, value in self._sums.items()}

    def _input_hook(self, name: str) -> Callable[..., None]:
        attention = name.removesuffix(f".{VALUES}")

        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            del module
            # The reference keeps the tensor alive, so that no other tensor gets its address before the comparison.
            if self._last is None or self._last[0] is not inputs[0]:
                self._last = (inputs[0], name)
            source = self.sources.setdefault(name, self._last[1])
            if source == name:
                self._add_magnitude(name, inputs[0])
            if attention in self._attentions and attention != name:
                self._values[attention] = inputs[0]
                return
            leader = self.leaders.setdefault(name, source)
            if leader == name:
                self._add(name, inputs[0])

        return hook

    def _attention_hook(self, name: str) -> Callable[..., None]:
        values = f"{name}.{VALUES}"

        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            del module, inputs
            inputs_of_values = self._values.pop(name)
            weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
            self.leaders[values] = values
            # Heads and queries are one dimension. With two, the product would copy the inputs for each head.
            mixed = (
                inputs_of_values
                if weights is None
                else recorded_rows(weights, inputs_of_values.shape[1]).to(inputs_of_values.dtype).flatten(1, 2) @ inputs_of_values
            )
            self._add(values, mixed)

        return hook

    def _add(self, name: str, inputs: Tensor) -> None:
        # The diagonal of the second moments rounds differently. Results must not depend on whether other steps need the second moments.
        self._sum(f"sum_of_squares/{name}", column_sums(inputs, torch.square).cpu().double())
        if self.grams:
            self._sums[f"gram/{name}"] = gram(inputs, self._sums.get(f"gram/{name}"))

    def _add_magnitude(self, name: str, inputs: Tensor) -> None:
        self._sum(f"magnitude/{name}", column_sums(inputs, torch.abs))

    def _sum(self, key: str, value: Tensor) -> None:
        self._sums[key] = value if key not in self._sums else self._sums[key].add_(value)


def column_sums(inputs: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Sum over rows of `function` of each element of (..., columns), in float32. Rows are processed in parts that fit into the cache."""
    flat = inputs.flatten(0, -2)
    rows = max(1, BLOCK // flat.shape[1]) if flat.device.type == "cpu" else len(flat)
    total = torch.zeros(flat.shape[1], device=flat.device)
    for part in torch.split(flat, max(1, rows)):
        total += function(part.float()).sum(0)
    return total


def grouped_by_value(first_names: dict[str, str]) -> list[list[str]]:
    """Lists of the linear layers with the same value in `leaders` or `sources`."""
    groups: dict[str, list[str]] = {}
    for name, first in first_names.items():
        groups.setdefault(first, []).append(name)
    return list(groups.values())
