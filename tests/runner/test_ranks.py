"""Training by several processes: the numbers of one, checkpoints for any number, half the memory each, one clear cause of an end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from models.tiny import THIRD_PARTY_WARNINGS, VOCABULARY, bounded_text, make, text
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaMLP

from compresslab.errors import BadInput
from compresslab.methods.distill import Distill
from compresslab.methods.retrain import RetrainFull, RetrainLoRA
from compresslab.methods.settings import Optimizer, StepConfig
from compresslab.models import chunks
from compresslab.models.calibration.stored_logits import store_logits
from compresslab.models.progress import silent
from compresslab.models.ranks import Ranks
from compresslab.runner.messages import Progressed, Scored
from compresslab.runner.ranks import group, member
from compresslab.runner.ranks.group import Hear, RankFailed, together
from compresslab.runner.ranks.member import Send
from compresslab.steps.contract import Context, run
from compresslab.steps.training import checkpoints, trainer
from compresslab.steps.training.parallel import refuse_random
from compresslab.steps.training.sparsity import mark_sparse

pytestmark = [pytest.mark.slow, *(pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS)]

# Nine sequences a batch in micro-batches of two: the last one is smaller, and their number divides by no number of processes but 5.
BATCH = Optimizer(learning_rate=3e-3, weight_decay=0.1, batch_tokens=288, micro_batch_tokens=64)
COMMON: dict[str, Any] = {"tokens": 2048, "optimizer": BATCH}
CASES: dict[str, tuple[str, StepConfig]] = {
    "forward-kl": ("distill", Distill(**COMMON)),
    "mixed": ("distill", Distill(**COMMON, method="jsd", cross_entropy=0.3)),
    "hidden": ("distill", Distill(**COMMON, hidden=1.0)),
    "stored": ("distill", Distill(**COMMON, top_k=8)),
    "full": ("retrain", RetrainFull(method="full", **COMMON)),
    "until": ("retrain", RetrainFull(method="full", until="base", **COMMON)),
    "lora": ("retrain", RetrainLoRA(method="lora", rank=4, **COMMON)),
}


def deaf(_: Progressed | Scored) -> None:
    """Hears nothing."""


def train(case: str, folder: Path, state: Path | None, settings: dict[str, Any], _: int, send: Send) -> None:
    """What each process does. `settings` are those of the models, and `compute`."""
    kind, config = CASES[case]
    settings = dict(settings)
    compute = settings.pop("compute", torch.float32)
    shared = folder.parent / "shared" if case == "stored" else None
    student = make(**settings)
    if case == "sparse":
        mark_sparse(student.model)
        for name, weight in student.model.named_parameters():
            if "proj" in name:
                weight.data[weight.abs() < 0.1] = 0.0
    words = bounded_text(64, 32) if case.startswith("bounded") else text(64, 32)
    context = Context(words, make(seed=1, dtype=settings["dtype"]), lambda *told: send(Progressed(*told)), shared, state, compute)
    saved = run(kind, config, student, context, folder)
    (folder / "record.json").write_text(saved.record.model_dump_json())


CASES["sparse"] = CASES["full"]
CASES |= {f"bounded-{case}": CASES[case] for case in ("mixed", "full")}


def trained(size: int, case: str, folder: Path, state: Path | None = None, hear: Hear = deaf, **settings: Any) -> dict[str, Any]:
    """The record of a step by so many processes, each of one thread."""
    work = partial(train, case, folder, state, {"dtype": torch.float32, **settings})
    together(size, work, hear, device="cpu", threads=size, log=folder.parent / "log")
    record: dict[str, Any] = json.loads((folder / "record.json").read_text())
    return record


def losses_of(record: dict[str, Any]) -> list[float]:
    return [*record["details"]["loss"], *(loss for _, loss in record["details"].get("held_out_loss", []))]


def furthest(first: Path, second: Path) -> float:
    """The largest difference of a weight of two models."""
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert ours.keys() == theirs.keys()
    return max(float((ours[name].float() - theirs[name].float()).abs().max()) for name in ours)


def zeros_in(folder: Path) -> int:
    return sum(int((weight == 0).sum()) for weight in load_file(folder / "model.safetensors").values())


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one_does(tmp_path: Path, case: str):
    if case == "stored":
        store_logits(make(seed=1, dtype=torch.float32), text(64, 32), 8, tmp_path / "shared", silent)
    one = trained(1, case, tmp_path / "one")
    two = trained(2, case, tmp_path / "two")
    assert losses_of(two) == pytest.approx(losses_of(one), abs=1e-5)
    assert two["tokens_seen"] == one["tokens_seen"]
    assert {key: value for key, value in two.items() if key not in ("details", "size")} == {
        key: value for key, value in one.items() if key not in ("details", "size")
    }, "neither the settings nor anything else tells the number of processes"
    assert furthest(tmp_path / "one", tmp_path / "two") < 1e-3
    assert zeros_in(tmp_path / "one") == zeros_in(tmp_path / "two")
    assert (zeros_in(tmp_path / "one") > 10_000) == (case == "sparse")
    assert sorted(file.name for file in (tmp_path / "one").iterdir()) == sorted(file.name for file in (tmp_path / "two").iterdir())


def test_two_processes_train_in_bfloat16_as_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # Several chunks of logits, whose gradients of the head are added up.
    monkeypatch.setattr(chunks, "LOGITS_A_CHUNK", 16 * VOCABULARY)
    wide = trained(1, "full", tmp_path / "wide")
    one, two = (trained(size, "full", tmp_path / str(size), compute=torch.bfloat16) for size in (1, 2))
    rounding = max(abs(ours - theirs) for ours, theirs in zip(losses_of(one), losses_of(wide), strict=True))
    assert rounding > 1e-4
    assert losses_of(two) == pytest.approx(losses_of(one), abs=rounding)
    assert losses_of(two) != pytest.approx(losses_of(wide), abs=1e-4), "they computed in float32"


@pytest.mark.parametrize("case", ["hidden", "lora"])
@pytest.mark.parametrize("size", [1, 2])
def test_activations_that_are_computed_again_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, size: int):
    calls, forward = list[None](), LlamaMLP.forward

    def counted(self: LlamaMLP, hidden: torch.Tensor) -> torch.Tensor:
        calls.append(None)
        return forward(self, hidden)

    def count(folder: Path, *given: Any) -> None:
        train(case, folder, None, {"dtype": torch.float32}, *given)
        (folder / "calls").write_text(str(len(calls)))

    monkeypatch.setattr(LlamaMLP, "forward", counted)
    kind, config = CASES[case]
    for name, again in (("kept", False), ("again", True)):
        monkeypatch.setitem(CASES, case, (kind, config.model_copy(update={"activation_checkpointing": again})))
        together(size, partial(count, tmp_path / name), deaf, device="cpu", threads=size, log=tmp_path / "log")
    kept, again = (json.loads((tmp_path / name / "record.json").read_text()) for name in ("kept", "again"))
    assert again == kept | {"config": again["config"]}
    assert furthest(tmp_path / "kept", tmp_path / "again") == 0
    passes = [int((tmp_path / name / "calls").read_text()) for name in ("kept", "again")]
    # Each micro-batch passes each of the four layers of the student once more. The first process has half of the micro-batches, or more.
    assert passes[1] - passes[0] >= len(kept["details"]["loss"]) * 5 // size * 4


@pytest.mark.parametrize("error", [RuntimeError("the dataset's server timed out"), RuntimeError("gloo is not a word of this text")])
def test_errors_of_other_libraries_are_no_lost_processes(error: RuntimeError):
    with pytest.raises(RuntimeError) as raised:
        raise error
    assert not member._lost_touch(raised.value)


@pytest.mark.parametrize("name", ["llama-tied", "qwen3-moe", "gpt-neox", "gemma2"])
def test_three_processes_train_any_architecture_as_one_does(tmp_path: Path, name: str):
    one, three = (trained(size, "forward-kl", tmp_path / str(size), name=name) for size in (1, 3))
    assert losses_of(three) == pytest.approx(losses_of(one), abs=1e-5)


class Stop:
    """Sends a signal to the processes of a group when the first one has come so far."""

    def __init__(self, at: float, end: Callable[[], None]) -> None:
        self.at, self.end, self.told = at, end, list[str]()

    def __call__(self, report: Progressed | Scored) -> None:
        assert isinstance(report, Progressed)
        self.told.append(report.text)
        if report.share >= self.at and report.text.startswith("loss"):
            self.at = 2.0
            self.end()


def interrupt() -> None:
    """As the server does it: the signal comes to the process that watches the others."""
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("case", ["forward-kl", "full", "hidden"])
def test_a_run_by_two_then_one_then_two_processes_ends_as_one_that_was_not_interrupted(tmp_path: Path, case: str):
    whole = trained(1, case, tmp_path / "whole")
    state = tmp_path / "state"
    for number, (size, at) in enumerate([(2, 0.2), (1, 0.5)]):
        with pytest.raises(KeyboardInterrupt):
            trained(size, case, tmp_path / f"stopped-{number}", state, Stop(at, interrupt))
        kept = [path.name for path in state.iterdir()]
        assert len(kept) == 1
        assert kept[0].startswith("shared-" if size == 2 else "training.")
    last = Stop(2.0, interrupt)
    resumed = trained(2, case, tmp_path / "resumed", state, last)
    assert int(next(line for line in last.told if line.startswith("going on from step ")).split()[4]) >= 3
    assert losses_of(resumed) == pytest.approx(losses_of(whole), abs=1e-5)
    assert furthest(tmp_path / "whole", tmp_path / "resumed") < 1e-3


def test_a_killed_run_goes_on_from_the_last_common_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    whole = trained(1, "full", tmp_path / "whole")
    with pytest.raises(RankFailed, match=r"process 1 of 2, of the node, was killed by SIGKILL"):
        trained(2, "full", tmp_path / "killed", tmp_path / "state", Stop(0.5, lambda: os.kill(child(1), signal.SIGKILL)))
    last = Stop(2.0, interrupt)
    resumed = trained(3, "full", tmp_path / "resumed", tmp_path / "state", last)
    assert any(line.startswith("going on from step ") for line in last.told)
    assert losses_of(resumed) == pytest.approx(losses_of(whole), abs=1e-5)


def test_a_signal_after_the_last_step_throws_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for module in (group, member):
        monkeypatch.setattr(module, "PATIENCE", 10)

    def interrupted(rank: int, send: Send) -> None:
        def told(report: Progressed | Scored) -> None:
            send(report)
            if rank == 1 and isinstance(report, Progressed) and report.share >= 1 and report.text.startswith("loss"):
                signal.raise_signal(signal.SIGINT)

        train("full", tmp_path / "made", tmp_path / "state", {"dtype": torch.float32}, rank, told)

    whole = trained(2, "full", tmp_path / "whole")
    together(2, interrupted, deaf, device="cpu", threads=2, log=tmp_path / "log")
    assert json.loads((tmp_path / "made" / "record.json").read_text()) == whole
    # The process that watches the others may end them before the model is saved.
    state = json.loads(next((tmp_path / "state").glob("shared-*/state.json")).read_text())
    assert state["step"] == len(whole["details"]["loss"])


def child(number: int) -> int:
    """The process id of a member of the group that this process watches."""
    import psutil

    # Forks of this process, and no other child that an earlier test has left.
    this = psutil.Process()
    return sorted(one.pid for one in this.children() if one.cmdline() == this.cmdline())[number]


def test_a_shared_checkpoint_that_was_damaged_is_told_and_ignored(tmp_path: Path):
    whole = trained(1, "full", tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(2, "full", tmp_path / "stopped", tmp_path / "state", Stop(0.5, interrupt))
    file = next((tmp_path / "state").glob("shared-*/__1_*"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    last = Stop(2.0, interrupt)
    again = trained(2, "full", tmp_path / "again", tmp_path / "state", last)
    assert any("the checkpoint is damaged" in line for line in last.told)
    assert losses_of(again) == pytest.approx(losses_of(whole), abs=1e-5)


def out_of_memory(rank: int, _: Send) -> None:
    if rank == 1:
        raise MemoryError("[enforce fail at alloc_cpu.cpp:117] not enough memory: you tried to allocate 9 bytes")
    torch.distributed.barrier()


def hang(rank: int, _: Send) -> None:
    if rank == 0:
        time.sleep(60)
    torch.distributed.barrier()


def wrong(_: int, __: Send) -> None:
    raise BadInput("the recipe is wrong")


@pytest.mark.parametrize(
    ("work", "message", "kind"),
    [
        (out_of_memory, r"process 1 of 2: not enough memory", "memory"),
        (hang, r"process 0 of 2 gave the others no answer within 2 s", "lost"),
        (wrong, r"^the recipe is wrong$", ""),
    ],
)
def test_an_end_names_the_process_and_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: Callable[[int, Send], None], message: str, kind: str
):
    for module in (group, member):
        monkeypatch.setattr(module, "PATIENCE", 2)
    monkeypatch.setattr(group, "TO_TELL", 1.0)
    began = time.monotonic()
    with pytest.raises(RankFailed, match=message) as caught:
        together(2, work, lambda _: None, device="cpu", threads=2, log=tmp_path / "log")
    assert caught.value.failed.kind == kind
    assert time.monotonic() - began < 30


def test_an_interruption_leaves_a_common_checkpoint_within_the_time_that_a_worker_has(tmp_path: Path):
    began: list[float] = []

    def stop() -> None:
        began.append(time.monotonic())
        interrupt()

    with pytest.raises(KeyboardInterrupt):
        trained(2, "full", tmp_path / "stopped", tmp_path / "state", Stop(0.3, stop))
    assert time.monotonic() - began[0] < 10
    state = json.loads(next((tmp_path / "state").glob("shared-*/state.json")).read_text())
    assert state["step"] == len(state["losses"]) >= 2


def measure(folder: Path, rank: int, _: Send) -> None:
    """Bytes of weights, gradients and moments that this process holds."""
    held: list[int] = []

    class Counting(torch.optim.AdamW):
        def step(self, _: None = None) -> None:  # type: ignore[override]
            super().step()
            tensors = [
                tensor for weight in self.param_groups[0]["params"] for tensor in (weight, weight.grad, *self.state[weight].values())
            ]
            held.append(sum(own(tensor).nbytes for tensor in tensors))

    trainer.torch.optim.AdamW = Counting  # type: ignore[misc, attr-defined]
    config = RetrainFull(method="full", **COMMON)
    try:
        run("retrain", config, make(dtype=torch.float32), Context(text(64, 32)), folder / "model")
    finally:
        (folder / f"held-{rank}").write_text(str(held[-1]))


def own(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def test_each_of_two_processes_holds_half_of_weights_gradients_and_moments(tmp_path: Path):
    held = {}
    for size in (1, 2):
        (tmp_path / str(size)).mkdir()
        together(size, partial(measure, tmp_path / str(size)), lambda _: None, device="cpu", threads=size, log=tmp_path / "log")
        held[size] = [int((tmp_path / str(size) / f"held-{rank}").read_text()) for rank in range(size)]
    assert held[2] == pytest.approx([held[1][0] / 2] * 2, rel=0.1)


def test_turns_give_each_unit_to_one_process_and_all_the_same_number():
    for size in (1, 2, 3, 8):
        for count in (1, 2, 7, 8):
            turns = [list(Ranks(rank, size).turns(count)) for rank in range(size)]
            assert len({len(mine) for mine in turns}) == 1
            assert sorted(number for mine in turns for number, counted in mine if counted) == list(range(count))
            assert all(number < count for mine in turns for number, _ in mine)


def test_a_model_with_dropout_is_refused_by_the_name_of_the_setting():
    with pytest.raises(BadInput, match=r"llama: its config has attention_dropout 0\.1, .* take devices: 1"):
        refuse_random(make(attention_dropout=0.1).model)
    refuse_random(make("gpt-neox").model)


@pytest.mark.parametrize(
    ("kind", "settings", "named"),
    [
        ("opt", {"dropout": 0.0, "layerdrop": 0.1}, r"layerdrop 0\.1"),
        ("mixtral", {"router_jitter_noise": 0.01}, r"router_jitter_noise 0\.01"),
        ("dbrx", {"ffn_config": {"moe_jitter_eps": 0.02}}, r"ffn_config\.moe_jitter_eps 0\.02"),
        ("gpt2", {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}, ""),  # its head for summaries has dropout, too
    ],
)
def test_a_model_that_draws_random_numbers_is_refused_by_the_name_of_the_setting(kind: str, settings: dict[str, Any], named: str):
    model = SimpleNamespace(config=AutoConfig.for_model(kind, **settings))
    with pytest.raises(BadInput, match=named) if named else contextlib.nullcontext():
        refuse_random(cast("PreTrainedModel", model))
