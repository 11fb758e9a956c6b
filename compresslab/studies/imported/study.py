"""A study of models that lm-eval evaluated: its record, from lm-eval's files alone. No model is run.

With samples of all models, items are paired and resampled as in a study that was run. Without them a score has its standard error, and
benchmarks are joined as those of a published table.
"""

from __future__ import annotations

import hashlib
import shlex
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from compresslab.catalog.hardware import Hardware, load_hardware
from compresslab.catalog.references import reference_names
from compresslab.density import Measured, assess
from compresslab.density.references.reference import Reference
from compresslab.errors import BadInput
from compresslab.evaluation.scores import write_items
from compresslab.plan.graph import Plan, PlanVariant
from compresslab.recipe.load import RecipeFile
from compresslab.recipe.schema import NAME_FORM, DensityConfig, Recipe
from compresslab.recipe.steps import BASE
from compresslab.records import ItemScores, StepRecord, StudyRecord, VariantRecord
from compresslab.runner.run import RunResult
from compresslab.studies.answers.fidelity import fidelity
from compresslab.studies.answers.lost_items import lost_items
from compresslab.studies.assemble import study_record
from compresslab.studies.imported.answers import Answers, by_items, by_values, sampled_tasks, shared_tasks
from compresslab.studies.imported.files import NAME, ModelResults, read_models
from compresslab.studies.imported.lineage import Lineage, lineage_of
from compresslab.studies.imported.mark import EVALUATED
from compresslab.studies.imported.models import ImportedModel, are_timed, quantization_of, sizes_of
from compresslab.studies.imported.pairing import check_asked_alike, ways_apart
from compresslab.studies.imported.tasks import best_reference, name_in
from compresslab.studies.training_runs import origin_in_words, origin_of

QUESTION = "Is each model denser than the one that it was made from, or only smaller?"


@dataclass(frozen=True)
class ImportRequest:
    """What to import.

    Attributes:
        files: of results and of samples, results with or without `NAME=`. parents: `NAME`, the model that all others come from, or
            `CHILD=NAME`. sizes: `NAME=…` (`models.sizes_of`). tasks: only these. copies: models that are copies of their parents' weights.
        study: the study's name. reference: default, the one that ships and reads most of the tasks. hardware: profiles of modelled times.
    """

    files: Sequence[str]
    parents: Sequence[str] = ()
    sizes: Sequence[str] = ()
    tasks: Sequence[str] = ()
    copies: Sequence[str] = ()
    study: str | None = None
    reference: str | None = None
    hardware: Sequence[str] = ()


def import_study(request: ImportRequest) -> StudyRecord:
    """Read lm-eval's files and give the study of their models.

    Raises:
        BadInput: files that are not lm-eval's, models that were not asked alike, a size or a parent that nobody states.
    """
    started = time.perf_counter()
    models = read_models(request.files)
    lineage = lineage_of([model.name for model in models], request.parents, request.copies)
    by_name = {model.name: model for model in models}
    models = [by_name[name] for name in lineage.order]
    tasks, left_out = shared_tasks(models, request.tasks)
    sampled, without_samples = sampled_tasks(models, tasks)
    check_asked_alike(models, sampled or tasks, by_items=bool(sampled))
    sizes = sizes_of(models, request.sizes)
    asked = [models[0].tasks[task] for task in sampled or tasks]
    reference = Reference.load(request.reference) if request.reference else best_reference(asked)
    hardware = [load_hardware(name) for name in request.hardware]
    if hardware and not are_timed(sizes.values()):
        raise BadInput("--hardware models times from the dimensions of every model; give each one's folder or config.json with --size")
    names = {task.name: name_in(reference, task) for task in asked}
    answers = by_items(models, sampled, names, lineage) if sampled else by_values(models, tasks, names, lineage)
    plan = _plan(request, models, lineage, reference, list(names.values()))
    origins = {model.name: _origin(model, sizes, lineage) for model in models if model.name != lineage.root}
    measured = [_measured(model, lineage, sizes, answers, copy=origins.get(model.name, (False, ""))[0]) for model in models]
    measured = _with_runs(measured, {lineage.variant(name): copy for name, (copy, _) in origins.items()})
    variants = _variants(models, measured, plan.recipe.density, hardware, answers, sizes)
    notes = [
        *_sources(models),
        *ways_apart(models),
        *(left_out and [f"Left out, because not every model has them: {', '.join(left_out)}."]),
        *(without_samples and [f"Left out, because not every model's samples were given: {', '.join(without_samples)}."]),
        *_how(bool(sampled), reference, list(names.values()), chosen=request.reference is None),
        *(f"N of {lineage.variant(name)}: {size.source}." for name, size in sizes.items()),
        *(origin_in_words(lineage.variant(name), lineage.parent_variant(name), *origin) for name, origin in origins.items()),
    ]
    return study_record(plan, variants, RunResult({}, 0, time.perf_counter() - started), notes)


def _measured(model: ModelResults, lineage: Lineage, sizes: Mapping[str, ImportedModel], answers: Answers, *, copy: bool) -> Measured:
    variant, parent = lineage.variant(model.name), lineage.parent_variant(model.name)
    return Measured(
        name=variant,
        parent=parent,
        root=BASE,
        size=sizes[model.name].size,
        shape=sizes[model.name].shape,
        items=answers.items.get(variant, {}),
        published=answers.values.get(variant, {}),
        published_items=answers.counts.get(variant, {}),
        table="" if answers.items else "lm-eval",
        runs=[parent] if copy else [variant],
    )


def _with_runs(measured: Sequence[Measured], copies: Mapping[str, bool]) -> list[Measured]:
    """The training run behind each model: its own, or that of the model whose copy it is. Parents come first."""
    runs: dict[str, list[str]] = {}
    for one in measured:
        runs[one.name] = runs[one.parent] if copies.get(one.name) else [one.name]
    return [one.model_copy(update={"runs": runs[one.name]}) for one in measured]


def _origin(model: ModelResults, sizes: Mapping[str, ImportedModel], lineage: Lineage) -> tuple[bool, str]:
    """Whether a model is a copy of its parent's weights, and on what ground."""
    if model.name in lineage.copies:
        return True, "--copy says so"
    own, parent = sizes[model.name], sizes[lineage.parents[model.name]]
    if (quantization := quantization_of(own)) is None:
        return False, "nothing says that it is quantized; --copy if it is a copy all the same, pruned or quantized"
    folders = (own.folder, parent.folder) if own.folder and parent.folder else None
    return origin_of(None, quantization, own.shape, parent.shape, folders)


def _variants(
    models: Sequence[ModelResults],
    measured: Sequence[Measured],
    config: DensityConfig,
    hardware: list[Hardware],
    answers: Answers,
    sizes: Mapping[str, ImportedModel],
) -> list[VariantRecord]:
    densities = assess(list(measured), config, hardware, reference_names())
    steps: dict[str, list[StepRecord]] = {}
    variants = []
    with tempfile.TemporaryDirectory(prefix="compresslab-import-") as folder:
        files = _item_files(Path(folder), answers.items)
        for model, one in zip(models, measured, strict=True):
            density, comparisons = densities[one.name]
            steps[one.name] = [*steps.get(one.parent, []), _step(model, sizes[model.name], is_base=not one.parent)]
            record = VariantRecord(
                name=one.name,
                parent=one.parent,
                root=BASE,
                steps=steps[one.name],
                scores=answers.scores[one.name],
                density=density,
                comparisons=comparisons,
            )
            if one.parent and answers.items:
                before, after = answers.items[one.parent], answers.items[one.name]
                pairs = {task: (files[one.parent, task], files[one.name, task]) for task in after}
                changes = {"fidelity": fidelity(before, after, pairs), "lost_items": lost_items(before, after, pairs)}
                record = record.model_copy(update=changes)
            variants.append(record)
    return variants


def _item_files(folder: Path, items: Mapping[str, Mapping[str, ItemScores]]) -> dict[tuple[str, str], Path]:
    """The items of each variant and task as a file, since answers are compared from files."""
    found: dict[tuple[str, str], Path] = {}
    for variant, by_task in items.items():
        for task, scores in by_task.items():
            found[variant, task] = folder / f"{len(found)}.parquet"
            write_items(found[variant, task], scores)
    return found


def _step(model: ModelResults, size: ImportedModel, *, is_base: bool) -> StepRecord:
    return StepRecord(
        kind="base" if is_base else "adopt",
        method="load" if is_base else "adopt",
        config={"model": model.model},
        seed=0,
        size=size.size,
        shape=size.shape,
        details={EVALUATED: ", ".join(path.name for path in model.paths), "lm_eval": model.lm_eval, "arguments": model.arguments},
    )


def _plan(request: ImportRequest, models: Sequence[ModelResults], lineage: Lineage, reference: Reference, tasks: list[str]) -> Plan:
    """A plan without nodes: the recipe of a study of the same models that runs them."""
    adopted = {
        lineage.variant(model.name): {
            **({} if lineage.parents[model.name] == lineage.root else {"from": lineage.parent_variant(model.name)}),
            "steps": [{"adopt": {"model": model.model, **({"trained": False} if model.name in lineage.copies else {})}}],
        }
        for model in models
        if model.name != lineage.root
    }
    study = request.study or f"{lineage.root[:90]}-imported"
    if not NAME.match(study):
        raise BadInput(f"--study {study!r} is no name: write {NAME_FORM}")
    content = {
        "study": study,
        "question": QUESTION,
        "base": {"model": models[0].model, **({"dtype": models[0].dtype} if models[0].dtype else {})},
        "variants": adopted,
        "evaluate": {"tasks": tasks},
        "density": {"reference": request.reference or reference.name, "hardware": list(request.hardware)},
    }
    recipe = Recipe.model_validate(content)
    head = "# Imported from lm-eval's files; nothing was run. Shots and metrics are those of the files.\n"
    command = f"# compresslab import {shlex.join(_arguments(request))}\n"
    text = head + command + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    variants = [PlanVariant(lineage.variant(model.name), lineage.parent_variant(model.name), True, (), "", None) for model in models]
    file = RecipeFile(Path("lm-eval's files"), text, hashlib.sha256(text.encode()).hexdigest())
    return Plan(recipe, (), tuple(variants), file=file)


def _arguments(request: ImportRequest) -> Iterator[str]:
    yield from map(str, request.files)
    for option, values in (
        ("parent", request.parents),
        ("size", request.sizes),
        ("task", request.tasks),
        ("copy", request.copies),
        ("hardware", request.hardware),
    ):
        for value in values:
            yield from (f"--{option}", value)
    for option, one in (("study", request.study), ("reference", request.reference)):
        yield from (f"--{option}", one) if one else ()


def _sources(models: Sequence[ModelResults]) -> Iterator[str]:
    for model in models:
        yield f"Scores of {model.name} were imported from {', '.join(path.name for path in model.paths)}, by lm-eval {model.lm_eval}."
    if len({model.lm_eval for model in models}) > 1:
        yield "⚠ The models were evaluated by different versions of lm-eval. A change of a task that its version does not name is not seen."


def _how(sampled: bool, reference: Reference, tasks: list[str], *, chosen: bool) -> Iterator[str]:
    known = [task for task in tasks if task in reference.tasks]
    if sampled:
        yield "Nothing was run here. Parent and child are paired by item, from the samples of lm-eval."
    else:
        yield (
            "Nothing was run here. Without samples a score has its standard error alone, and parent and child are taken as independent, "
            "which gives wider intervals than paired items: evaluate with --log_samples, and name samples_*.jsonl too."
        )
    if not known:
        yield (
            f"⚠ {reference.name} reads none of {', '.join(tasks)}, so there is no density and no r; differences in accuracy stand. "
            "`compresslab reference ls` lists what is read in which setting, and `compresslab reference fit` makes a reference of your own."
        )
    elif chosen:
        yield f"The reference is {reference.name}, which reads {len(known)} of {len(tasks)} tasks, as many as any that ships."
