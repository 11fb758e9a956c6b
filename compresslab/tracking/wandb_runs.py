"""Weights & Biases: a project a study, a run a variant. `WANDB_MODE=offline` writes to this machine alone.

The service of wandb may still write the file of the last run when `log` returns. The files are whole once the program has ended, or after
`wandb.teardown()`, which also ends runs of the caller and is therefore not called here.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import wandb

from compresslab.tracking.tracked import TrackedVariant


class Runs:
    """Writes runs whose ids follow from study and variant, so that running a study again goes on with them."""

    def __init__(self, page: Path) -> None:
        page.mkdir(parents=True, exist_ok=True)
        self._folder = page

    def log(self, variant: TrackedVariant) -> None:
        identity = hashlib.sha256(f"{variant.study}/{variant.name}".encode()).hexdigest()[:16]
        run = wandb.init(
            project=variant.study,
            name=variant.name,
            id=identity,
            resume="allow",
            config={**variant.params, **{f"reference/{name}": place for name, place in variant.references.items()}},
            dir=str(self._folder),
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, x_save_requirements=False, disable_git=True),
        )
        with run:
            for name, curve in variant.curves.items():
                run.define_metric(name, step_metric=f"{name}_step")
                for step, value in curve:
                    run.log({name: value, f"{name}_step": step})
            run.summary.update(variant.metrics)
