"""Refuses illegal orders of steps, and settings that do not fit the model, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from compresslab.errors import BadInput
from compresslab.methods.amounts import Misfit
from compresslab.methods.dimensions import Dimensions
from compresslab.methods.format import Objection
from compresslab.methods.plain_linears import OTHER_PROJECTIONS, not_linear
from compresslab.methods.registry import formats
from compresslab.methods.settings import PARENT
from compresslab.plan.model_files import (
    architecture_of,
    check_cached,
    check_code,
    check_tokenizer_files,
    check_tokens,
    check_weights,
    dimensions_of,
    format_of_source,
    vocabulary_digest,
)
from compresslab.recipe.model_folder import check_model
from compresslab.recipe.source import Source, parse_source
from compresslab.recipe.steps import Step


class Chain(NamedTuple):
    """The known properties of a model after some steps. `None` means not known; it refuses nothing.

    Attributes:
        origin: the source of its weights and its tokenizer. packed: the method or format that packed its weights; empty for plain ones.
        architecture: its `model_type`; empty if it is not known.
        pruned: its steps include a prune step. steps: its steps since the origin, by kind and settings.
    """

    origin: Source | None
    packed: str = ""
    architecture: str = ""
    dimensions: Dimensions | None = None
    pruned: bool = False
    steps: tuple[str, ...] = ()


def start(model: str, own_code: bool = False) -> Chain:
    """The chain of an existing model. `own_code`: whether the code that it brings is run.

    Raises:
        BadInput: there is no such model, it must not be loaded, it brings code that is not trusted, or its weights are packed in a format
            that cannot be unpacked here.
    """
    source = parse_source(model)
    check_model(source, own_code)
    check_cached(source)
    check_code(source, own_code)
    check_weights(source)
    check_tokenizer_files(source)
    check_tokens(source)
    # transformers may unpack a format that compresslab does not know (fp8, mxfp4) while it loads; the worker finds out.
    known = format_of_source(source)
    if known is not None and not known.readable:
        readable = ", ".join(one.name for one in formats() if one.readable)
        raise BadInput(f"weights packed by {known.name} are not unpacked here; take a model of plain weights, or one packed by {readable}")
    return Chain(source, known.name if known else "", architecture_of(source), dimensions_of(source))


def objections(chain: Chain, step: Step, others: Mapping[str, Chain]) -> list[Objection]:
    """All reasons to refuse `step` after `chain`; empty if it is legal.

    Args:
        others: the chains of the other variants by name, for the teacher.
    """
    if step.kind == "adopt":
        return []
    config = step.config
    found = [Objection("", _after_packing(step.kind, chain.packed))] if chain.packed else []
    if step.method.plain_linears and (other := OTHER_PROJECTIONS.get(chain.architecture)):
        found.append(Objection("method", not_linear(chain.architecture, step.method.name, step.method.kind, other)))
    teacher = getattr(config, "teacher", None)
    if teacher is not None and teacher in others:
        found += _teacher_objections(chain, others[teacher], teacher)
        learns_otherwise = getattr(config, "cross_entropy", 0) or getattr(config, "hidden", 0)
        if step.kind == "distill" and not learns_otherwise and _same_model(chain, others[teacher]):
            reason = f"the teacher '{teacher}' is the student itself, so there is nothing to learn; put a step that changes it before, "
            found.append(Objection("teacher", f"{reason}or name another teacher"))
    if getattr(config, "until", None) == PARENT and not chain.pruned:
        reason = f"no prune step comes before, so there is no '{PARENT}' whose loss could be reached; name 'base' or a variant"
        found.append(Objection("until", reason))
    if chain.dimensions is not None:
        found += _dimension_objections(chain.dimensions, step)
    return found


def after(chain: Chain, step: Step) -> Chain:
    """The chain after one more step.

    Raises:
        BadInput: the step adopts a model that `start` refuses.
    """
    if step.adopt is not None:
        return start(step.adopt.model)
    entry, dimensions = step.method, chain.dimensions
    if dimensions is not None:
        try:
            dimensions = entry.leaves(step.config, dimensions)
        except Misfit:
            dimensions = None  # the dimensions after an illegal step are not known
    packed = entry.name if entry.packs else chain.packed
    done = f"{step.kind} {step.config.model_dump_json()}"
    return chain._replace(dimensions=dimensions, packed=packed, pruned=chain.pruned or step.kind == "prune", steps=(*chain.steps, done))


def not_comparable(chain: Chain, parent: Chain) -> str:
    """Why a model's next-token distributions cannot be compared with its parent's; empty if they can, or if nobody knows before loading."""
    if not _other_tokenizer(chain, parent):
        return ""
    assert chain.origin is not None
    assert parent.origin is not None
    reason = f"{chain.origin.name} has another tokenizer than its parent {parent.origin.name}"
    return f"{reason}, so their next-token distributions are over other tokens; leave evaluate.fidelity out of this study, or this variant"


def _after_packing(kind: str, packed: str) -> str:
    if kind in ("distill", "retrain"):
        return f"training after {packed} is not possible: packed weights take no gradient; put the quantization last"
    if kind == "prune":
        return f"pruning after {packed} is not possible: packed weights cannot be cut; prune first, then quantize"
    return f"the weights are packed by {packed} already; quantize once, from the plain weights"


def _teacher_objections(chain: Chain, teacher: Chain, name: str) -> list[Objection]:
    if not _other_tokenizer(chain, teacher):
        return []  # or not known before loading; the step itself compares the vocabularies
    assert chain.origin is not None
    assert teacher.origin is not None
    reason = f"the teacher '{name}' comes from {teacher.origin.name}, which has another tokenizer than {chain.origin.name}"
    return [Objection("teacher", f"{reason}, so its logits mean other tokens; choose a teacher of the same tokenizer")]


def _same_model(one: Chain, other: Chain) -> bool:
    """Whether the two are one model: the same steps from the same origin."""
    return one.origin is not None and (one.origin, one.steps) == (other.origin, other.steps)


def _other_tokenizer(one: Chain, other: Chain) -> bool:
    """Whether the two are known to have different tokenizers."""
    if one.origin is None or other.origin is None or one.origin == other.origin:
        return False
    ours, theirs = vocabulary_digest(one.origin), vocabulary_digest(other.origin)
    return ours is not None and theirs is not None and ours != theirs


def _dimension_objections(dimensions: Dimensions, step: Step) -> list[Objection]:
    try:
        step.method.leaves(step.config, dimensions)
    except Misfit as misfit:
        return [Objection(*problem) for problem in misfit.problems]
    return step.method.refuses(step.config, dimensions)
