"""Checkpoints that several processes write together, and that any number of them reads (torch's distributed checkpoints)."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import Shard, zeros

from compresslab.files import atomic_write, make_folder
from compresslab.inputs import sha256_of
from compresslab.models.ranks import Ranks
from compresslab.steps.training.checkpoints import FILE, Checkpoints, TrainingState
from compresslab.steps.training.parallel import mesh, own_shard

# The folder of a checkpoint, with the number of its step, and the file in it that is written when all others are whole.
FOLDER, STATE = "shared-{}", "state.json"


class _Found(NamedTuple):
    """A checkpoint of several processes that was finished: its folder, and what its `STATE` says, which is empty if that is damaged."""

    folder: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """The number of finished optimizer steps; -1 if it is not known."""
        return int(self.state["step"]) if self.state else -1


class SharedCheckpoints:
    """The latest checkpoint of a run in a folder: one file of a single process (`Checkpoints`), or a folder with a file of each process.

    A run goes on from either with any number of processes.
    """

    def __init__(self, folder: Path | None, run: dict[str, Any], ranks: Ranks) -> None:
        self.folder, self.ranks = folder, ranks
        self._single = Checkpoints(folder, run)

    def due(self) -> bool:
        """Whether `checkpoints.EVERY` seconds have passed since the last checkpoint."""
        return self._single.due()

    def save(self, state: TrainingState) -> None:
        """Replace the checkpoint; the former one stays until the new one is whole. All processes call this.

        Raises:
            OSError: a process could not write its part.
        """
        if self.folder is None:
            return
        if self.ranks.size == 1:
            self._single.save(state)
            self._remove_folders()
            return
        target = self._new_folder(self.folder, state.step)
        try:
            save(dict(state.tensors), checkpoint_id=target)
        except CheckpointException as error:
            cause, _ = next(iter(error.failures.values()))
            raise cause from error
        own = {file.name: sha256_of(file) for file in target.glob(f"__{self.ranks.rank}_*")}
        digests: list[dict[str, str]] = [{} for _ in range(self.ranks.size)]
        distributed.all_gather_object(digests, own)
        if self.ranks.rank == 0:
            files = {name: digest for part in digests for name, digest in part.items()}
            files |= {".metadata": sha256_of(target / ".metadata")}
            content = {"run": self._single.run, "files": files, "step": state.step, "losses": state.losses, "checks": state.checks}
            atomic_write(target / STATE, json.dumps(content | {"digest": _digest(content)}))
            self._remove_folders(target)
            (self.folder / FILE).unlink(missing_ok=True)
        self._single.saved()

    def _new_folder(self, folder: Path, step: int) -> Path:
        """An empty folder for a checkpoint, beside the last one that was finished, which may be of the same step."""
        names = [""]
        if self.ranks.rank == 0:
            make_folder(folder)
            last = self._newest()
            self._remove_folders(last and last.folder)
            name = FOLDER.format(step)
            names = [name if last is None or last.folder.name != name else f"{name}-again"]
        distributed.broadcast_object_list(names)
        return folder / names[0]

    def load(self, report: Callable[[str], None]) -> TrainingState | None:
        """The saved state of this run, this process's shards of it if there are several. `None` if there is none that can be used; `report`
        gets the reason.
        """
        if self.folder is None:
            return None
        found = self._newest()
        single = self._single.load(report) if found is None or (self.folder / FILE).exists() else None
        if single is not None and (found is None or single.step >= found.step):
            return self._in_shards(single)
        return self._read(found, report) if found is not None else None

    def _in_shards(self, state: TrainingState) -> TrainingState:
        if self.ranks.size == 1:
            return state
        devices = mesh()
        tensors = {name: own_shard(tensor, devices) if _divided(name, tensor.dim()) else tensor for name, tensor in state.tensors.items()}
        return state._replace(tensors=tensors)

    def _newest(self) -> _Found | None:
        """The last checkpoint of several processes that was finished."""
        found = []
        for folder in self._folders():
            if not (folder / STATE).is_file():  # it was not finished
                continue
            try:
                content = json.loads((folder / STATE).read_text())
                digest = content.pop("digest")
                found.append(_Found(folder, content if digest == _digest(content) else {}))
            except (OSError, ValueError, AttributeError, KeyError, TypeError):
                found.append(_Found(folder, {}))
        return max(found, key=lambda one: one.step, default=None)

    def _read(self, found: _Found, report: Callable[[str], None]) -> TrainingState | None:
        state = found.state
        if state and state["run"] != self._single.run:
            report("the checkpoint is of another run; starting anew")
            return None
        if self.ranks.any(not (state and self._whole(found))):
            report("the checkpoint is damaged (other bytes than were written); starting anew")
            return None
        tensors = self._places(found.folder)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")  # one process needs none
            load(tensors, checkpoint_id=found.folder, no_dist=self.ranks.size == 1)
        return TrainingState(state["step"], state["losses"], [(step, loss) for step, loss in state["checks"]], tensors)

    def _whole(self, found: _Found) -> bool:
        """Whether this process's part of the files is as it was written."""
        try:
            files = list(found.state["files"].items())[self.ranks.rank :: self.ranks.size]
            return all(sha256_of(found.folder / name) == digest for name, digest in files)
        except OSError:
            return False

    def _places(self, folder: Path) -> dict[str, Tensor]:
        """Tensors of the sizes in a checkpoint, for its values."""
        stored = FileSystemReader(folder).read_metadata().state_dict_metadata
        places: dict[str, Tensor] = {}
        devices = mesh() if self.ranks.size > 1 else None
        for name, about in stored.items():
            assert isinstance(about, TensorStorageMetadata)
            if devices is not None and _divided(name, len(about.size)):
                places[name] = zeros(*about.size, dtype=about.properties.dtype, device_mesh=devices, placements=[Shard(0)])
            else:
                places[name] = torch.empty(about.size, dtype=about.properties.dtype)
        return places

    def _folders(self) -> list[Path]:
        return sorted(self.folder.glob(FOLDER.format("*"))) if self.folder is not None else []

    def _remove_folders(self, kept: Path | None = None) -> None:
        for folder in self._folders():
            if folder != kept:
                shutil.rmtree(folder, ignore_errors=True)


def _digest(content: dict[str, Any]) -> str:
    """SHA-256 of what `STATE` says."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _divided(name: str, dimensions: int) -> bool:
    """Whether a tensor of a training state is in shards: weights and moments are, numbers of steps and states of generators are not."""
    return dimensions > 0 and not name.startswith("random.")
