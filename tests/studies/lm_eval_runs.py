"""Runs of lm-eval itself over tiny models, on lm-eval's own `sciq` with data from a folder, for tests that import its files."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from pathlib import Path

import lm_eval
import torch
from lm_eval.loggers import EvaluationTracker
from models.tiny import make, saved

from compresslab.models.save import save

WORDS = ("fox", "lazy dog", "sun", "water", "hidden states", "layer", "loss", "quick brown")
ITEMS = 40


def make_data(folder: Path) -> None:
    """`sciq` as the hub has it, in a folder of that name, where lm-eval finds it without the hub."""
    (data := folder / "allenai" / "sciq").mkdir(parents=True)
    rows = [
        {
            "question": f"What passes through layer {number}?",
            "support": f"The {WORDS[number % 8]} changes the {WORDS[(number + 3) % 8]}.",
            "correct_answer": WORDS[(5 * number) % 8],
            **{f"distractor{k}": WORDS[(5 * number + k) % 8] for k in (1, 2, 3)},
        }
        for number in range(ITEMS)
    ]
    for split in ("train", "validation", "test"):
        (data / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def make_models(folder: Path) -> None:
    """Two models: `parent`, and `child` with noise on its layers."""
    saved(folder / "parent", dtype=torch.float32)
    child = make(dtype=torch.float32)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in child.model.named_parameters():
            if parameter.dim() > 1 and "layers" in name:
                parameter.add_(0.03 * torch.randn_like(parameter))
    save(child, folder / "child")


def evaluate(model: Path, out: Path, *, limit: int | None = None, shots: int | None = None) -> list[Path]:
    """Evaluate a model with lm-eval, which writes results and samples as its command line does; the files that it wrote."""
    before = set(out.rglob("*.json*"))
    tracker = EvaluationTracker(output_path=str(out))
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with contextlib.redirect_stderr(io.StringIO()):
        results = lm_eval.simple_evaluate(
            model="hf",
            model_args={"pretrained": str(model), "dtype": "float32"},
            tasks=["sciq"],
            num_fewshot=shots,
            limit=limit,
            batch_size=16,
            device="cpu",
            evaluation_tracker=tracker,
            log_samples=True,
        )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in results["configs"]:
        tracker.save_results_samples(task_name=task, samples=samples[task])
    return sorted(set(out.rglob("*.json*")) - before)
