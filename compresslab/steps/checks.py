"""Checks that several steps make before they change a weight."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

from torch import nn

from compresslab.errors import BadInput, RunFailed
from compresslab.methods.format import Format, Packing, fitting_groups


def check_format(layers: dict[str, nn.Linear], stored: Format, packing: Packing, method: str) -> None:
    """Refuse layers that a format cannot store.

    Raises:
        BadInput: the message names the first layer whose sizes do not divide, and the sizes that do.
    """
    if stored.whole_groups and packing.group_size is not None:
        _check_groups(layers, packing.group_size, method)
    check_sizes(layers, method, "the checkpoint format", stored.multiple, stored.multiple)


def _check_groups(layers: dict[str, nn.Linear], group_size: int, method: str) -> None:
    fitting = fitting_groups({layer.in_features for layer in layers.values()})
    for name, layer in layers.items():
        if layer.in_features % group_size:
            raise BadInput(
                f"quantize {method}: group_size {group_size} does not divide the {layer.in_features} inputs of {name}; "
                f"sizes that divide every layer: {', '.join(map(str, fitting)) or 'none of the usual ones'}"
            )


def check_sizes(layers: dict[str, nn.Linear], method: str, user: str, inputs: int, outputs: int) -> None:
    """Refuse layers whose inputs or outputs are no multiples of those that `user` (a kernel, a checkpoint format) needs.

    Raises:
        BadInput: the message names the first such layer.
    """
    for name, layer in layers.items():
        if layer.in_features % inputs or layer.out_features % outputs:
            raise BadInput(
                f"quantize {method}: {name} has {layer.in_features} inputs and {layer.out_features} outputs; {user} needs inputs in "
                f"multiples of {inputs} and outputs in multiples of {outputs} "
                f"(after `prune: {{method: width}}`, set `multiple: {max(inputs, outputs)}`)"
            )


def check_finite_scores(scores: list[float], what: str) -> None:
    """Check that the scores of layers are finite.

    Args:
        scores: one number per layer.

    Raises:
        RunFailed: one is NaN or infinite; the message names the first such layer.
    """
    for number, score in enumerate(scores):
        if not math.isfinite(score):
            raise RunFailed(f"the {what} of layer {number} is {score}: the activations are not finite; try dtype float32 or bfloat16")


@contextlib.contextmanager
def second_moments(where: str) -> Iterator[None]:
    """A context that adds the place and a remedy to errors of second moments that cannot be inverted.

    Raises:
        RunFailed: replaces the `ValueError` of `inverse_factor`.
    """
    try:
        yield
    except ValueError as error:
        raise RunFailed(f"{where}: {error}; take more calibration text, or a larger damping") from error
