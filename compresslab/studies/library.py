"""Studies and steps for programs: what `compresslab run` does, in one call."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from compresslab.errors import BadInput
from compresslab.machine.this_machine import compute_of, probed
from compresslab.methods.adopt import Adopt
from compresslab.plan.prepare import prepare
from compresslab.recipe.changes import Changes
from compresslab.recipe.schema import Calibration, Training
from compresslab.recipe.steps import Step
from compresslab.records import StepRecord, StudyRecord
from compresslab.records.compute import ComputeChoice, Dtype
from compresslab.runner.run import Watcher
from compresslab.runner.run import run as run_plan
from compresslab.runner.store import Store

if TYPE_CHECKING:
    from compresslab.models.load import Loaded
    from compresslab.models.text import TokenSequences


def run_study(
    recipe: str | Path,
    *,
    store: str | Path = ".compresslab",
    settings: Sequence[str] = (),
    only: Sequence[str] = (),
    device: str | None = None,
    watcher: Watcher | None = None,
) -> StudyRecord:
    """Run what a recipe needs and the store lacks, and give the study's record. What failed stands in its variants' `failures`.

    Args:
        recipe: a YAML file. store: the folder of results; what is there is not made again.
        settings: changes as `path=value`, such as `evaluate.items=50`. only: the variants that are meant; all without it.
        device: by torch's name ("cpu", "cuda:1"), to compute on; this machine's own choice without it.
        watcher: hears which node starts and ends.

    Raises:
        BadInput: anything in the recipe that cannot work, named.
        RunFailed: the disk has too little room for what is to be made.
    """
    path = Path(recipe)
    plan = prepare(path, Changes(tuple(settings), tuple(only)), device)
    if plan.recipe.evaluate.source == "published":
        from compresslab.studies import published

        return published.assemble(plan, path)
    from compresslab.runner.upkeep import note
    from compresslab.studies.assemble import assemble

    kept = Store(Path(store))
    note(plan, kept, path)
    ran = run_plan(plan, kept, watcher or Watcher())
    record = assemble(plan, kept, ran, path)
    note(plan, kept, path, record.provenance.finished)
    return record


def read_study(path: str | Path) -> StudyRecord:
    """The record of a report: its folder, or the `study.json` in it.

    Raises:
        BadInput: there is none, or it is of another version.
    """
    file = Path(path)
    file = file / "study.json" if file.is_dir() else file
    try:
        return StudyRecord.model_validate_json(file.read_bytes())
    except FileNotFoundError as error:
        raise BadInput(f"no record at {file}; `compresslab run RECIPE` writes one into reports/<study>/study.json") from error
    except ValidationError as error:
        raise BadInput(f"{file} was not written by this version of compresslab; `compresslab report RECIPE` writes it again") from error


def compress(
    model: str,
    step: Mapping[str, Any],
    output: str | Path,
    *,
    text: Mapping[str, Any] | None = None,
    other: str | None = None,
    dtype: Dtype = "bfloat16",
    compute: ComputeChoice = "auto",
    device: str | None = None,
) -> StepRecord:
    """Apply one step of a recipe to a model, and save a folder that plain transformers loads.

    Args:
        model: `offline:<name>`, a Hub id with or without `@<revision>`, a folder, or a `.gguf` file.
        step: as a recipe has it: `{"quantize": {"method": "gptq", "bits": 4}}`.
        output: the folder to write; it must not exist yet.
        text: what the step reads, as `text.calibration` or `text.training` of a recipe; the defaults without it.
        other: the teacher of a distill step, or the model whose loss a retrain step names by `until`. Without it the model itself.
        dtype: of plain weights in the folder. compute: what forward and backward passes multiply in; `auto` as in a recipe.
        device: by torch's name; this machine's own choice without it.

    Returns:
        What the step did: sizes counted from the files, tokens seen, whatever the method tells.

    Raises:
        BadInput: a step or a text that is none, or a method that cannot do this to this model; nothing was written.
        RunFailed: the result has logits that are not finite.
    """
    asked = _checked(Step, step, "step")
    if isinstance(asked.config, Adopt):
        raise BadInput("adopt takes a published model as it is, so there is nothing to compress")
    folder = Path(output)
    if folder.exists():
        raise BadInput(f"{folder} exists already; give a folder that does not")
    from compresslab.models.device import torch_dtype
    from compresslab.models.load import load
    from compresslab.steps.contract import Context, run

    chosen = compute_of(compute, dtype, probed(device))
    entry = asked.method
    chosen = chosen.for_training() if entry.trains else chosen
    loaded = load(model, dtype, device=chosen.device)
    read = _text(entry.text, text or {}, asked, loaded)
    needed = asked.looks_at is not None or getattr(asked.config, "until", None) is not None
    looked_at = load(other or model, chosen.dtype, device=chosen.device) if needed else None
    folder.parent.mkdir(parents=True, exist_ok=True)
    # What fails on the way leaves no folder that looks whole.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        context = Context(read, looked_at, compute=torch_dtype(chosen))
        record = run(asked.kind, asked.config, loaded, context, Path(scratch) / "model").record
        (Path(scratch) / "model").rename(folder)
    return record


Some = TypeVar("Some", bound=BaseModel)


def _text(role: str | None, given: Mapping[str, Any], step: Step, loaded: Loaded) -> TokenSequences | None:
    from compresslab.models.text import calibration_tokens, training_tokens

    if role == "calibration":
        return calibration_tokens(_checked(Calibration, given, "text"), loaded.tokenizer)
    if role == "training":
        return training_tokens(_checked(Training, given, "text"), loaded.tokenizer, step.config.training_tokens)
    return None


def _checked(kind: type[Some], given: Mapping[str, Any], what: str) -> Some:
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"{what}{f': {place}' if place else ''}: {first['msg']}; docs/recipe.md says what may stand there") from error
