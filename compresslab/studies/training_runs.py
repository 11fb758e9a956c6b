"""The training runs behind the variants of a study, which tell whose weights are copies of whose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from compresslab.methods.adopt import Adopt
from compresslab.methods.registry import method_of
from compresslab.plan.graph import Plan, PlanVariant
from compresslab.records import Shape, StepRecord, VariantRecord
from compresslab.store.store import Store
from compresslab.studies.embeddings import same_embeddings


def training_runs(variant: PlanVariant, plan: Plan, steps: Sequence[StepRecord], store: Store) -> list[str]:
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
            runs = runs if _origin(config, variant.chain[: number + 1], steps[: number + 1], store)[0] else [key]
        elif method_of(*step).trains:
            runs.append(key)
    return runs


def origins(plan: Plan, variants: Sequence[VariantRecord], store: Store) -> Iterator[str]:
    """For each adopted model with a parent, a sentence on whether it counts as a copy of the parent's weights, and why."""
    for variant in variants:
        chain = plan.variant(variant.name).chain
        if not variant.parent or len(variant.steps) != len(chain):
            continue
        step = plan.node(chain[-1]).step
        if step is not None and isinstance(config := step[1], Adopt):
            yield origin_in_words(variant.name, variant.parent, *_origin(config, chain, variant.steps, store))


def origin_in_words(name: str, parent: str, copy: bool, why: str) -> str:
    """A sentence on whether a model counts as a copy of its parent's weights, and on what ground."""
    return (
        f"{name} counts as {'a copy of the weights of' if copy else 'trained separately from'} {parent}, "
        f"so r has {'no' if copy else 'the'} scatter between training runs: {why}."
    )


def _origin(config: Adopt, chain: Sequence[str], steps: Sequence[StepRecord], store: Store) -> tuple[bool, str]:
    """Whether the adopted model at the end of a chain is a copy of its parent's weights, and on what ground."""
    adopted, parent = steps[-1], steps[-2]
    # A model that was unpacked from a quantized GGUF file has a rounded embedding.
    rounded = any("quantized_before" in step.details for step in steps[:-1])
    folders = None if rounded else (store.model(chain[-1]), store.model(chain[-2]))
    return origin_of(config.trained, adopted.details.get("quantization"), adopted.shape, parent.shape, folders)


def origin_of(
    trained: bool | None, quantization: str | None, adopted: Shape, parent: Shape, folders: tuple[Path, Path] | None
) -> tuple[bool, str]:
    """Whether an existing model is a copy of its parent's weights, and on what ground.

    Args:
        trained: what the user says. quantization: what its config.json says. folders: of the model and its parent, whose embeddings can
            be compared; `None` if they cannot.
    """
    if trained is not None:
        return not trained, f"the recipe says `trained: {str(trained).lower()}`"
    if not quantization:
        return (
            False,
            "no config.json says that it is quantized; `trained: false` in the recipe if it is a copy all the same, such as a GGUF file",
        )
    if _dimensions(adopted) != _dimensions(parent):
        return False, f"it is quantized ({quantization}), but its dimensions are not its parent's"
    same = None if folders is None else same_embeddings(*folders, adopted)
    if same is False:
        return False, (
            f"it is quantized ({quantization}) with its parent's dimensions, but its embedding is not its parent's, as that of a model "
            "that was trained further; `trained: false` in the recipe if it is a copy all the same, by a method that changes the embedding "
            "(a rotation)"
        )
    embedding = ", and so is its embedding" if same else "; their embeddings could not be compared"
    return True, (
        f"its config.json says that it is quantized ({quantization}), and its architecture and dimensions are its parent's{embedding}; "
        "`trained: true` in the recipe if it was trained, too (quantization-aware training, or "
        f"another model of the same architecture{' with the same embedding' if same else ''})"
    )


def _dimensions(shape: Shape) -> Shape:
    """A shape without what quantization changes."""
    return shape.model_copy(update={"weight_bits": 16.0, "weight_only": True})
