"""What packing with and without document boundaries, with and without a token before each document, does to healing.

Depth-24 of SmolLM2-135M is healed by distillation, or retrained, on the same documents packed in four ways, with several seeds. The
folder keeps the models, their losses (`losses.jsonl`) and their scores (`scores.jsonl`); what is there is not made again.

    python experiments/packing/measure.py FOLDER TOKENS SEEDS [KIND ...]

KIND is `distill` or `retrain`; without one, both are done. Two kinds may run at once in a folder that has `base` and `pruned`.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Literal

from compresslab.evaluation.backends import load_lm
from compresslab.evaluation.harness import evaluate_model
from compresslab.machine.this_machine import probe_device, resolve_compute
from compresslab.methods.registry import method_of
from compresslab.models.device import torch_dtype
from compresslab.models.load import load, load_folder
from compresslab.models.save import save
from compresslab.models.text import sequences
from compresslab.recipe.schema import Evaluate, Text
from compresslab.recipe.steps import Step
from compresslab.steps.contract import Context, run
from compresslab.steps.step_text import text_for
from compresslab.steps.training.held_out import mean_loss

MODEL = "offline:smollm2-135m-instruct"
OPTIMIZER = {"batch_tokens": 1024, "micro_batch_tokens": 1024}
TASKS = ["arc_easy", "csqa", "openbookqa"]
ITEMS = 150
HELD_OUT, LENGTH = 32, 512  # sequences, tokens
COMPUTE = resolve_compute("auto", "bfloat16", probe_device(None))
# What a model is read with on held-out text: whether documents are kept apart, and the token before each.
READ: dict[str, tuple[bool, Literal["always", "never"]]] = {
    "bounded": (True, "never"),
    "bounded+bos": (True, "always"),
    "packed": (False, "never"),
}


def step_on(folder: Path | None, step: dict[str, object], text: dict[str, object], output: Path, teacher: Path | None = None) -> None:
    """Apply a step to a saved model, or to the base, and save the result."""
    requested, texts = Step.model_validate(step), Text.model_validate(text)
    loaded = load(MODEL, "bfloat16") if folder is None else load_folder(folder)
    entry = method_of(requested.kind, requested.config)
    dtype = torch_dtype(COMPUTE.for_training() if entry.trains else COMPUTE)
    other = load_folder(teacher, dtype) if teacher else None
    context = Context(text_for(entry, requested.config, texts, loaded), other, compute=dtype)
    run(requested.kind, requested.config, loaded, context, output)


def losses(folder: Path) -> dict[str, float]:
    """The next-token loss in nats a token on held-out documents, by how they are read."""
    loaded = load_folder(folder, torch_dtype(COMPUTE))
    found = {}
    for name, (bounded, bos) in READ.items():
        text = sequences("installed-docs#held-out", loaded.tokenizer, HELD_OUT, LENGTH, 0, bounded=bounded, bos=bos)
        found[name] = mean_loss(loaded.model, text.input)
    return found


def scores(folder: Path) -> dict[str, dict[str, float | None]]:
    """Bits per byte and accuracy of each task."""
    config = Evaluate.model_validate({"tasks": TASKS, "items": ITEMS})
    lm, weights = load_lm(folder, config, COMPUTE)
    results = evaluate_model(lm, TASKS, config, weights=weights)
    return {score.task: {"bits_per_byte": score.bits_per_byte, "accuracy": score.accuracy} for score, _ in results}


def made(folder: Path, make: Callable[[Path], None]) -> Path:
    """A folder that is there whole or not at all; made unless it is there."""
    if not folder.exists():
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        make(unfinished)
        unfinished.rename(folder)
    return folder


def heal(work: Path, kind: str, tokens: int, documents: str, bos: str, seed: int, output: Path) -> None:
    """Distill or retrain the pruned model on documents packed in one way."""
    settings = {"tokens": tokens, "optimizer": OPTIMIZER, "seed": seed}
    step: dict[str, object] = {"distill": {"teacher": "base", **settings}}
    if kind == "retrain":
        step = {"retrain": {"method": "full", **settings}}
    text: dict[str, object] = {"training": {"tokens": tokens, "seed": seed, "documents": documents, "bos": bos}}
    step_on(work / "pruned", step, text, output, work / "base" if kind == "distill" else None)


def main(work: Path, tokens: int, seeds: int, *kinds: str) -> None:
    """Make every model and take its losses; then let each answer the tasks."""
    work.mkdir(exist_ok=True)
    base = made(work / "base", lambda output: save(load(MODEL, "bfloat16"), output))
    cut: dict[str, object] = {"prune": {"method": "depth", "keep": 24}}
    pruned = made(work / "pruned", lambda output: step_on(base, cut, {"calibration": {"samples": 16, "length": 256}}, output))
    folders = [base, pruned]
    note(work / "losses.jsonl", base, losses)
    note(work / "losses.jsonl", pruned, losses)
    for seed, kind, documents, bos in product(range(seeds), kinds, ("packed", "bounded"), ("never", "always")):
        folder = work / f"{kind}-{tokens}-{documents}-{bos}-{seed}"
        folders.append(made(folder, partial(heal, work, kind, tokens, documents, bos, seed)))
        note(work / "losses.jsonl", folder, losses)
    for folder in folders:
        note(work / "scores.jsonl", folder, scores)


def note(path: Path, folder: Path, measure: Callable[[Path], object]) -> None:
    """Add a line with what is measured of a model, unless it has one."""
    lines = path.read_text().splitlines() if path.exists() else []
    if folder.name not in {json.loads(line)["name"] for line in lines}:
        start = time.perf_counter()
        line = {"name": folder.name, "measured": measure(folder), "seconds": round(time.perf_counter() - start, 1), **COMPUTE.decides()}
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:] or ("distill", "retrain"))
