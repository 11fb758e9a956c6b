"""A killed training step resumes, and its result is byte-equal to that of an uninterrupted one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models.tiny import THIRD_PARTY_WARNINGS, make, text
from safetensors.torch import load_file

from compresslab.methods.distill import Distill
from compresslab.methods.retrain import RetrainFull, RetrainLoRA
from compresslab.methods.settings import Optimizer, StepConfig
from compresslab.models.calibration.stored_logits import store_logits
from compresslab.models.text import TokenSequences
from compresslab.steps.contract import Context, Saved, run, silent
from compresslab.steps.training import checkpoints

pytestmark = [pytest.mark.slow, *(pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS)]

BATCH = Optimizer(learning_rate=3e-3, weight_decay=0.1, batch_tokens=256, micro_batch_tokens=128)
COMMON: dict[str, Any] = {"tokens": 2048, "optimizer": BATCH}
CASES: dict[str, tuple[str, StepConfig]] = {
    "forward-kl": ("distill", Distill(**COMMON)),
    "jsd-mixed": ("distill", Distill(**COMMON, method="jsd", cross_entropy=0.3)),
    "hidden": ("distill", Distill(**COMMON, hidden=1.0)),
    "on-policy": ("distill", Distill(**COMMON, on_policy=0.6, prompt=8)),
    "stored": ("distill", Distill(**COMMON, top_k=8)),
    "full": ("retrain", RetrainFull(method="full", **COMMON)),
    "8-bit-states": ("retrain", RetrainFull(method="full", tokens=2048, optimizer=BATCH.model_copy(update={"state_bits": 8}))),
    "until": ("retrain", RetrainFull(method="full", until="base", **COMMON)),
    "lora": ("retrain", RetrainLoRA(method="lora", rank=4, dropout=0.2, **COMMON)),
    "qlora": ("retrain", RetrainLoRA(method="qlora", rank=4, dropout=0.2, **COMMON)),
}


class Stopped(Exception):
    """Raised in the middle of a run."""


@pytest.fixture(autouse=True)
def _after_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)


def train(case: str, folder: Path, state: Path | None, progress: Callable[[float, str], None] = silent) -> Saved:
    kind, config = CASES[case]
    shared = None
    if case == "stored":
        shared = folder.parent / "shared"
        if not shared.exists():
            store_logits(make(seed=1), text(64, 32), 8, shared, silent)
    other = None if shared is not None else make(seed=1)
    if case == "until":  # a goal that the run does not reach before its last step
        other = run("retrain", CASES["full"][1], make(), Context(text(64, 32)), folder.parent / "goal").loaded
    context = Context(text(64, 32), other, progress, shared, state)
    return run(kind, config, make(), context, folder)


def stopping(at: float, error: type[BaseException] = Stopped) -> Callable[[float, str], None]:
    def progress(share: float, what: str, _: object = None) -> None:
        if share >= at and what.startswith("loss"):
            raise error

    return progress


def same(first: Path, second: Path) -> bool:
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (first, second))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_was_stopped_twice_ends_byte_equal_to_one_that_was_not(tmp_path: Path, case: str):
    whole = train(case, tmp_path / "whole", None)
    told: list[str] = []
    for at in (0.25, 0.6):
        with pytest.raises(Stopped):
            train(case, tmp_path / "stopped", tmp_path / "state", stopping(at))
        assert [path.name for path in (tmp_path / "state").iterdir()] == ["training.safetensors"]
    resumed = train(case, tmp_path / "resumed", tmp_path / "state", lambda _, what, *_more: told.append(what))
    assert [line for line in told if line.startswith("going on from step ")] != []
    assert sum(line.startswith("loss ") for line in told) < whole.record.details["steps"] - 3
    assert same(tmp_path / "whole", tmp_path / "resumed")
    assert resumed.record == whole.record
    assert [file.name for file in (tmp_path / "state").iterdir()] == ["training.safetensors"], (
        "kept until the result is safe, which others know"
    )


def test_an_interrupt_is_a_reason_to_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoints, "EVERY", 1e9)
    with pytest.raises(Stopped):
        train("full", tmp_path / "stopped", tmp_path / "state", stopping(0.5))
    assert not (tmp_path / "state").exists()
    with pytest.raises(KeyboardInterrupt):
        train("full", tmp_path / "stopped", tmp_path / "state", stopping(0.5, KeyboardInterrupt))
    train("full", tmp_path / "resumed", tmp_path / "state")
    train("full", tmp_path / "whole", None)
    assert same(tmp_path / "whole", tmp_path / "resumed")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_in_the_middle_of_an_update_waits_for_its_end(signum: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole = train("full", tmp_path / "whole", None)
    before = signal.signal(signum, signal.default_int_handler)  # a shell that runs the tests in the background has it ignored
    update = torch.optim.AdamW.step
    seen: list[int] = []

    def interrupted(self: torch.optim.AdamW) -> None:
        seen.append(1)
        if len(seen) == 3:
            os.kill(os.getpid(), signum)
        update(self)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(torch.optim.AdamW, "step", interrupted)
            with pytest.raises(KeyboardInterrupt):
                train("full", tmp_path / "stopped", tmp_path / "state")
        assert signal.getsignal(signum) is signal.default_int_handler
    finally:
        signal.signal(signum, before)
    assert len(seen) == 3
    told: list[str] = []
    resumed = train("full", tmp_path / "resumed", tmp_path / "state", lambda _, what, *_more: told.append(what))
    assert any(line.startswith("going on from step 3 of ") for line in told)
    assert same(tmp_path / "whole", tmp_path / "resumed")
    assert resumed.record == whole.record


def damaged_by_truncation(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def damaged_by_garbage(file: Path) -> None:
    file.write_bytes(b"not a checkpoint")


@pytest.mark.parametrize("damage", [damaged_by_truncation, damaged_by_garbage])
def test_a_damaged_checkpoint_is_told_and_ignored(tmp_path: Path, damage: Callable[[Path], None]):
    with pytest.raises(Stopped):
        train("full", tmp_path / "stopped", tmp_path / "state", stopping(0.5))
    damage(tmp_path / "state" / "training.safetensors")
    told: list[str] = []
    train("full", tmp_path / "again", tmp_path / "state", lambda _, what, *_more: told.append(what))
    assert any("the checkpoint is damaged" in line for line in told)
    train("full", tmp_path / "whole", None)
    assert same(tmp_path / "whole", tmp_path / "again")


def other_text() -> tuple[StepConfig, TokenSequences, int]:
    words = text(64, 32)
    words.ids[:, 0] += 1
    return CASES["full"][1], words, 0


@pytest.mark.parametrize(
    ("config", "words", "seed"),
    [
        (RetrainFull(method="full", **{**COMMON, "seed": 1}), text(64, 32), 0),
        (CASES["full"][1], text(40, 32), 0),
        (CASES["full"][1], text(64, 32), 7),
        other_text(),
    ],
    ids=["another setting", "another length", "another model", "another text"],
)
def test_a_checkpoint_of_another_run_is_not_gone_on_from(tmp_path: Path, config: StepConfig, words: TokenSequences, seed: int):
    with pytest.raises(Stopped):
        train("full", tmp_path / "stopped", tmp_path / "state", stopping(0.5))
    told: list[str] = []
    run(
        "retrain",
        config,
        make(seed=seed),
        Context(words, None, lambda _, what, *_more: told.append(what), None, tmp_path / "state"),
        tmp_path / "m",
    )
    assert told[0] == "the checkpoint is of another run; starting anew"


def test_a_disk_that_is_full_leaves_the_last_checkpoint_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    saves = []

    def failing(tensors: Any, path: Path, metadata: Any) -> None:
        saves.append(path)
        if len(saves) == 3:
            Path(path).write_bytes(b"half a check")
            raise OSError(28, "No space left on device")
        original(tensors, path, metadata)

    original = checkpoints.save_file
    monkeypatch.setattr(checkpoints, "save_file", failing)
    with pytest.raises(OSError, match="No space left"):
        train("full", tmp_path / "stopped", tmp_path / "state")
    told: list[str] = []
    train("full", tmp_path / "resumed", tmp_path / "state", lambda _, what, *_more: told.append(what))
    assert told[0] == "going on from step 2 of 8"
    train("full", tmp_path / "whole", None)
    assert same(tmp_path / "whole", tmp_path / "resumed")


SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from steps import test_checkpoints as here
here.checkpoints.EVERY = 0.0
def progress(share, what, _=None):
    print(what, flush=True)
    if share >= {at} and what.startswith("loss"):
        os.kill(os.getpid(), signal.SIGKILL)
here.train("hidden", Path({folder!r}), Path({state!r}), progress)
"""


def test_a_process_that_is_killed_goes_on_in_another_and_ends_byte_equal(tmp_path: Path):
    """This process is the other one."""
    script = SCRIPT.format(tests=str(Path(__file__).parents[1]), at=0.5, folder=str(tmp_path / "killed"), state=str(tmp_path / "state"))
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    told: list[str] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train("hidden", tmp_path / "resumed", tmp_path / "state", lambda _, what, *_more: told.append(what))
    train("hidden", tmp_path / "whole", tmp_path / "other")
    torch.set_num_threads(threads)
    assert told[0].startswith("going on from step 4 of 8")
    assert (tmp_path / "whole" / "model.safetensors").read_bytes() == (tmp_path / "resumed" / "model.safetensors").read_bytes()
