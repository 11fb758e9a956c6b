"""Sizes of published models, counted from their dimensions (`data/published_shapes.csv`, from each model's published config).

Models with and without tied embeddings are counted by one rule: every parameter that multiplies activations counts once. The counts
agree with the published totals, which a test checks. The intermediate size of a mixture is that of one expert. `window` is the number of
tokens to which a query of the `windowed_layers` attends at most (Gemma 2: every second layer). A window that a config states and does not
use (Qwen 2.5), or that is longer than the model's positions (Phi 3.5), is none.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from compresslab.errors import BadInput
from compresslab.records import AttentionLayers, Shape, Size


@dataclass(frozen=True)
class WeightStorage:
    """How a model's weights are stored.

    Attributes:
        bits: per weight in the decoder layers, including scales and zero points. head_bits: of the embedding and the output head.
        weight_only: products run at 16 bits.
        head_apart: embedding and output head are stored as two tensors even if they are tied.
        trained: the weights were trained after quantization, so that they differ from the parent's.
        scale_bits: the part of `bits` that is scales and zero points.
    """

    bits: float
    head_bits: float = 16.0
    weight_only: bool = True
    head_apart: bool = False
    trained: bool = False
    scale_bits: float = 0.0

    @property
    def code_bits(self) -> int:
        """Bits of a weight's own code."""
        return round(self.bits - self.scale_bits)


BF16 = WeightStorage(16.0)


@cache
def dimensions() -> dict[str, dict[str, str]]:
    """The dimensions of every known model, by name."""
    text = (resources.files("compresslab") / "data" / "published_shapes.csv").read_text("utf-8")
    return {row["model"]: row for row in csv.DictReader(text.splitlines())}


def size_and_shape(model: str, stored: WeightStorage = BF16) -> tuple[Size, Shape]:
    """Size and shape of a known model with its weights stored as `stored`.

    Raises:
        BadInput: the model's dimensions are not known.
    """
    row = dimensions().get(model)
    if row is None:
        raise BadInput(
            f"the dimensions of {model} are not known; those of {len(dimensions())} models are: {', '.join(sorted(dimensions()))}"
        )
    return counted_from(row, stored)


def counted_from(row: Mapping[str, str], stored: WeightStorage = BF16) -> tuple[Size, Shape]:
    """Size and shape of a model from its dimensions, in the columns of `data/published_shapes.csv`.

    Norms, biases and a router have 16 bits.
    """
    family, tied = row["architecture"], row["tied"] == "1"
    layers, hidden, intermediate, vocabulary = (int(row[key]) for key in ("layers", "hidden", "intermediate", "vocabulary"))
    experts, used, head_dim = (int(row[key]) for key in ("experts", "experts_per_token", "head_dim"))
    width, key_value = int(row["heads"]) * head_dim, int(row["kv_heads"]) * head_dim
    expert = (3 if row["gated"] == "1" else 2) * hidden * intermediate
    products = layers * (2 * hidden * (width + key_value) + expert * max(experts, 1))
    # qwen2 has biases on q, k and v, qwen3 has norms on the heads of q and k, gemma2 has two more norms.
    extra = {"qwen2": width + 2 * key_value, "gemma2": 2 * hidden}.get(family, 2 * head_dim if family.startswith("qwen3") else 0)
    small = layers * (2 * hidden + extra + hidden * experts) + hidden
    head = vocabulary * hidden
    counted, lookup = products + small + head, 0 if tied else head
    read_bits = products * stored.bits + small * 16 + head * stored.head_bits
    stored_bits = read_bits + (head if stored.head_apart else lookup) * stored.head_bits
    size = Size(
        parameters=counted + lookup,
        counted=counted,
        active=counted - layers * expert * (experts - used),
        nonzero=counted + lookup,
        stored_bytes=round(stored_bits / 8),
        effective_bits=stored_bits / (counted + lookup),
    )
    shape = Shape(
        architecture=family,
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        attention_width=width,
        key_value_width=key_value,
        vocabulary=vocabulary,
        weight_bits=read_bits / counted,
        weight_only=stored.weight_only,
        experts=experts,
        experts_per_token=used,
        attention=_attention(row, layers, 2 * key_value, 2 * width),
    )
    return size, shape


def _attention(row: Mapping[str, str], layers: int, kept: int, width: int) -> tuple[AttentionLayers, ...]:
    """The layers with a window and those without, by the rules of `models.counting.attention_layers`; empty if none has one.

    Args:
        kept: features of keys and values of one token in one layer. width: what a query multiplies for each token that it attends to.
    """
    window, windowed = int(row.get("window", 0)), int(row.get("windowed_layers", 0))
    kind = AttentionLayers(layers=layers - windowed, kept=kept, read=kept, prefill_width=width, decode_width=width)
    with_window = kind.model_copy(update={"layers": windowed, "window": window})
    return tuple(one for one in (with_window, kind) if one.layers) if windowed else ()
