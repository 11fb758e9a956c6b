"""The training runs behind the variants of a study, which tell whose weights are copies of whose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compresslab.methods.adopt import Adopt
from compresslab.methods.registry import method_of
from compresslab.plan.graph import Plan, PlanVariant
from compresslab.records import Shape, StepRecord, VariantRecord


def training_runs(variant: PlanVariant, plan: Plan, steps: Sequence[StepRecord]) -> list[str]:
    """The training runs behind a variant, by key: that of the base or of an adopted model, and each step that trained it on.

    An adopted model that is a quantized copy of its parent adds none.

    Args:
        steps: the records of the variant's chain.
    """
    runs: list[str] = []
    for number, key in enumerate(variant.chain):
        step = plan.node(key).step
        if step is None:
            runs = [key]
        elif isinstance(config := step[1], Adopt):
            runs = runs if _origin(config, steps[number], steps[number - 1])[0] else [key]
        elif method_of(*step).trains:
            runs.append(key)
    return runs


def origins(plan: Plan, variants: Sequence[VariantRecord]) -> Iterator[str]:
    """For each adopted model with a parent, a sentence on whether it counts as a copy of the parent's weights, and why."""
    for variant in variants:
        chain = plan.variant(variant.name).chain
        if not variant.parent or len(variant.steps) != len(chain):
            continue
        step = plan.node(chain[-1]).step
        if step is not None and isinstance(config := step[1], Adopt):
            yield origin_in_words(variant.name, variant.parent, *_origin(config, variant.steps[-1], variant.steps[-2]))


def origin_in_words(name: str, parent: str, copy: bool, why: str) -> str:
    """A sentence on whether a model counts as a copy of its parent's weights, and on what ground."""
    return (
        f"{name} counts as {'a copy of the weights of' if copy else 'trained separately from'} {parent}, "
        f"so r has {'no' if copy else 'the'} scatter between training runs: {why}."
    )


def _origin(config: Adopt, adopted: StepRecord, parent: StepRecord) -> tuple[bool, str]:
    """Whether an adopted model is a copy of its parent's weights, and on what ground."""
    if config.trained is not None:
        return not config.trained, f"the recipe says `trained: {str(config.trained).lower()}`"
    quantization = adopted.details.get("quantization")
    if not quantization:
        return (
            False,
            "no config.json says that it is quantized; `trained: false` in the recipe if it is a copy all the same, such as a GGUF file",
        )
    if _dimensions(adopted.shape) != _dimensions(parent.shape):
        return False, f"it is quantized ({quantization}), but its dimensions are not its parent's"
    return True, (
        f"its config.json says that it is quantized ({quantization}), and its architecture and dimensions are its parent's; "
        "`trained: true` in the recipe if it was trained, too (quantization-aware training, or another model of the same architecture)"
    )


def _dimensions(shape: Shape) -> Shape:
    """A shape without what quantization changes."""
    return shape.model_copy(update={"weight_bits": 16.0, "weight_only": True})
