"""Which step may follow which, and which settings a model cannot take: refused with the reason, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from compresslab.plan.facts import Facts, facts_of, tokenizer_digest
from compresslab.recipe.schema import Adopt, Distill, PruneDepth, PruneWidth, QuantizeRTN, Step, StepConfig
from compresslab.recipe.source import Source, parse_source
from compresslab.registry import method

USUAL_GROUPS = (16, 32, 64, 128, 256)


class Link(NamedTuple):
    """One step of a chain."""

    kind: str
    config: StepConfig


class Chain(NamedTuple):
    """What a variant is made of: where its weights and its tokenizer come from, the steps since, and its dimensions."""

    origin: Source
    links: tuple[Link, ...]
    facts: Facts | None


def problems_of(chain: Chain, step: Step, others: Mapping[str, Chain]) -> list[str]:
    """Everything that forbids `step` after `chain`; empty if it is legal.

    Args:
        others: the chains planned so far, for the teacher.
    """
    config = step.config
    problems = []
    packed = next((link for link in chain.links if _packs(link)), None)
    if packed is not None and not isinstance(config, Adopt):
        name = getattr(packed.config, "method", "")
        problems.append(_after_packing(step.kind, name))
    if isinstance(config, Distill):
        problems += _teacher_problems(chain, others.get(config.teacher), config.teacher)
    if chain.facts is not None:
        problems += _dimension_problems(chain.facts, config)
    return problems


def after(chain: Chain, link: Link) -> Facts | None:
    """Dimensions of the model after a legal step."""
    config, facts = link.config, chain.facts
    if isinstance(config, Adopt):
        return facts_of(parse_source(config.model))
    if facts is None:
        return None
    if isinstance(config, PruneDepth):
        return facts.without_layers(kept(config, facts))
    if isinstance(config, PruneWidth):
        return facts.narrower(kept(config, facts))
    return facts


def kept(config: PruneDepth | PruneWidth, facts: Facts) -> int:
    """How many layers, or neurons, a pruning step leaves."""
    if isinstance(config.keep, int):
        return config.keep
    if isinstance(config, PruneDepth):
        return round(config.keep * facts.layers)
    return round(config.keep * facts.intermediate / config.multiple) * config.multiple


def _packs(link: Link) -> bool:
    return not isinstance(link.config, Adopt) and method(link.kind, link.config.method).packs


def _after_packing(kind: str, packed: str) -> str:
    if kind in ("distill", "retrain"):
        return f"training after {packed} is not possible: packed weights take no gradient. Put the quantization last"
    if kind == "prune":
        return f"pruning after {packed} is not possible: packed weights cannot be cut. Prune first, then quantize"
    return f"the weights are packed by {packed} already; quantize once, from the plain weights"


def _teacher_problems(chain: Chain, teacher: Chain | None, name: str) -> list[str]:
    if teacher is None or teacher.origin == chain.origin:
        return []
    ours, theirs = tokenizer_digest(chain.origin), tokenizer_digest(teacher.origin)
    if ours is None or theirs is None or ours == theirs:
        return []  # not known before loading: the step itself compares the vocabularies
    return [
        f"the teacher {name} comes from {teacher.origin.name}, which has another tokenizer than {chain.origin.name}: "
        "its logits mean other tokens"
    ]


def _dimension_problems(facts: Facts, config: StepConfig) -> list[str]:
    if isinstance(config, PruneDepth):
        return _kept_problem("layers", kept(config, facts), facts.layers, config.keep)
    if isinstance(config, PruneWidth):
        return _kept_problem("neurons", kept(config, facts), facts.intermediate, config.keep)
    if isinstance(config, QuantizeRTN):
        widths = {"hidden size": facts.hidden, "MLP width": facts.intermediate}
        bad = [f"the {name} {width}" for name, width in widths.items() if width % config.group_size]
        if bad:
            fitting = [size for size in USUAL_GROUPS if all(width % size == 0 for width in widths.values())]
            usual = ", ".join(map(str, fitting)) or "none of the usual ones"
            return [f"group_size {config.group_size} does not divide {' and '.join(bad)}; these do: {usual}"]
    return []


def _kept_problem(what: str, count: int, of: int, keep: float) -> list[str]:
    if 0 < count < of:
        return []
    return [f"keep {keep} leaves {count} of {of} {what}; it must leave at least 1 and drop at least 1"]
