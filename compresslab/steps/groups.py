"""Checks of sizes that grouped quantization needs, before a weight is touched."""

from __future__ import annotations

from torch import nn

from compresslab.errors import BadInput
from compresslab.models.bit_packing import WORD

USUAL = (16, 32, 64, 128, 256)


def check_groups(layers: dict[str, nn.Linear], group_size: int, who: str) -> None:
    """Refuse a group size that leaves a remainder anywhere.

    Raises:
        BadInput: naming the first such layer and the sizes that divide every layer.
    """
    widths = {layer.in_features for layer in layers.values()}
    for name, layer in layers.items():
        if layer.in_features % group_size:
            fitting = [size for size in USUAL if all(width % size == 0 for width in widths)]
            raise BadInput(
                f"quantize {who}: group_size {group_size} does not divide the {layer.in_features} inputs of {name}; "
                f"sizes that divide every layer: {', '.join(map(str, fitting)) or 'none of the usual ones'}"
            )


def check_words(layers: dict[str, nn.Linear], who: str) -> None:
    """Refuse a layer whose codes do not fill the checkpoint format's words.

    Raises:
        BadInput: naming the first such layer.
    """
    for name, layer in layers.items():
        if layer.in_features % WORD or layer.out_features % WORD:
            raise BadInput(
                f"quantize {who}: {name} has {layer.in_features} inputs and {layer.out_features} outputs; the checkpoint format needs both "
                f"in multiples of {WORD} (after `prune: {{method: width}}`, set `multiple: {WORD}`)"
            )
