"""Sums over the inputs of linear layers while a decoder layer runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.algorithms.hessian import gram
from compresslab.models.anatomy import linear_layers
from compresslab.models.calibration.attention import recorded_rows

VALUES = "v_proj"
# Numbers that are worked on at a time on a processor: 1 MB in float32.
BLOCK = 2**18


class InputSums:
    """Sums over the inputs of the linear layers inside `layer`, while it is entered.

    Linear layers that read one tensor (q and k) share one sum. The values' projection has its own, over what reaches the output: a
    value matters through the queries that attend to it, and the first token of a sequence, to which nearly all do, over a thousand
    times as much as the median one (SmolLM2). Its sum is over A X, the inputs as (every eighth of) the queries of each head mix them.
    Rounding SmolLM2's values by the plain sum makes the model worse than rounding them to the nearest; see experiments/calibration.

    Attributes:
        leaders: for each linear layer the one whose sum it shares. sources: for each the first one that reads the same tensor.
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
        """Watch from here on."""
        self._handles = [module.register_forward_pre_hook(self._watch(name)) for name, module in self.linears.items()]
        self._handles += [module.register_forward_hook(self._attended(name)) for name, module in self._attentions.items()]

    def __exit__(self, *error: object) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()
        self._last = None
        self._values.clear()

    def tensors(self, tokens: int) -> dict[str, Tensor]:
        """`sum_of_squares/`, `magnitude/` and, where asked for, `gram/` with each leader's name, on the processor.

        A linear layer that no token came to (an expert) has sums of zero. `magnitude` is the mean over `tokens`.
        """
        for name, linear in self.linears.items():
            if name not in self.leaders:
                self.leaders[name] = self.sources[name] = name
                self._add(name, linear.weight.new_zeros(1, linear.in_features))
                self._add_magnitude(name, linear.weight.new_zeros(1, linear.in_features))
        return {name: (value / tokens if name.startswith("magnitude/") else value).cpu().contiguous() for name, value in self._sums.items()}

    def _watch(self, name: str) -> Callable[..., None]:
        attention = name.removesuffix(f".{VALUES}")

        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            del module
            # Held, so that its place in memory is not another tensor's while the comparison lasts.
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

    def _attended(self, name: str) -> Callable[..., None]:
        values = f"{name}.{VALUES}"

        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            del module, inputs
            taken = self._values.pop(name)
            weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
            self.leaders[values] = values
            # Heads and queries as one dimension: over two, the product would copy the inputs for each head.
            mixed = taken if weights is None else recorded_rows(weights, taken.shape[1]).to(taken.dtype).flatten(1, 2) @ taken
            self._add(values, mixed)

        return hook

    def _add(self, name: str, inputs: Tensor) -> None:
        # Not the diagonal of the second moments, which rounds otherwise: who else reads the statistics must change no result.
        self._sum(f"sum_of_squares/{name}", column_sums(inputs, torch.square).cpu().double())
        if self.grams:
            self._sum(f"gram/{name}", gram(inputs))

    def _add_magnitude(self, name: str, inputs: Tensor) -> None:
        self._sum(f"magnitude/{name}", column_sums(inputs, torch.abs))

    def _sum(self, key: str, value: Tensor) -> None:
        self._sums[key] = value if key not in self._sums else self._sums[key].add_(value)


def column_sums(inputs: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    """Sum over rows of a function of each element of (..., columns), in float32; part by part, so that all passes but the first find the
    rows in the cache."""
    flat = inputs.flatten(0, -2)
    rows = max(1, BLOCK // flat.shape[1]) if flat.device.type == "cpu" else len(flat)
    total = torch.zeros(flat.shape[1], device=flat.device)
    for part in torch.split(flat, max(1, rows)):
        total += of(part.float()).sum(0)
    return total


def together(shared: dict[str, str]) -> list[list[str]]:
    """The linear layers of `leaders` or `sources`, those with one value in a list."""
    groups: dict[str, list[str]] = {}
    for name, first in shared.items():
        groups.setdefault(first, []).append(name)
    return list(groups.values())
