"""TensorBoard: event files beside the study's page, one folder a variant."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from compresslab.tracking.tracked import TrackedVariant

FOLDER = "tensorboard"


class Runs:
    """Writes `<page>/tensorboard/<variant>`; `tensorboard --logdir` of the reports shows all studies. Earlier files are replaced."""

    def __init__(self, page: Path) -> None:
        self._folder = page / FOLDER

    def log(self, variant: TrackedVariant) -> None:
        folder = self._folder / variant.name
        shutil.rmtree(folder, ignore_errors=True)
        with SummaryWriter(str(folder)) as writer:
            for name, curve in variant.curves.items():
                for step, value in curve:
                    writer.add_scalar(name, value, step)
            for name, value in variant.metrics.items():
                writer.add_scalar(name, value, 0)
            for heading, texts in (("params", variant.params), ("references", variant.references)):
                rows = "".join(f"| {name} | {str(value).replace('|', '&#124;')} |\n" for name, value in texts.items())
                writer.add_text(heading, f"| | |\n|---|---|\n{rows}", 0)
