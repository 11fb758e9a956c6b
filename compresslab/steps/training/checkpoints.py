"""Checkpoints of a training run, from which it resumes after it was killed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from compresslab.files import atomic_write, make_folder

# Seconds between two checkpoints. Each has 12 bytes per trained weight.
EVERY = 120.0
FILE = "training.safetensors"
# Number of weights of each parameter in a model's fingerprint.
SAMPLED = 64


class TrainingState(NamedTuple):
    """The state between two optimizer steps.

    Attributes:
        step: number of finished optimizer steps. losses: their losses. checks: (step, loss) on held-out text.
        tensors: master weights, moments and states of random generators, by name.
    """

    step: int
    losses: list[float]
    checks: list[tuple[int, float]]
    tensors: dict[str, Tensor]


class Checkpoints:
    """The latest checkpoint of a run in a folder. Without a folder none is written.

    The last one stays after the training. The runner removes it when the step's result is stored.

    Args:
        run: the settings and data that decide the run; a checkpoint with other ones is not used.
    """

    def __init__(self, folder: Path | None, run: dict[str, Any]) -> None:
        self.folder, self.run = folder, json.dumps(run, sort_keys=True)
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether `EVERY` seconds have passed since the last checkpoint."""
        return self.folder is not None and time.monotonic() - self._last >= EVERY

    def save(self, state: TrainingState) -> None:
        """Replace the checkpoint atomically."""
        if self.folder is None:
            return
        make_folder(self.folder)
        content = json.dumps({"step": state.step, "losses": state.losses, "checks": state.checks})
        metadata = {"run": self.run, "state": content, "digest": _digest(content, state.tensors)}
        atomic_write(self.folder / FILE, lambda part: save_file(state.tensors, part, metadata=metadata))
        self.saved()

    def saved(self) -> None:
        """Note that a checkpoint has been written."""
        self._last = time.monotonic()

    def load(self, report: Callable[[str], None]) -> TrainingState | None:
        """The saved state of this run. `None` if it is damaged, by every byte, or of another run; `report` gets the reason."""
        if self.folder is None or not (self.folder / FILE).exists():
            return None
        try:
            with safe_open(self.folder / FILE, "pt") as stored:
                metadata = stored.metadata() or {}
                if metadata.get("run") != self.run:
                    report("the checkpoint is of another run; starting anew")
                    return None
                state = json.loads(metadata["state"])
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118, it cannot be iterated
                if metadata["digest"] != _digest(metadata["state"], tensors):
                    raise ValueError("other values than were written")
                return TrainingState(state["step"], state["losses"], [(step, loss) for step, loss in state["checks"]], tensors)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            report(f"the checkpoint is damaged ({type(error).__name__}); starting anew")
            return None


def _digest(state: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 of all that a checkpoint holds. safetensors itself notices no changed value."""
    digest = hashlib.sha256(state.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fingerprint(tensors: list[Tensor]) -> str:
    """A digest of the shapes and of some values of each tensor."""
    digest = hashlib.sha256()
    for tensor in tensors:
        stride = max(1, tensor.numel() // SAMPLED)
        sample = tensor.detach().flatten()[::stride].cpu().contiguous()
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode() + sample.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
