"""Rough estimates of a node's peak memory, disk space and time before it runs."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from compresslab.errors import BadInput
from compresslab.methods.layerwise import LEAN_WORKER_BYTES, Layers
from compresslab.methods.method import Cost, Footprint
from compresslab.methods.registry import method_of
from compresslab.plan.gathering import gathering_devices, removal_passes, stored_logits_size
from compresslab.plan.graph import Node, Plan
from compresslab.recipe.model_folder import files_of
from compresslab.recipe.schema import Base, Recipe
from compresslab.recipe.source import parse_source
from compresslab.recipe.stored_weights import plainly_stored

# Operations and bytes per second of a machine that was not probed: two processor cores without units for 16 bits.
ASSUMED_RATE, ASSUMED_BANDWIDTH = 1e11, 1e10
# Two points (rate, share): passes over many tokens reach this share of the rate of large matrix products. Norms, attention and
# activations take the rest of the time; their part grows with the rate. Measured: 67 to 72% in float32 at 1.8e11 operations a second,
# 26 to 47% in bfloat16 at 1e12 (docs/measurements.md).
SLOW, FAST = (1e11, 0.75), (1e12, 0.3)
WORKER_BYTES = 1.2e9
# A worker with lm-eval, its prompts and their logits.
EVALUATING_BYTES = 0.7e9
# A worker with a chunk of the logits of two models and their log-probabilities (models.chunks). Measured: 1.05e9 on a processor, where
# log-probabilities are computed in small blocks.
COMPARING_BYTES = 1.5e9
# A worker whose libraries have started an accelerator, and weights that are read from the disk for it. Guesses.
ACCELERATED_WORKER_BYTES, ON_ITS_WAY_BYTES = 3e9, 1e9
# Starting a worker, loading a model of a gigabyte and storing the result; loading a model node's folder again in a fresh process.
WORKER_SECONDS, RELOAD_SECONDS = 2.5, 2.0
# Unpacking a GGUF file, per parameter.
GGUF_SECONDS = 1.2e-7
# Tokens of one OLMES item when the few-shot prefix is shared: the question and its options.
TOKENS_AN_ITEM = 30
ITEMS_IF_ALL = 1500
# Kernel launches of one decoding step, per layer, in addition to reading all weights. A guess.
LAYER_SECONDS = 2e-4
# Timed requests of a variant and its parent together, and decoded tokens of each, as in evaluation.timing.
REQUESTS, DECODED = 8, 8
# Loading a base without unpacking it, and copies of its weights in memory.
LOADING_SECONDS, LOADING_COPIES = 2.0, 3
# The share of a device's memory that `devices: auto` takes to be free for a step.
USABLE = 0.9
BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


class Estimate(NamedTuple):
    """Peak memory and disk in bytes, time in seconds; `None` if the model's size is not known yet.

    The memory of a node of several devices is that of each; on a processor, that of all of its processes together.

    Attributes:
        memory: of the machine. device_memory: of the accelerator that the node computes on; 0 on a processor.
    """

    memory: float | None
    disk: float | None
    seconds: float | None
    device_memory: float | None = 0.0


class Speed(NamedTuple):
    """Operations per second of whole forward passes, and bytes per second of reading weights."""

    passes: float
    bandwidth: float


def speed_of(peak: float, bandwidth: float) -> Speed:
    """The speed from the rate of large matrix products in the compute dtype, of which whole passes reach a share (see `SLOW`)."""
    (low, high), (slow_share, fast_share) = (SLOW[0], FAST[0]), (SLOW[1], FAST[1])
    position = min(1.0, max(0.0, math.log(peak / low) / math.log(high / low)))
    return Speed(peak * slow_share * (fast_share / slow_share) ** position, bandwidth)


def speed_here(plan: Plan) -> Speed:
    """This machine's speed, from the plan's probe."""
    if plan.probe is None:
        return speed_of(ASSUMED_RATE, ASSUMED_BANDWIDTH)
    return speed_of(plan.probe.rates.get(plan.compute.dtype, ASSUMED_RATE), plan.probe.bandwidth)


def estimate(node: Node, plan: Plan, speed: Speed | None = None) -> Estimate:
    """Estimate one node from the size of its model and the speed of this machine.

    On an accelerator, its memory has what a node holds beside its libraries; the machine's has the libraries and what is on its way.

    Args:
        speed: the speed of other hardware, which computes in the dtype of the stored weights.
    """
    found = _estimate(node, plan, speed)
    if plan.compute.backend == "cpu" or found.memory is None:
        return found
    held = max(0.0, found.memory - LEAN_WORKER_BYTES)
    return found._replace(memory=node.devices * (ACCELERATED_WORKER_BYTES + min(held, ON_ITS_WAY_BYTES)), device_memory=held)


def _estimate(node: Node, plan: Plan, speed: Speed | None) -> Estimate:
    if node.kind == "machine":
        return Estimate(WORKER_BYTES, 1e4, 6.0)
    if node.dimensions is None:
        return Estimate(None, None, None)
    recipe = plan.recipe
    dtype = plan.compute.dtype if speed is None else recipe.base.dtype
    speed = speed or speed_here(plan)
    parameters = node.dimensions.parameters
    stored = parameters * BYTES[recipe.base.dtype]
    weights = parameters * BYTES[dtype]  # in memory, in the compute dtype
    forward = 2 * parameters / speed.passes
    model = Footprint(node.dimensions, weights, forward)
    if node.kind == "evaluate":
        items = ITEMS_IF_ALL if recipe.evaluate.items == "all" else recipe.evaluate.items
        tokens = items * TOKENS_AN_ITEM * len(node.tasks)
        # The files' pages are in memory beside weights that are cast.
        memory = EVALUATING_BYTES + weights + (stored if weights != stored else 0)
        if plan.compute.backend == "cpu":  # they divide its memory and its threads
            return Estimate(node.devices * memory, 1e5 * len(node.tasks), WORKER_SECONDS + tokens * forward)
        return Estimate(memory, 1e5 * len(node.tasks), WORKER_SECONDS + tokens * forward / node.devices)
    if node.kind == "measure":
        workload = recipe.density.workload
        step = weights / speed.bandwidth + node.dimensions.layers * LAYER_SECONDS
        request = workload.batch * workload.prompt * forward + DECODED * step
        models = len(node.needs)
        return Estimate(WORKER_BYTES + models * weights, 1e4, models * (WORKER_SECONDS + REQUESTS / 2 * request))
    if node.kind == "fidelity":
        compared, other = recipe.evaluate.fidelity, plan.node(node.needs[1]).dimensions
        assert compared is not None
        both = parameters + (other or node.dimensions).parameters
        seconds = WORKER_SECONDS + compared.tokens * 2 * both / speed.passes
        return Estimate(COMPARING_BYTES + both * BYTES[dtype], 1e4, seconds)
    if node.kind == "gather":
        gathering = _gathering(node, recipe, model)
        assert gathering.memory is not None
        assert gathering.seconds is not None
        if plan.compute.backend == "cpu":  # they divide its threads
            return gathering._replace(memory=node.devices * gathering.memory)
        return gathering._replace(seconds=WORKER_SECONDS + (gathering.seconds - WORKER_SECONDS) / node.devices)
    disk = _stored(node, stored)
    seconds, memory = _step(node, model)
    if (peak := _peak_by_layers(node, recipe, _layers(recipe, model))) is not None:
        # A base that is held so is referred to and not copied.
        return Estimate(peak, disk if node.step else 1e5, WORKER_SECONDS + RELOAD_SECONDS + seconds)
    if node.step is None and parse_source(recipe.base.model).kind in ("offline", "gguf"):
        seconds += parameters * GGUF_SECONDS
    if node.devices > 1:
        # Each has its part of the weights, and all of the embeddings and the head while it computes.
        memory = memory / node.devices + weights * node.dimensions.embedding_parameters / parameters
        if plan.compute.backend == "cpu":
            return Estimate(node.devices * (WORKER_BYTES + memory), disk, WORKER_SECONDS + RELOAD_SECONDS + seconds)
        seconds /= node.devices
    return Estimate(WORKER_BYTES + memory, disk, WORKER_SECONDS + RELOAD_SECONDS + seconds)


def _layers(recipe: Recipe, model: Footprint) -> Layers:
    return Layers(model.dimensions, BYTES[recipe.base.dtype], model.weights / model.dimensions.parameters)


def _peak_by_layers(node: Node, recipe: Recipe, layers: Layers) -> float | None:
    """Peak memory of a model node that holds one layer; `None` for one that loads its model whole."""
    if not layers.possible:
        return None
    if node.step is None:
        return layers.loading if _refers(recipe.base) else None
    entry = method_of(*node.step)
    return layers.step(grams=entry.statistics == "grams", cuts=entry.cuts) if entry.layerwise else None


def _refers(base: Base) -> bool:
    """Whether the store refers to the base's folder, by what its files say without the model."""
    source = parse_source(base.model)
    if source.kind != "folder" or base.store_copy or base.trust_remote_code:
        return False
    with contextlib.suppress(BadInput):
        return plainly_stored(Path(source.name), files_of(Path(source.name)), base.dtype)
    return False


def devices_for(node: Node, plan: Plan) -> int:
    """How many devices make a node together, as the recipe says. `auto` is as few as hold it, all of the machine's if they do not."""
    if node.kind == "evaluate":
        return plan.recipe.evaluate.devices
    if node.kind == "gather":
        return gathering_devices(node.readers, plan.recipe.text.calibration)
    if node.step is None or (wanted := getattr(node.step[1], "devices", 1)) == 1:
        return 1
    if wanted != "auto":
        return int(wanted)
    if plan.probe is None or plan.probe.count < 2 or not plan.probe.memory or method_of(*node.step).undivided(node.step[1]):
        return 1
    for devices in range(1, plan.probe.count + 1):
        needed = estimate(replace(node, devices=devices), plan).device_memory
        if needed is None or needed <= USABLE * plan.probe.memory:
            return devices
    return plan.probe.count


def devices_taken(node: Node, plan: Plan) -> int:
    """How many devices a node needs to itself: those that make it together, and all of them for vLLM, which divides a model among them."""
    if node.kind == "evaluate" and plan.recipe.evaluate.backend == "vllm" and plan.probe is not None:
        return max(1, plan.probe.count)
    return node.devices


def _stored(node: Node, weights: float) -> float:
    """Bytes of the variant's folder, with packed linear layers if the step packs them."""
    dimensions = node.dimensions
    assert dimensions is not None
    bits = method_of(*node.step).stored_bits(node.step[1]) if node.step else None
    if bits is None:
        return weights
    plain = weights * dimensions.embedding_parameters / dimensions.parameters
    return plain + (dimensions.parameters - dimensions.embedding_parameters) * bits / 8


def _step(node: Node, model: Footprint) -> Cost:
    """Seconds and bytes of memory of a model node, without those of its worker."""
    if node.step is None:
        return Cost(LOADING_SECONDS, LOADING_COPIES * model.weights)
    return method_of(*node.step).cost(node.step[1], model)


def _gathering(node: Node, recipe: Recipe, model: Footprint) -> Estimate:
    """The estimate of a gather node: one pass over its text, and the file that it writes."""
    dimensions, weights = model.dimensions, model.weights
    memory = WORKER_BYTES + 1.5 * weights
    layers = _layers(recipe, model)
    if node.gathers == "logits":
        stored = stored_logits_size(node.readers, recipe.text.training.tokens, dimensions.vocabulary)
        return Estimate(memory, stored.bytes, WORKER_SECONDS + stored.tokens * model.forward)
    tokens = recipe.text.calibration.samples * recipe.text.calibration.length
    # Widths of the inputs of q and k, of v, of gate and up, of o, of down.
    widths = (dimensions.hidden, dimensions.hidden, dimensions.hidden, dimensions.attention, dimensions.intermediate)
    if node.gathers in ("activations", "grams") and layers.possible:
        memory = layers.gathering(tokens, grams=node.gathers == "grams")
    else:
        memory += 3 * tokens * dimensions.hidden * weights / dimensions.parameters
    seconds = WORKER_SECONDS + tokens * model.forward
    if node.gathers == "removals":
        return Estimate(memory, 1e4, seconds * removal_passes(node.readers, dimensions))
    if node.gathers == "grams":
        # A product of two matrices of (tokens, width) takes 2 * tokens * width^2 operations.
        products = dimensions.layers * sum(width**2 for width in widths)
        return Estimate(memory, 4 * products, seconds + tokens * model.forward * products / dimensions.parameters)
    return Estimate(memory, 12 * dimensions.layers * sum(widths), seconds)
