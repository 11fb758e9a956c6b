"""How far a training run has come, on disk, so that a killed one goes on where it was."""

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

from compresslab.files import atomic_write

# Seconds between two checkpoints, of 12 bytes a trained weight each.
EVERY = 120.0
FILE = "training.safetensors"
# Weights of each parameter that tell one model from another.
SAMPLED = 64


class TrainingState(NamedTuple):
    """The state between two optimizer steps.

    Attributes:
        step: optimizer steps done. losses: their losses. checks: (step, loss) on held-out text so far.
        tensors: masters, moments and states of random generators, by name.
    """

    step: int
    losses: list[float]
    checks: list[tuple[int, float]]
    tensors: dict[str, Tensor]


class Checkpoints:
    """One checkpoint in a folder, replaced as the run goes on. Without a folder it keeps nothing.

    The last one stays when the training is over: who keeps the step's result removes it, once that is safe.

    Args:
        run: what decides the course of the run; a checkpoint of another one is not gone on from.
    """

    def __init__(self, folder: Path | None, run: dict[str, Any]) -> None:
        self.folder, self.run = folder, json.dumps(run, sort_keys=True)
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to save."""
        return self.folder is not None and time.monotonic() - self._last >= EVERY

    def save(self, state: TrainingState) -> None:
        """Write the state beside the last one and put it into its place, so that there is always a whole one."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        told = json.dumps({"step": state.step, "losses": state.losses, "checks": state.checks})
        atomic_write(self.folder / FILE, lambda part: save_file(state.tensors, part, metadata={"run": self.run, "state": told}))
        self._last = time.monotonic()

    def load(self, tell: Callable[[str], None]) -> TrainingState | None:
        """The saved state of this very run; `None`, and a word on why, if what is there is damaged or another run's."""
        if self.folder is None or not (self.folder / FILE).exists():
            return None
        try:
            with safe_open(self.folder / FILE, "pt") as stored:
                about = stored.metadata() or {}
                if about.get("run") != self.run:
                    tell("the checkpoint is of another run; starting anew")
                    return None
                state = json.loads(about["state"])
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118, it is no dict
                return TrainingState(state["step"], state["losses"], [(step, loss) for step, loss in state["checks"]], tensors)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            tell(f"the checkpoint is damaged ({type(error).__name__}); starting anew")
            return None


def fingerprint(tensors: list[Tensor]) -> str:
    """A digest that tells sets of tensors apart: shapes, and some values of each."""
    digest = hashlib.sha256()
    for tensor in tensors:
        stride = max(1, tensor.numel() // SAMPLED)
        some = tensor.detach().flatten()[::stride].cpu().contiguous()
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode() + some.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
