"""One step of a recipe applied to a model, for programs."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from compresslab.errors import BadInput
from compresslab.machine.this_machine import compute_of, probed
from compresslab.recipe.given import checked
from compresslab.recipe.schema import Calibration, Text, Training
from compresslab.recipe.steps import Step
from compresslab.records import StepRecord
from compresslab.records.compute import ComputeChoice, Dtype


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
        BadInput: a step, a text or a dtype that is none, or a method that cannot do this to this model; nothing was written.
        RunFailed: the result has logits that are not finite.
    """
    asked = checked(Step, step, "step")
    if asked.adopt is not None:
        raise BadInput("step.adopt: an existing model is taken as it is, so there is nothing to compress; give another kind of step")
    entry = asked.method
    texts = _texts(entry.text, text)
    _one_of(dtype, get_args(Dtype), "dtype")
    _one_of(compute, get_args(ComputeChoice), "compute")
    folder = Path(output)
    if folder.exists():
        raise BadInput(f"output: {folder} exists already; give a folder that does not")
    from compresslab.models.device import torch_dtype
    from compresslab.models.load import load
    from compresslab.steps.contract import Context, run
    from compresslab.steps.step_text import text_for

    chosen = compute_of(compute, dtype, probed(device))
    chosen = chosen.for_training() if entry.trains else chosen
    loaded = load(model, dtype, device=chosen.device)
    read = text_for(entry, asked.config, texts, loaded.tokenizer)
    needed = asked.other_variant is not None or getattr(asked.config, "until", None) is not None
    looked_at = load(other or model, chosen.dtype, device=chosen.device) if needed else None
    folder.parent.mkdir(parents=True, exist_ok=True)
    # What fails on the way leaves no folder that looks whole.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        context = Context(read, looked_at, compute=torch_dtype(chosen))
        record = run(asked.kind, asked.config, loaded, context, Path(scratch) / "model").record
        (Path(scratch) / "model").rename(folder)
    return record


def _texts(role: str | None, given: Mapping[str, Any] | None) -> Text:
    """The recipe's texts with the one that the step reads as it was given.

    Raises:
        BadInput: a text that is none, or one for a step that reads none.
    """
    if role == "calibration":
        return Text(calibration=checked(Calibration, given or {}, "text"))
    if role == "training":
        return Text(training=checked(Training, given or {}, "text"))
    if given:
        raise BadInput("text: this step reads no text; leave it out")
    return Text()


def _one_of(value: str, known: tuple[str, ...], what: str) -> None:
    if value not in known:
        close = difflib.get_close_matches(str(value), known, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise BadInput(f"{what}: {value!r} is none of {', '.join(known)}{hint}")
