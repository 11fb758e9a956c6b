"""What a node will cost: peak memory, disk and time, before it runs. Rough by nature, and said to be so."""

from __future__ import annotations

from typing import NamedTuple

from compresslab.plan import rules
from compresslab.plan.graph import Node, Plan
from compresslab.recipe.schema import Recipe
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

# Operations per second that a transformer's forward pass reaches on two AMX cores with bfloat16 (SmolLM2-135M: 2,000
# tokens a second); what a machine really reaches replaces it once it has been measured.
ASSUMED_RATE = 0.5e12
# Share of the measured matrix-product peak that a whole forward pass reaches.
SHARE_OF_PEAK = 0.4
WORKER_BYTES = 1.2e9
WORKER_SECONDS = 3.0
# Tokens that one OLMES item costs once the few-shot prefix is shared: the question and its options.
TOKENS_AN_ITEM = 120
ITEMS_IF_ALL = 1500
# What a column-by-column solver takes for each weight (SmolLM2: 106M weights in some 15 s).
SOLVER_SECONDS = 1.5e-7
BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


class Estimate(NamedTuple):
    """Peak memory and disk in bytes, time in seconds; `None` where the model's size is not known yet."""

    memory: float | None
    disk: float | None
    seconds: float | None


def estimate(node: Node, plan: Plan, peak_flops: float | None = None) -> Estimate:
    """Estimate one node.

    Args:
        peak_flops: this machine's measured matrix-product peak, if it has been measured.
    """
    if node.kind == "machine":
        return Estimate(WORKER_BYTES, 1e4, 8.0)
    if node.facts is None:
        return Estimate(None, None, None)
    recipe = plan.recipe
    rate = peak_flops * SHARE_OF_PEAK if peak_flops else ASSUMED_RATE
    parameters = node.facts.parameters
    weights = parameters * BYTES[recipe.base.dtype]
    forward = 2 * parameters / rate
    if node.kind == "evaluate":
        items = ITEMS_IF_ALL if recipe.evaluate.items == "all" else recipe.evaluate.items
        tokens = items * TOKENS_AN_ITEM * len(node.tasks)
        return Estimate(WORKER_BYTES + 1.5 * weights, 1e5 * len(node.tasks), WORKER_SECONDS + tokens * forward)
    workload = recipe.density.workload
    if node.kind == "measure":
        # Decoding one token reads all weights; on a processor that is some ten times slower than its share of compute.
        tokens = workload.batch * (workload.prompt + 10 * workload.decode)
        return Estimate(WORKER_BYTES + 2 * weights, 1e4, WORKER_SECONDS + 6 * tokens * forward)
    if node.kind == "shared":
        return _gathering(node, recipe, weights, forward)
    disk = _stored(node, weights)
    seconds, memory = _step(node, weights, forward)
    return Estimate(WORKER_BYTES + memory, disk, WORKER_SECONDS + seconds)


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
    if isinstance(config, Distill):
        # Forward and backward of the student are 3 forwards, the teacher's is one more unless its logits are stored. Master, gradient,
        # two moments and the copy that is computed with are 18 bytes a weight.
        taught = 3 if config.top_k is not None else 4
        return config.tokens * taught * forward, 18 * facts.parameters + (0 if config.top_k is not None else weights)
    if isinstance(config, RetrainFull):
        return config.tokens * 3 * forward, 18 * facts.parameters
    if isinstance(config, RetrainLoRA):
        return config.tokens * 3 * forward, 5 * facts.parameters + weights
    if isinstance(config, QuantizeGPTQ | QuantizeAWQ) or (isinstance(config, PruneSparse) and config.method == "sparsegpt"):
        return facts.parameters * SOLVER_SECONDS, 1.5 * weights
    return 2.0, 1.5 * weights if node.step and node.step[0] == "prune" else 3 * weights


def _gathering(node: Node, recipe: Recipe, weights: float, forward: float) -> Estimate:
    """A shared node: one pass over its text, and what it writes."""
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
    memory = WORKER_BYTES + 1.5 * weights + 3 * tokens * facts.hidden * BYTES[recipe.base.dtype]
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
