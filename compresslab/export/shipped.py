"""Scores and density of an exported GGUF file as it is shipped: the items of the study, answered with the weights of the file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from gguf import GGML_QUANT_SIZES, GGUFReader, dequantize

from compresslab.catalog.references import reference_names
from compresslab.density import Measured, assess
from compresslab.errors import BadInput
from compresslab.plan.graph import Plan
from compresslab.plan.prepare import prepare
from compresslab.records import Comparison, Density, ItemScores, Size, StudyRecord, TaskScore, VariantRecord
from compresslab.store.store import Store

PLAIN_BITS = 16


class Shipped(NamedTuple):
    """What a file scored, how dense it is, and how it compares with the model that it was made from."""

    scores: list[TaskScore]
    density: Density
    comparison: Comparison


def plan_of(study: StudyRecord, variant: VariantRecord, store: Store) -> Plan:
    """The plan by which a variant was scored, from its recipe.

    Raises:
        BadInput: the recipe is not there any more, or now asks for other scores, or the store lacks them.
    """
    noted = store.notes().get(study.study)
    recipes = [Path(run.recipe) for run in noted.runs.values() if variant.keys.get("evaluate") in run.keys] if noted else []
    path = next((path for path in recipes if path.is_file()), None)
    if path is None:
        where = ", ".join(map(str, recipes)) or "not noted in this store"
        raise BadInput(f"--score needs the recipe that scored {variant.name} ({where}), and there is none; run the study again")
    plan = prepare(path, noted=store.notes())
    found = next((one for one in plan.variants if one.name == variant.name), None)
    if found is None or found.keys != variant.keys or not all(store.has(key) for key in plan.node(found.evaluate).tasks.values()):
        raise BadInput(f"--score: {path} now asks for other results than those of {study.study}; run it as it is, and export again")
    return plan


def score_file(path: Path, variant: VariantRecord, plan: Plan, store: Store) -> Shipped:
    """Answer the tasks of a study with a GGUF file, and compare it with the variant that it was written from.

    Args:
        path: the file. plan: of the study (`plan_of`).

    Raises:
        BadInput, RunFailed: as in a run.
    """
    # They import torch.
    from compresslab.evaluation.harness import evaluate_model
    from compresslab.evaluation.scores import read_items
    from compresslab.evaluation.tree_lm import TreeLM
    from compresslab.models.device import find_device, torch_dtype
    from compresslab.models.load import load_gguf

    settings, tasks = plan.recipe.evaluate, plan.node(plan.variant(variant.name).evaluate).tasks
    loaded = load_gguf(path, torch_dtype(plan.compute), find_device(plan.compute.device))
    backend = "tree" if settings.backend == "vllm" else settings.backend
    lm = TreeLM(loaded.model, loaded.tokenizer, encodings=store.encodings, truncate=settings.truncate, backend=backend)
    answered = evaluate_model(lm, list(tasks), settings, weights="dequantized", trust_code=plan.trust_code)
    parent = {task: read_items(store.folder(key) / "items.parquet") for task, key in tasks.items()}
    return _assessed(path, variant, plan, parent, answered)


def _assessed(
    path: Path, variant: VariantRecord, plan: Plan, parent: dict[str, ItemScores], answered: list[tuple[TaskScore, ItemScores]]
) -> Shipped:
    last = variant.steps[-1]
    file_size = _size(path, last.size)
    shape = last.shape.model_copy(update={"weight_bits": min(file_size.effective_bits, last.shape.weight_bits), "weight_only": True})
    items = {scores.task: scores for _, scores in answered}
    # Rounding is no training, so both have the same training runs behind their weights.
    root, runs = variant.name, [variant.name]
    measured = [
        Measured(name=variant.name, root=root, runs=runs, size=last.size, shape=last.shape, items=parent),
        Measured(name=path.name, parent=variant.name, root=root, runs=runs, size=file_size, shape=shape, items=items),
    ]
    density, [comparison, *_] = assess(measured, plan.recipe.density, [], reference_names())[path.name]
    return Shipped([score for score, _ in answered], density, comparison)


def _size(path: Path, before: Size) -> Size:
    """The size of a model as a GGUF file: the parameters are those that it had, bytes and zeros are counted from the file."""
    stored, bits, nonzero = 0, 0.0, 0
    for tensor in GGUFReader(path).tensors:
        block, block_bytes = GGML_QUANT_SIZES[tensor.tensor_type]
        count = int(tensor.n_elements)
        stored += int(tensor.n_bytes)
        bits += count * min(PLAIN_BITS, 8 * block_bytes / block)
        nonzero += int(np.count_nonzero(dequantize(tensor.data, tensor.tensor_type)))
    return before.model_copy(update={"stored_bytes": stored, "effective_bits": bits / before.parameters, "nonzero": nonzero})
