"""Checkpoints that several processes write together: the last one stays until the next is whole, and a changed one is told."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from models.tiny import THIRD_PARTY_WARNINGS
from runner.test_ranks import deaf

from compresslab.models.ranks import Ranks, this_rank
from compresslab.runner.ranks.group import RankFailed, together
from compresslab.runner.ranks.member import Send
from compresslab.steps.training import shared_checkpoints
from compresslab.steps.training.checkpoints import TrainingState
from compresslab.steps.training.shared_checkpoints import SharedCheckpoints

pytestmark = [pytest.mark.slow, *(pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS)]

STATE = TrainingState(3, [2.0, 1.5, 1.25], [], {"master.0": torch.arange(6.0), "adam.0.step": torch.tensor(3.0)})


def save_and_die(folder: Path, _: int, __: Send) -> None:
    """Save a checkpoint, and be killed while the same step is saved once more."""
    kept = SharedCheckpoints(folder, {"config": ""}, this_rank())
    kept.save(STATE)
    shared_checkpoints.save = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    kept.save(STATE)


def save_twice(folder: Path, _: int, __: Send) -> None:
    """Save the same step twice."""
    for _ in range(2):
        SharedCheckpoints(folder, {"config": ""}, this_rank()).save(STATE)


def read_back(folder: Path) -> tuple[TrainingState | None, list[str]]:
    """The checkpoint of a folder, and what is reported."""
    told: list[str] = []
    return SharedCheckpoints(folder, {"config": ""}, Ranks()).load(told.append), told


def test_a_checkpoint_stays_until_that_of_the_same_step_is_whole(tmp_path: Path):
    with pytest.raises(RankFailed, match="was killed by SIGKILL"):
        together(2, partial(save_and_die, tmp_path / "state"), deaf, device="cpu", threads=2, log=tmp_path / "log")
    found, told = read_back(tmp_path / "state")
    assert not told
    assert found is not None
    assert found[:3] == STATE[:3]
    assert torch.equal(found.tensors["master.0"], STATE.tensors["master.0"])


def test_a_checkpoint_replaces_that_of_the_same_step(tmp_path: Path):
    together(2, partial(save_twice, tmp_path), deaf, device="cpu", threads=2, log=tmp_path / "log")
    assert len(list(tmp_path.glob("shared-*"))) == 1
    assert read_back(tmp_path)[0] is not None


@pytest.mark.parametrize("change", [lambda text: text.replace("1.5", "1.6"), lambda text: text[:-1], lambda _: "[]"])
def test_a_changed_state_of_a_shared_checkpoint_is_told_and_ignored(tmp_path: Path, change: Callable[[str], str]):
    together(2, partial(save_twice, tmp_path), deaf, device="cpu", threads=2, log=tmp_path / "log")
    file = next(tmp_path.glob("shared-*/state.json"))
    file.write_text(change(file.read_text()))
    found, told = read_back(tmp_path)
    assert found is None
    assert told == ["the checkpoint is damaged (other bytes than were written); starting anew"]
