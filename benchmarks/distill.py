"""Speed of distillation: ours, ours on stored logits, a plain full-logit loop, and TRL's GKDTrainer, step by step in turn.

    python benchmarks/distill.py --peer-python /path/to/venv-with-trl/bin/python [--dtype float32] --json distill.json

Teacher: SmolLM2-135M-Instruct; student: its first 24 of 30 layers; forward KL; AdamW; 4 sequences of 512 tokens a step. Every contender
is a process of its own that does one step when it is told to and sleeps otherwise, so that all meet the same machine. Ratios are of
medians over the steps after the first two. Ours run in the environment that `compresslab run` gives its workers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compresslab.runner.server_process import ENVIRONMENT

LAYERS, SEQUENCES, LENGTH, TOP_K = 24, 4, 512, 64
WARM = 2
LEARNING_RATE = 1e-4
OURS, STORED, PLAIN, TRL = "ours", "ours on stored logits", "plain loop", "TRL GKDTrainer"


def main() -> None:
    """Prepare, run all contenders in turn, tell."""
    options = arguments()
    if options.contender:
        CONTENDERS[options.contender](Path(options.folder), options.steps, options.dtype)
        return
    with tempfile.TemporaryDirectory(prefix="compresslab-benchmark-") as scratch:
        prepare(Path(scratch), options.steps)
        times, work, losses = race(Path(scratch), options)
    told = summary(times, work, losses)
    for name, row in told["contenders"].items():
        ratios = f"{row['speed_of_plain']:5.2f} x the plain loop ({row['processor_time_of_plain']:.2f} by processor time)"
        print(f"{name:24} {row['tokens_per_second']:8.0f} tokens/s   {ratios}")
    if TRL in times:
        print(f"ours over TRL {told['ours_over_trl']:.2f}, ours on stored logits over TRL {told['stored_over_trl']:.2f}")
    print(f"loss curves of ours and of the plain loop: largest relative difference {told['largest_loss_difference']:.4f}")
    if options.json:
        Path(options.json).write_text(json.dumps(told, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"], help="what ours and the plain loop compute in")
    parser.add_argument("--peer-python", help="interpreter of an environment that has trl")
    parser.add_argument("--json", help="file to write the figures to")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


def prepare(scratch: Path, steps: int) -> None:
    """Save the teacher, the student and the text, and store the teacher's logits."""
    import torch

    from compresslab.models.calibration.stored_logits import store_logits
    from compresslab.models.load import Loaded, load
    from compresslab.models.save import save
    from compresslab.models.text import sequences
    from compresslab.steps.contract import silent

    teacher = load("offline:smollm2-135m-instruct")
    text = sequences("installed-docs", teacher.tokenizer, steps * SEQUENCES, LENGTH, 0)
    torch.save(text.ids, scratch / "ids.pt")
    save(teacher, scratch / "teacher")
    started = time.perf_counter()
    store_logits(teacher, text, TOP_K, scratch / "logits", silent)
    print(f"storing {TOP_K} logits a token: {text.ids.numel() / (time.perf_counter() - started):.0f} tokens/s, once for all students")
    teacher.model.model.layers = teacher.model.model.layers[:LAYERS]
    teacher.model.config.num_hidden_layers = LAYERS
    teacher.model.config.layer_types = None
    save(Loaded(teacher.model, teacher.tokenizer), scratch / "student")


def race(scratch: Path, options: argparse.Namespace) -> tuple[dict[str, list[float]], ...]:
    """Seconds, seconds of processor time, and losses of every step, by contender."""
    here = Path(__file__).resolve()
    own = [sys.executable, str(here), "--steps", str(options.steps), "--dtype", options.dtype, "--folder", str(scratch), "--contender"]
    commands = {OURS: [*own, OURS], STORED: [*own, STORED], PLAIN: [*own, PLAIN]}
    if options.peer_python:
        commands[TRL] = [options.peer_python, str(here.with_name("distill_trl.py")), str(scratch), str(options.steps), str(LEARNING_RATE)]
    running = {
        name: subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ENVIRONMENT if name in (OURS, STORED) else None,
        )
        for name, command in commands.items()
    }
    times: dict[str, list[float]] = {name: [] for name in running}
    work: dict[str, list[float]] = {name: [] for name in running}
    losses: dict[str, list[float]] = {name: [] for name in running}
    for process in running.values():
        answer(process, "ready")
    for step in range(options.steps):
        for name, process in running.items():
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            seconds, processor, loss = json.loads(answer(process, "step").removeprefix("step "))
            times[name].append(seconds)
            work[name].append(processor)
            losses[name].append(loss)
        print(f"step {step + 1}: " + ", ".join(f"{name} {times[name][-1]:.1f} s" for name in running), flush=True)
    for process in running.values():
        process.communicate()
    return times, work, losses


def answer(process: subprocess.Popen[str], kind: str) -> str:
    """The contender's next line of that kind; libraries print others."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(kind):
            return line
    raise RuntimeError(f"a contender ended with {process.wait()} before it said {kind!r}")


def summary(times: dict[str, list[float]], work: dict[str, list[float]], losses: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, ratios and the distance of the loss curves."""
    median = {name: statistics.median(seconds[WARM:]) for name, seconds in times.items()}
    worked = {name: statistics.median(seconds[WARM:]) for name, seconds in work.items()}
    ours, plain = losses[OURS], losses[PLAIN]
    told: dict[str, Any] = {
        "contenders": {
            name: {
                "tokens_per_second": SEQUENCES * LENGTH / seconds,
                "speed_of_plain": median[PLAIN] / seconds,
                "processor_time_of_plain": worked[PLAIN] / worked[name],
                "seconds": times[name],
                "processor_seconds": work[name],
            }
            for name, seconds in median.items()
        },
        "largest_loss_difference": max(abs(a - b) / b for a, b in zip(ours, plain, strict=True)),
        "losses": losses,
    }
    if TRL in median:
        told |= {"ours_over_trl": median[TRL] / median[OURS], "stored_over_trl": median[TRL] / median[STORED]}
    return told


class Steps:
    """A contender's side of the race."""

    def __init__(self) -> None:
        print("ready", flush=True)
        self._wait()

    def done(self, loss: float) -> None:
        """Tell a step's time and loss, and wait to be told to do the next."""
        spent = [time.perf_counter() - self._started, time.process_time() - self._worked]
        print("step " + json.dumps([*spent, loss]), flush=True)
        self._wait()

    def _wait(self) -> None:
        sys.stdin.readline()
        self._started, self._worked = time.perf_counter(), time.process_time()


def ours(folder: Path, _: int, dtype: str) -> None:
    """The product's own step, with a teacher that reads along."""
    _ours(folder, dtype, stored=False)


def ours_stored(folder: Path, _: int, dtype: str) -> None:
    """The product's own step on stored logits."""
    _ours(folder, dtype, stored=True)


def _ours(folder: Path, dtype: str, *, stored: bool) -> None:
    import torch

    from compresslab.methods.distill import Distill
    from compresslab.methods.settings import Optimizer
    from compresslab.models.load import load_folder
    from compresslab.models.text import TokenSequences
    from compresslab.steps import distill
    from compresslab.steps.contract import Context

    ids = torch.load(folder / "ids.pt")
    optimizer = Optimizer(
        learning_rate=LEARNING_RATE, warmup=0, decay=0, batch_tokens=SEQUENCES * LENGTH, micro_batch_tokens=SEQUENCES * LENGTH
    )
    config = Distill(tokens=ids.numel(), optimizer=optimizer, top_k=TOP_K if stored else None)
    steps: list[Steps] = []

    def progress(_: float, what: str, __: object = None) -> None:
        if what.startswith("loss"):
            steps[0].done(float(what.removeprefix("loss ")))

    student = load_folder(folder / "student")
    teacher = None if stored else load_folder(folder / "teacher", getattr(torch, dtype))
    shared = folder / "logits" if stored else None
    context = Context(TokenSequences(ids, ""), teacher, progress, shared, compute=getattr(torch, dtype))
    steps.append(Steps())
    distill.apply(student, config, context)


def plain_loop(folder: Path, count: int, dtype: str) -> None:
    """What anybody would write: whole logits, automatic differentiation, for bfloat16 autocast over float32 weights."""
    import torch
    from torch.nn import functional
    from transformers import AutoModelForCausalLM

    ids = torch.load(folder / "ids.pt")
    student = AutoModelForCausalLM.from_pretrained(folder / "student", dtype=torch.float32).train()
    teacher = AutoModelForCausalLM.from_pretrained(folder / "teacher", dtype=getattr(torch, dtype)).eval()
    adam = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    steps = Steps()
    for step in range(count):
        batch = ids[step * SEQUENCES : (step + 1) * SEQUENCES]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
            with torch.no_grad():
                target = functional.log_softmax(teacher(batch, use_cache=False).logits.float(), dim=-1)
            logits = functional.log_softmax(student(batch, use_cache=False).logits.float(), dim=-1)
            loss = functional.kl_div(logits.flatten(0, 1), target.flatten(0, 1), reduction="batchmean", log_target=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        steps.done(loss.item())


CONTENDERS: dict[str, Callable[[Path, int, str], None]] = {OURS: ours, STORED: ours_stored, PLAIN: plain_loop}

if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
