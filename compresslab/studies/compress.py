"""Applies one step of a recipe to a model, for programs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from compresslab.errors import BadInput
from compresslab.machine.this_machine import probe_device, resolve_compute
from compresslab.methods.distill import Distill
from compresslab.recipe.arguments import checked
from compresslab.recipe.model_folder import files_of
from compresslab.recipe.schema import Calibration, Text, Training
from compresslab.recipe.source import parse_source
from compresslab.recipe.steps import Step
from compresslab.records import StepRecord
from compresslab.records.compute import ComputeChoice, Dtype
from compresslab.suggestions import suggest


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
        step: as in a recipe: `{"quantize": {"method": "gptq", "bits": 4}}`.
        output: the folder to write; it must not exist yet.
        text: the text that the step reads, as `text.calibration` or `text.training` of a recipe. Default: the recipe's defaults.
        other: the teacher of a distill step, or the model whose loss a retrain step names by `until`. Default: the model itself, which
            teaches a student nothing.
        dtype: of plain weights in the folder. compute: dtype of forward and backward passes; `auto` as in a recipe.
        device: by torch's name. Default: the accelerator, if there is one.

    Returns:
        The step's record, with sizes counted from the files, tokens seen and details of the method.

    Raises:
        BadInput: an invalid step, text or dtype, or a method that does not support this model. Nothing was written.
        RunFailed: the result has logits that are not finite.
    """
    requested = checked(Step, step, "step")
    if requested.adopt is not None:
        raise BadInput("step.adopt: an existing model is taken as it is, so there is nothing to compress; give another kind of step")
    if requested.replicates > 1:
        raise BadInput("step.replicates: one model is made here; call it again with other seeds for more, or run a recipe")
    for name in ("devices", "teacher_devices"):
        if getattr(requested.config, name, 1) not in (1, "auto"):
            raise BadInput(f"step.{name}: this process alone makes the model; leave {name} out, or run a recipe")
    entry = requested.method
    if isinstance(requested.config, Distill) and other is None and not (requested.config.cross_entropy or requested.config.hidden):
        raise BadInput("other: a distill step learns from another model, and without one the student would be its own teacher; name it")
    texts = _texts(entry.text, text)
    _check_choice(dtype, get_args(Dtype), "dtype")
    _check_choice(compute, get_args(ComputeChoice), "compute")
    folder = Path(output)
    if folder.exists():
        raise BadInput(f"output: {folder} exists already; give a folder that does not")
    from compresslab.models.device import torch_dtype
    from compresslab.models.load import load
    from compresslab.models.save import save
    from compresslab.models.streamed.trial import as_saved
    from compresslab.steps.contract import Context, run
    from compresslab.steps.step_text import text_for

    chosen = resolve_compute(compute, dtype, probe_device(device))
    chosen = chosen.for_training() if entry.trains else chosen
    loaded = load(model, dtype, device=chosen.device)
    source = parse_source(model)
    step_text = text_for(entry, requested.config, texts, loaded)
    needs_other_model = requested.other_variant is not None or getattr(requested.config, "until", None) is not None
    other_model = load(other or model, chosen.dtype, device=chosen.device) if needs_other_model else None
    folder.parent.mkdir(parents=True, exist_ok=True)
    # A failed step must not leave a folder that looks complete.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        parent = Path(source.name) if source.kind == "folder" else Path(scratch) / "parent"
        if source.kind != "folder" or not as_saved(parent, files_of(parent), dtype):
            parent = Path(scratch) / "parent"
            save(loaded, parent)
        context = Context(step_text, other_model, compute=torch_dtype(chosen), parent=parent)
        record = run(requested.kind, requested.config, loaded, context, Path(scratch) / "model").record
        (Path(scratch) / "model").rename(folder)
    return record


def _texts(role: str | None, settings: Mapping[str, Any] | None) -> Text:
    """The texts of a recipe with these settings for the text that the step reads.

    Raises:
        BadInput: an invalid text, or a text for a step that reads none.
    """
    if role == "calibration":
        return Text(calibration=checked(Calibration, settings or {}, "text"))
    if role == "training":
        return Text(training=checked(Training, settings or {}, "text"))
    if settings:
        raise BadInput("text: this step reads no text; leave it out")
    return Text()


def _check_choice(value: str, known: tuple[str, ...], argument: str) -> None:
    if value not in known:
        raise BadInput(f"{argument}: {value!r} is none of {', '.join(known)};{suggest(str(value), list(known))}".rstrip(";"))
