"""The quantization of a GGUF file from which a base is unpacked: its weights were rounded before."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from gguf.constants import GGML_QUANT_SIZES

from compresslab.models.formats.gguf_checks import parsed
from compresslab.models.load import gguf_path
from compresslab.recipe.source import parse_source

# Number of weights per scale in K-quants.
SUB_BLOCKS = {"Q2_K": 16, "Q3_K": 16, "Q4_K": 32, "Q5_K": 32, "Q6_K": 16}
PLAIN_BITS = 16


def origin_details(model: str) -> dict[str, str]:
    """Details for the record of a model on how its weights were quantized before; empty for plain weights."""
    path = gguf_path(parse_source(model))
    before = quantized_before(path) if path is not None else ""
    return {"quantized_before": before} if before else {}


def quantized_before(path: Path) -> str:
    """A description of the format of most quantized weights of a GGUF file; empty if all have 16 bits or more.

    Such as: "Q4_1 (5 bits a weight, at most 16 values in a group of 32), 106 of 135 million parameters".
    """
    parameters: Counter[str] = Counter()
    bits: dict[str, float] = {}
    for tensor in parsed(path).tensors:
        name = tensor.tensor_type.name
        block, stored = GGML_QUANT_SIZES[tensor.tensor_type]
        parameters[name] += int(tensor.n_elements)
        bits[name] = 8 * stored / block
    packed = {name: count for name, count in parameters.items() if bits[name] < PLAIN_BITS}
    if not packed:
        return ""
    name = max(packed, key=lambda one: packed[one])
    others = f" and {', '.join(sorted(packed.keys() - {name}))}" if len(packed) > 1 else ""
    counts = f"{sum(packed.values()) / 1e6:.3g} of {parameters.total() / 1e6:.3g} million parameters"
    return f"{name} ({bits[name]:.3g} bits a weight{_values(name)}){others}, {counts}"


def _values(name: str) -> str:
    """The number of values that a group of weights can take, if the format's name contains it."""
    found = re.match(r"Q(\d)_", name)
    if found is None:
        return ""
    group = SUB_BLOCKS.get(name, 32)
    return f", at most {2 ** int(found[1])} values in a group of {group}" if 2 ** int(found[1]) < 2**8 else ""
