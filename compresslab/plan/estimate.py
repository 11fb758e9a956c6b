"""What a node will cost: peak memory, disk and time, before it runs. Rough by nature, and said to be so."""

from __future__ import annotations

import math
from typing import NamedTuple

from compresslab.plan import rules
from compresslab.plan.graph import Node, Plan
from compresslab.recipe.schema import Recipe
from compresslab.recipe.source import parse_source
from compresslab.recipe.steps import (
    Distill,
    PruneDepth,
    PruneSparse,
    Quantize4Bit,
    QuantizeAWQ,
    QuantizeGPTQ,
    QuantizeInt8,
    QuantizeRTN,
    QuantizeTorchAO,
    RetrainFull,
    RetrainLoRA,
)

# Operations and bytes per second where nobody probed the machine: two processor cores without units for 16 bits.
ASSUMED_RATE, ASSUMED_BANDWIDTH = 1e11, 1e10
# Shares of the rate of large matrix products that passes over many tokens reach: norms, attention and activations take the rest, and the
# more of it the faster the products are: 67 to 72% in float32 at 1.8e11 operations a second, 26 to 47% in bfloat16 at 1e12
# (docs/measurements.md).
SLOW, FAST = (1e11, 0.75), (1e12, 0.3)
WORKER_BYTES = 1.2e9
# Starting a worker, loading a model of a gigabyte and storing what was made; a model node's folder is loaded again in a fresh process.
WORKER_SECONDS, RELOAD_SECONDS = 2.5, 2.0
# Unpacking a GGUF file, for each parameter.
GGUF_SECONDS = 1.2e-7
# Tokens that one OLMES item costs once the few-shot prefix is shared: the question and its options.
TOKENS_AN_ITEM = 30
ITEMS_IF_ALL = 1500
# One decoding step, beside reading all weights: launches, for each layer. A guess.
LAYER_SECONDS = 2e-4
# Requests that are timed of a variant and its parent together, and tokens that are really decoded in each: as evaluation.timing does it.
REQUESTS, DECODED = 8, 8
# What a column-by-column solver takes for each weight (SmolLM2: 106M weights in some 15 s).
SOLVER_SECONDS = 1.5e-7
BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


class Estimate(NamedTuple):
    """Peak memory and disk in bytes, time in seconds; `None` where the model's size is not known yet."""

    memory: float | None
    disk: float | None
    seconds: float | None


class Speed(NamedTuple):
    """What times rest on: operations per second of whole forward passes, and bytes per second of reading weights."""

    passes: float
    bandwidth: float


def speed_of(peak: float, bandwidth: float) -> Speed:
    """From the rate of large matrix products in the compute dtype: the share that whole passes reach falls with it (see `SLOW`)."""
    (low, high), (share, least) = (SLOW[0], FAST[0]), (SLOW[1], FAST[1])
    position = min(1.0, max(0.0, math.log(peak / low) / math.log(high / low)))
    return Speed(peak * share * (least / share) ** position, bandwidth)


def speed_here(plan: Plan) -> Speed:
    """This machine's speed by the plan's probe."""
    if plan.probe is None:
        return speed_of(ASSUMED_RATE, ASSUMED_BANDWIDTH)
    return speed_of(plan.probe.rates.get(plan.compute.dtype, ASSUMED_RATE), plan.probe.bandwidth)


def estimate(node: Node, plan: Plan, speed: Speed | None = None) -> Estimate:
    """Estimate one node from the size of its model and what the probe found of this machine.

    Args:
        speed: of other hardware, to estimate for that: weights are computed with as they are stored there.
    """
    if node.kind == "machine":
        return Estimate(WORKER_BYTES, 1e4, 6.0)
    if node.facts is None:
        return Estimate(None, None, None)
    recipe = plan.recipe
    dtype = plan.compute.dtype if speed is None else recipe.base.dtype
    speed = speed or speed_here(plan)
    parameters = node.facts.parameters
    stored = parameters * BYTES[recipe.base.dtype]
    weights = parameters * BYTES[dtype]  # in memory, while it computes
    forward = 2 * parameters / speed.passes
    if node.kind == "evaluate":
        items = ITEMS_IF_ALL if recipe.evaluate.items == "all" else recipe.evaluate.items
        tokens = items * TOKENS_AN_ITEM * len(node.tasks)
        return Estimate(WORKER_BYTES + 1.5 * weights, 1e5 * len(node.tasks), WORKER_SECONDS + tokens * forward)
    if node.kind == "measure":
        workload = recipe.density.workload
        step = weights / speed.bandwidth + node.facts.layers * LAYER_SECONDS
        request = workload.batch * workload.prompt * forward + DECODED * step
        models = len(node.needs)
        return Estimate(WORKER_BYTES + models * weights, 1e4, models * (WORKER_SECONDS + REQUESTS / 2 * request))
    if node.kind == "gather":
        return _gathering(node, recipe, weights, forward)
    disk = _stored(node, stored)
    seconds, memory = _step(node, weights, forward)
    if node.step is None and parse_source(recipe.base.model).kind in ("offline", "gguf"):
        seconds += parameters * GGUF_SECONDS
    return Estimate(WORKER_BYTES + memory, disk, WORKER_SECONDS + RELOAD_SECONDS + seconds)


def _stored(node: Node, weights: float) -> float:
    """Bytes of the variant's folder: packed linear layers, the rest as it was."""
    config = node.step[1] if node.step else None
    facts = node.facts
    assert facts is not None
    if isinstance(config, Quantize4Bit):
        bits = 4.5
    elif isinstance(config, QuantizeInt8):
        bits = 8.1
    elif isinstance(config, QuantizeRTN):
        bits = config.bits + 16 / config.group_size
    elif isinstance(config, QuantizeGPTQ | QuantizeAWQ):
        own = config.bits if isinstance(config, QuantizeGPTQ) else 4
        bits = own + (16 + own) / config.group_size  # a scale and a packed zero point each group
    elif isinstance(config, QuantizeTorchAO):
        bits = 8.1 if config.method == "torchao-int8" else 4 + 32 / config.group_size
    else:
        return weights
    plain = weights * facts.embedding_parameters / facts.parameters
    return plain + (facts.parameters - facts.embedding_parameters) * bits / 8


def _step(node: Node, weights: float, forward: float) -> tuple[float, float]:
    """Seconds and bytes of a model node beyond those of its worker."""
    config = node.step[1] if node.step else None
    facts = node.facts
    assert facts is not None
    narrow = weights if weights < 4 * facts.parameters else 0.0
    if isinstance(config, Distill):
        # Forward and backward of the student are 3 forwards, the teacher's is one more unless its logits are stored. Master, gradient,
        # and two moments are 16 bytes a weight, and a copy in 16 bits to compute with 2 more.
        taught = 3 if config.top_k is not None else 4
        return config.tokens * taught * forward, 16 * facts.parameters + narrow + (0 if config.top_k is not None else weights)
    if isinstance(config, RetrainFull):
        return config.tokens * 3 * forward, 16 * facts.parameters + narrow
    if isinstance(config, RetrainLoRA):
        return config.tokens * 3 * forward, 5 * facts.parameters + weights
    if isinstance(config, QuantizeGPTQ | QuantizeAWQ) or (isinstance(config, PruneSparse) and config.method == "sparsegpt"):
        return facts.parameters * SOLVER_SECONDS, 1.5 * weights
    return 2.0, 1.5 * weights if node.step and node.step[0] == "prune" else 3 * weights


def _gathering(node: Node, recipe: Recipe, weights: float, forward: float) -> Estimate:
    """A gather node: one pass over its text, and what it writes."""
    facts = node.facts
    assert facts is not None
    if node.gathers == "logits":
        readers = [config for config in node.readers if isinstance(config, Distill)]
        tokens = min(recipe.text.training.tokens, max(config.tokens for config in readers))
        number = 1 if facts.vocabulary <= 2**8 else 2 if facts.vocabulary <= 2**16 else 4
        stored = (readers[0].top_k or 1) * (number + 2) + 2
        return Estimate(WORKER_BYTES + 1.5 * weights, tokens * stored, WORKER_SECONDS + tokens * forward)
    tokens = recipe.text.calibration.samples * recipe.text.calibration.length
    # Of the inputs of q and k, of v (what attention makes of them), of gate and up, of o, of down.
    widths = (facts.hidden, facts.hidden, facts.hidden, facts.attention, facts.intermediate)
    memory = WORKER_BYTES + 1.5 * weights + 3 * tokens * facts.hidden * weights / facts.parameters
    seconds = WORKER_SECONDS + tokens * forward
    if node.gathers == "removals":
        kept = [rules.kept(config, facts) for config in node.readers if isinstance(config, PruneDepth)]
        passes = sum(facts.layers - done for done in range(facts.layers - min(kept))) / 2  # what is before a layer is run once
        return Estimate(memory, 1e4, seconds * max(1.0, passes))
    if node.gathers == "grams":
        # A product of two matrices of (tokens, width) takes 2 * tokens * width^2 operations.
        products = facts.layers * sum(width**2 for width in widths)
        return Estimate(memory + 8 * max(widths) ** 2, 4 * products, seconds + tokens * forward * products / facts.parameters)
    return Estimate(memory, 12 * facts.layers * sum(widths), seconds)
