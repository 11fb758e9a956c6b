"""Inference time from first principles, and N_time: the dense bf16 parameter count that takes as long.

The formula is this project's own. The journal version of the Densing Law (Nature Machine Intelligence 7, 1823-1833)
defines an inference-time density with constants for memory and compute, but its formula could not be established;
nothing here claims to be it.

A request has two phases, prefill (`prompt` tokens of each sequence at once) and decode (one pass for each of `decode`
tokens). Each phase takes the larger of two times, as on a roofline, because kernels load and multiply at the same time,
and a fixed overhead:

- memory: the weights read in each pass at their stored precision, of a mixture of experts only the experts that the
  tokens of that pass touch in expectation (uniform, independent routing), plus keys and values read and written at
  16 bits, over the bandwidth times `bandwidth_efficiency`;
- compute: 2 x active parameters per token plus 4 x attention width per layer for each earlier position attended to,
  over the peak times `compute_efficiency`. Weight-only quantization leaves this at the 16-bit peak; weights that are
  multiplied at 8 bits have the 8-bit one, but attention between tokens stays at 16 bits in every format here;
- overhead: `layer_overhead` seconds for each decoder layer of each pass: launches, norms, everything whose time does not
  shrink with the weights. At batch 1 it decides what a small model gains from quantization.

The three factors belong to an engine on a machine and are fitted by `density.time.engine_factors` on measured bf16 rows only. What
is not in it: the cost of unpacking quantized weights, which no bf16 row can show; experts stored at other bits than the
rest of a mixture; several GPUs.
"""

from __future__ import annotations

from compresslab.catalog.hardware import Hardware
from compresslab.errors import BadInput
from compresslab.recipe.schema import Workload
from compresslab.records import Shape, Size

CACHE_BYTES = 2
"""Bytes of one stored key or value feature."""

GROWTH = 2 / 3
"""Keys, values and attention work of a dense family grow as N^(2/3): with depth and width both as N^(1/3), the cache
of a token goes as their product and the weights as depth times width squared."""

DEEPENING = 1 / 3
"""The layers of that family, and with them the overhead of a pass, grow as N^(1/3)."""


def seconds(shape: Shape, size: Size, hardware: Hardware, workload: Workload) -> float:
    """Modelled seconds of one request batch: prefill and decode. Raises BadInput if size and shape contradict each other."""
    _check(shape, size)
    prefill = workload.batch * workload.prompt
    peak = hardware.flops
    if not shape.weight_only and shape.weight_bits < 16 and hardware.flops_8bit is not None:
        peak = hardware.flops_8bit
    return _total(
        weights_prefill=_touched(shape, size, prefill) * shape.weight_bits / 8,
        weights_decode=_touched(shape, size, workload.batch) * shape.weight_bits / 8,
        active=float(size.active),
        peak=peak,
        scale=1.0,
        shape=shape,
        hardware=hardware,
        workload=workload,
    )


def n_time(shape: Shape, size: Size, hardware: Hardware, workload: Workload, like: tuple[Shape, Size] | None = None) -> float:
    """N_time: parameters of the dense bf16 model that takes as long on this hardware and workload.

    That model is of one family, scaled to the size that takes as long: its cache and attention work are those of `like`
    times (n / active)^(2/3) (see `GROWTH`), its layers times (n / active)^(1/3) (see `DEEPENING`). So a dense bf16 `like`
    has N_time equal to its own N, a model whose time goes into its cache or into the overhead of its layers gains
    little from smaller weights, and of two children of one size the one with fewer layers has the smaller N_time.

    Args:
        like: shape and size of the family; in a study the root's, so that one rod measures all. Default: the model itself.
    """
    family, of = like or (shape, size)
    target = seconds(shape, size, hardware, workload)

    def time_at(n: float) -> float:
        return _total(
            weights_prefill=2 * n,
            weights_decode=2 * n,
            active=n,
            peak=hardware.flops,
            scale=n / of.active,
            shape=family,
            hardware=hardware,
            workload=workload,
        )

    # The time grows strictly with n, so halving finds it; 1/1024 to 2^20 times the active size covers one-bit weights
    # and any mixture of experts. 60 halvings end at rounding, and scipy's root finder would cost 0.5 s to import.
    low, high = -10.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if time_at(of.active * 2**middle) < target else (low, middle)
    return float(of.active * 2**high)


def _total(
    *,
    weights_prefill: float,
    weights_decode: float,
    active: float,
    peak: float,
    scale: float,
    shape: Shape,
    hardware: Hardware,
    workload: Workload,
) -> float:
    """Seconds from the bytes of weights that one pass reads and the active parameters of one token.

    Args:
        peak: operations per second of the products with weights; attention always has the bf16 peak.
        scale: how many times the given shape's parameters the model has.
    """
    batch, prompt, decode = workload.batch, workload.prompt, workload.decode
    cache: float = scale**GROWTH * shape.layers * shape.key_value_width * 2 * CACHE_BYTES
    attention: float = scale**GROWTH * shape.layers * shape.attention_width * 4
    prefill_pairs = batch * prompt * (prompt + 1) / 2
    decode_pairs = batch * (decode * prompt + decode * (decode + 1) / 2)
    prefill_bytes = weights_prefill + batch * prompt * cache
    decode_bytes = decode * weights_decode + (decode_pairs + batch * decode) * cache
    prefill_work = 2 * active * batch * prompt / peak + prefill_pairs * attention / hardware.flops
    decode_work = 2 * active * batch * decode / peak + decode_pairs * attention / hardware.flops
    bandwidth = hardware.bandwidth * hardware.bandwidth_efficiency
    prefill = max(prefill_bytes / bandwidth, prefill_work / hardware.compute_efficiency)
    steps = max(decode_bytes / bandwidth, decode_work / hardware.compute_efficiency)
    layers: float = scale**DEEPENING * shape.layers
    return prefill + steps + (1 + decode) * layers * hardware.layer_overhead


def _touched(shape: Shape, size: Size, tokens: int) -> float:
    """Parameters that a pass over `tokens` tokens reads: of E experts with k a token, E (1 - (1 - k/E)^tokens)."""
    if shape.experts <= shape.experts_per_token:
        return float(size.counted)
    expert = (size.counted - size.active) / (shape.experts - shape.experts_per_token)
    met = shape.experts * (1 - (1 - shape.experts_per_token / shape.experts) ** tokens)
    return size.active + expert * (met - shape.experts_per_token)


def _check(shape: Shape, size: Size) -> None:
    if not 0 < size.active <= size.counted:
        raise BadInput(f"active parameters ({size.active}) must be positive and at most those counted ({size.counted})")
    if shape.weight_bits <= 0:
        raise BadInput(f"weights of {shape.weight_bits} bits")
    if shape.experts and not 0 < shape.experts_per_token <= shape.experts:
        raise BadInput(f"{shape.experts_per_token} experts per token of {shape.experts}")
    if not shape.experts and size.active != size.counted:
        raise BadInput(f"a model without experts has all its parameters active, but {size.active} of {size.counted} are given")
