"""Inference time from first principles, and N_time: the dense bf16 parameter count that takes as long.

The formula is this project's own. The journal version of the Densing Law (Nature Machine Intelligence 7, 1823-1833)
defines an inference-time density with constants for memory and compute, but its formula could not be established.

A request has two phases, prefill (`prompt` tokens of each sequence at once) and decode (one pass for each of `decode`
tokens). Each phase takes the larger of the memory and the compute time, as in the roofline model, because kernels load and multiply
at the same time, plus a fixed overhead:

- memory: the weights read in each pass at their stored precision, plus keys and values read and written at 16 bits, over the
  bandwidth times `bandwidth_efficiency`. A mixture of experts reads only the experts that the tokens of a pass are expected to
  select (uniform, independent routing). Layers with a window read what is inside it, linear attention a state of constant size, latent
  attention its latent vector (`records.AttentionLayers`);
- compute: 2 x active parameters per token plus 4 x attention width per layer for each earlier position attended to,
  over the peak times `compute_efficiency`. Weight-only quantization has the 16-bit peak. Weights that are multiplied at 8 bits
  have the 8-bit peak, but attention between tokens is at 16 bits in every format here;
- overhead: `layer_overhead` seconds for each decoder layer of each pass: launches, norms, everything whose time does not
  depend on the bytes of the weights. At batch 1 it limits the gain of a small model from quantization.

The three factors belong to an engine on a machine and are fitted by `density.time.engine_factors` on measured bf16 rows only. The model
leaves out the cost of unpacking quantized weights, which no bf16 row can show; experts stored at other bits than the rest of a
mixture; and several GPUs.
"""

from __future__ import annotations

from typing import NamedTuple

from compresslab.catalog.hardware import Hardware
from compresslab.errors import BadInput
from compresslab.recipe.schema import Workload
from compresslab.records import AttentionLayers, Shape, Size

CACHE_BYTES = 2
"""Bytes of one stored key or value feature."""

CACHE_EXPONENT = 2 / 3
"""Keys, values and attention work of a dense family grow as N^(2/3). Depth and width both grow as N^(1/3), the cache of a token
is proportional to depth times width, and the weights to depth times width squared."""

DEPTH_EXPONENT = 1 / 3
"""The number of layers of that family, and so the overhead of a pass, grows as N^(1/3)."""


def seconds(shape: Shape, size: Size, hardware: Hardware, workload: Workload) -> float:
    """Modelled seconds of one request batch, prefill and decode. Raises BadInput if size and shape contradict each other."""
    _check(shape, size)
    prefill = workload.batch * workload.prompt
    peak_flops = hardware.flops
    if not shape.weight_only and shape.weight_bits < 16 and hardware.flops_8bit is not None:
        peak_flops = hardware.flops_8bit
    return _total_seconds(
        weights_prefill=_parameters_read(shape, size, prefill) * shape.weight_bits / 8,
        weights_decode=_parameters_read(shape, size, workload.batch) * shape.weight_bits / 8,
        active=float(size.active),
        peak_flops=peak_flops,
        scale=1.0,
        shape=shape,
        hardware=hardware,
        workload=workload,
    )


def cache_bytes(shape: Shape, workload: Workload) -> float | None:
    """Bytes of keys, values and states that a model holds at the end of a request batch; `None` if its attention is not known."""
    if not shape.layers or not (shape.attention or shape.key_value_width):
        return None
    tokens = workload.prompt + workload.decode
    held = sum(kind.layers * (min(tokens, kind.window or tokens) * kind.kept + kind.state) for kind in _attention(shape))
    return float(workload.batch * held * CACHE_BYTES)


def bytes_a_token(shape: Shape, size: Size, workload: Workload) -> float | None:
    """Bytes moved for each generated token: the weights that a pass reads, over its sequences, and keys and values. `None` if the
    attention is not known."""
    if cache_bytes(shape, workload) is None:
        return None
    weights = _parameters_read(shape, size, workload.batch) * shape.weight_bits / 8
    caches = sum(_cache(kind, workload.prompt, workload.decode).decode_bytes for kind in _attention(shape))
    return weights / workload.batch + caches / workload.decode


def n_time(shape: Shape, size: Size, hardware: Hardware, workload: Workload, family: tuple[Shape, Size] | None = None) -> float:
    """N_time: parameters of the dense bf16 model that takes as long on this hardware and workload.

    That model is `family`, scaled to the size that takes as long: its cache and attention work are multiplied by (n / active)^(2/3)
    (see `CACHE_EXPONENT`), its layers by (n / active)^(1/3) (see `DEPTH_EXPONENT`). So a dense bf16 `family` has N_time equal to its
    own N. A model whose time goes into its cache or the overhead of its layers gains little from smaller weights. If two children
    have the same size, the one with fewer layers has the smaller N_time.

    Args:
        family: shape and size of the family; in a study the root's, so that all variants have one scale. Default: the model itself.
    """
    family = family or (shape, size)
    active = family[1].active
    target = seconds(shape, size, hardware, workload)
    # The time grows strictly with n, so bisection finds it. 1/1024 to 2^20 times the active size covers one-bit weights
    # and any mixture of experts. 60 halvings reach rounding. Importing scipy's root finder would take 0.5 s.
    low, high = -10.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if family_seconds(active * 2**middle, family, hardware, workload) < target else (low, middle)
    return float(active * 2**high)


def family_seconds(n: float, family: tuple[Shape, Size], hardware: Hardware, workload: Workload) -> float:
    """Modelled seconds of the dense bf16 model of a family scaled to `n` parameters."""
    shape, size = family
    return _total_seconds(
        weights_prefill=2 * n,
        weights_decode=2 * n,
        active=n,
        peak_flops=hardware.flops,
        scale=n / size.active,
        shape=shape,
        hardware=hardware,
        workload=workload,
    )


def _total_seconds(
    *,
    weights_prefill: float,
    weights_decode: float,
    active: float,
    peak_flops: float,
    scale: float,
    shape: Shape,
    hardware: Hardware,
    workload: Workload,
) -> float:
    """Seconds from the bytes of weights that one pass reads and the active parameters of one token.

    Args:
        peak_flops: operations per second of the products with weights; attention always has the bf16 peak.
        scale: parameters of the model over those of `shape`.
    """
    batch, prompt, decode = workload.batch, workload.prompt, workload.decode
    factor: float = scale**CACHE_EXPONENT
    caches = [_cache(kind, prompt, decode) for kind in _attention(shape)]
    prefill_bytes = weights_prefill + factor * batch * sum(cache.prefill_bytes for cache in caches)
    decode_bytes = decode * weights_decode + factor * batch * sum(cache.decode_bytes for cache in caches)
    prefill_work = 2 * active * batch * prompt / peak_flops + factor * batch * sum(cache.prefill_flops for cache in caches) / hardware.flops
    decode_work = 2 * active * batch * decode / peak_flops + factor * batch * sum(cache.decode_flops for cache in caches) / hardware.flops
    bandwidth = hardware.bandwidth * hardware.bandwidth_efficiency
    prefill = max(prefill_bytes / bandwidth, prefill_work / hardware.compute_efficiency)
    steps = max(decode_bytes / bandwidth, decode_work / hardware.compute_efficiency)
    layers: float = scale**DEPTH_EXPONENT * shape.layers
    return prefill + steps + (1 + decode) * layers * hardware.layer_overhead


class _Cache(NamedTuple):
    """Bytes moved and operations of the attention of some layers, for one sequence."""

    prefill_bytes: float
    decode_bytes: float
    prefill_flops: float
    decode_flops: float


def _attention(shape: Shape) -> tuple[AttentionLayers, ...]:
    """The layers of a model by what they keep; of a shape without them, all layers keep everything."""
    if shape.attention:
        return shape.attention
    kept, width = 2 * shape.key_value_width, 2 * shape.attention_width
    return (AttentionLayers(layers=shape.layers, kept=kept, read=kept, prefill_width=width, decode_width=width),)


def _cache(kind: AttentionLayers, prompt: int, decode: int) -> _Cache:
    """Bytes and operations of layers of one kind. The prompt is written once; each further token reads what it attends to."""
    first = _pairs(prompt, kind.window)
    later = _pairs(prompt + decode, kind.window) - first
    # Each token decays, updates and reads the state: two products for each of its features.
    prefill_flops = 2 * kind.prefill_width * first + 4 * kind.state * prompt
    decode_flops = 2 * kind.decode_width * later + 4 * kind.state * decode
    prefill = prompt * kind.kept + kind.state
    decoded = later * kind.read + decode * (kind.kept + 2 * kind.state)
    return _Cache(*(kind.layers * value for value in (prefill * CACHE_BYTES, decoded * CACHE_BYTES, prefill_flops, decode_flops)))


def _pairs(tokens: int, window: int) -> float:
    """Pairs of a token and one that it attends to, itself included, among the first `tokens`; 0 is no window."""
    inside = min(tokens, window) if window else tokens
    return inside * (inside + 1) / 2 + (tokens - inside) * inside


def _parameters_read(shape: Shape, size: Size, tokens: int) -> float:
    """Parameters that a pass over `tokens` tokens reads. With E experts and k per token it reads E (1 - (1 - k/E)^tokens) experts."""
    if shape.experts <= shape.experts_per_token:
        return float(size.counted)
    expert = (size.counted - size.active) / (shape.experts - shape.experts_per_token)
    experts_read = shape.experts * (1 - (1 - shape.experts_per_token / shape.experts) ** tokens)
    return size.active + expert * (experts_read - shape.experts_per_token)


def _check(shape: Shape, size: Size) -> None:
    if not 0 < size.active <= size.counted:
        raise BadInput(f"active parameters ({size.active}) must be positive and at most those counted ({size.counted})")
    if shape.weight_bits <= 0:
        raise BadInput(f"weights of {shape.weight_bits} bits")
    if shape.experts and not 0 < shape.experts_per_token <= shape.experts:
        raise BadInput(f"{shape.experts_per_token} experts per token of {shape.experts}")
    if not shape.experts and size.active != size.counted:
        raise BadInput(f"a model without experts has all its parameters active, but {size.active} of {size.counted} are given")
