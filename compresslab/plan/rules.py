"""Which step may follow which, and which settings a model cannot take: refused with the reason, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from compresslab.plan.facts import Facts, facts_of, packed_by, vocabulary_digest
from compresslab.recipe.amounts import USUAL_GROUPS, WORD, Misfit, layers_left, widths_left
from compresslab.recipe.source import Source, parse_source
from compresslab.recipe.steps import (
    PARENT,
    Adopt,
    Distill,
    PruneDepth,
    PruneSparse,
    PruneWidth,
    QuantizeAWQ,
    QuantizeGPTQ,
    QuantizeRTN,
    QuantizeTorchAO,
    Step,
    StepConfig,
)
from compresslab.registry import method


class Chain(NamedTuple):
    """What is known of a variant.

    Attributes:
        origin: where its weights and its tokenizer come from. packed: what packed its weights, or nothing.
        facts: its dimensions. What is `None` is not known and refuses nothing.
        pruned: a prune step is among its own.
    """

    origin: Source | None
    packed: str = ""
    facts: Facts | None = None
    pruned: bool = False


class Objection(NamedTuple):
    """Why a step is refused; `field` is the setting to blame, or empty if it is the step itself."""

    field: str
    reason: str


def start(model: str) -> Chain:
    """The chain that begins with an existing model.

    Raises:
        BadInput: there is no such model.
    """
    source = parse_source(model)
    return Chain(source, packed_by(source), facts_of(source))


def objections(chain: Chain, step: Step, others: Mapping[str, Chain]) -> list[Objection]:
    """Everything that forbids `step` after `chain`; empty if it is legal.

    Args:
        others: the other variants by name, for the teacher.
    """
    config = step.config
    if isinstance(config, Adopt):
        return []
    found = [Objection("", _after_packing(step.kind, chain.packed))] if chain.packed else []
    if isinstance(config, Distill) and config.teacher in others:
        found += _teacher_objections(chain, others[config.teacher], config.teacher)
    if getattr(config, "until", None) == PARENT and not chain.pruned:
        reason = f"no prune step comes before, so there is no '{PARENT}' whose loss could be reached; name 'base' or a variant"
        found.append(Objection("until", reason))
    if chain.facts is not None:
        found += _dimension_objections(chain.facts, config)
    return found


def after(chain: Chain, step: Step) -> Chain:
    """The chain with a legal step more.

    Raises:
        BadInput: the step adopts a model that does not exist.
    """
    config, facts = step.config, chain.facts
    if isinstance(config, Adopt):
        return start(config.model)
    if facts is not None:
        try:
            facts = pruned(facts, config)
        except Misfit:
            facts = None  # nobody knows what was meant to be left
    packed = config.method if method(step.kind, config.method).packs else chain.packed
    return chain._replace(facts=facts, packed=packed, pruned=chain.pruned or step.kind == "prune")


def pruned(facts: Facts, config: StepConfig) -> Facts:
    """The dimensions that a step leaves. Raises Misfit if it leaves nothing that works."""
    if isinstance(config, PruneDepth):
        return facts.without_layers(kept(config, facts))
    if isinstance(config, PruneWidth):
        heads = facts.queries if facts.divides else 0
        return facts.narrower(widths_left(config, facts.widths, heads, lambda widths: facts.narrower(widths).parameters))
    return facts


def kept(config: PruneDepth, facts: Facts) -> int:
    """How many layers a pruning step leaves. Raises Misfit if none, or all."""
    return layers_left(config, facts.layers, lambda layers: facts.without_layers(layers).parameters)


def _after_packing(kind: str, packed: str) -> str:
    if kind in ("distill", "retrain"):
        return f"training after {packed} is not possible: packed weights take no gradient; put the quantization last"
    if kind == "prune":
        return f"pruning after {packed} is not possible: packed weights cannot be cut; prune first, then quantize"
    return f"the weights are packed by {packed} already; quantize once, from the plain weights"


def _teacher_objections(chain: Chain, teacher: Chain, name: str) -> list[Objection]:
    if teacher.origin is None or chain.origin is None or teacher.origin == chain.origin:
        return []
    ours, theirs = vocabulary_digest(chain.origin), vocabulary_digest(teacher.origin)
    if ours is None or theirs is None or ours == theirs:
        return []  # not known before loading: the step itself compares the vocabularies
    reason = f"the teacher '{name}' comes from {teacher.origin.name}, which has another tokenizer than {chain.origin.name}"
    return [Objection("teacher", f"{reason}, so its logits mean other tokens; choose a teacher of the same tokenizer")]


def _dimension_objections(facts: Facts, config: StepConfig) -> list[Objection]:
    try:
        pruned(facts, config)
    except Misfit as misfit:
        return [Objection(*found) for found in misfit.found]
    widths = {"hidden size": facts.hidden, "attention width": facts.attention, "MLP width": facts.intermediate}
    if isinstance(config, QuantizeRTN | QuantizeGPTQ | QuantizeAWQ) or getattr(config, "method", "") == "torchao-int4":
        assert isinstance(config, QuantizeRTN | QuantizeGPTQ | QuantizeAWQ | QuantizeTorchAO)
        bad = [f"the {name} {width}" for name, width in widths.items() if width % config.group_size]
        if bad:
            fitting = [size for size in USUAL_GROUPS if all(width % size == 0 for width in widths.values())]
            usual = f"these do: {', '.join(map(str, fitting))}" if fitting else "none of the usual sizes does; prune to a rounder width"
            return [Objection("group_size", f"{config.group_size} does not divide {' and '.join(bad)}; {usual}")]
    if isinstance(config, QuantizeGPTQ | QuantizeAWQ):
        sizes = widths | {"width of keys and values": facts.groups * facts.head}
        if odd := [f"the {name} {size}" for name, size in sizes.items() if size % WORD]:
            return [Objection("", f"the checkpoint format needs multiples of {WORD}, and {' and '.join(odd)} is none; take rtn")]
    if isinstance(config, PruneSparse) and config.of is not None:
        bad = [f"the {name} {width}" for name, width in widths.items() if width % config.of[1]]
        if bad:
            return [Objection("pattern", f"{config.pattern} does not divide {' and '.join(bad)}; take a pattern that does, or a sparsity")]
    return []
