"""What the benchmarks share: SmolLM2 as a folder, the texts, perplexity, and processes whose time and memory are taken."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from compresslab.runner.server_process import ENVIRONMENT

HERE = Path(__file__).parent
SHARED = HERE.parent.parent / "shared" / "data"
CALIBRATION = SHARED / "corpora" / "wikitext2_paragraphs" / "train.jsonl"
EVALUATION = SHARED / "hub" / "EleutherAI" / "wikitext_document_level" / "test.jsonl"


class RunResult(NamedTuple):
    """A finished process: seconds of its parts as it told them, its wall time and its peak resident set in bytes."""

    parts: dict[str, float]
    wall: float
    memory: int


def base_folder(folder: Path, model: str = "offline:smollm2-135m-instruct") -> Path:
    """The model in bfloat16, saved once into `folder`."""
    from compresslab.models.load import load
    from compresslab.models.save import save

    if not (folder / "config.json").exists():
        save(load(model, "bfloat16"), folder)
    return folder


def tokens(tokenizer: Any, path: Path, samples: int, length: int) -> list[list[int]]:
    """The first `samples` x `length` tokens of a .jsonl file with one text (`text` or `page`) a line."""
    ids: list[int] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        ids += tokenizer(row.get("text") or row["page"], add_special_tokens=False, verbose=False)["input_ids"]
        if len(ids) >= samples * length:
            return [ids[at * length : (at + 1) * length] for at in range(samples)]
    raise SystemExit(f"{path} has fewer than {samples} x {length} tokens")


@torch.no_grad()
def perplexity(folder: Path, ids: list[list[int]]) -> float:
    """exp of the mean loss of the tokens after each sequence's first, with the dequantized weights in bfloat16."""
    from compresslab.models.formats.dequantize import load_for_scoring

    model = load_for_scoring(folder, torch.bfloat16)[0].model
    total, count = 0.0, 0
    for start in range(0, len(ids), 4):
        batch = torch.tensor(ids[start : start + 4])
        logits = model(input_ids=batch, use_cache=False).logits[:, :-1].float()
        total += torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum").item()
        count += batch[:, 1:].numel()
    return math.exp(total / count)


def run(python: Path | str, script: Path, settings: dict[str, Any], *, ours: bool | None = None) -> RunResult:
    """Run a script on a JSON file of settings; it prints a line `RESULT {"part": seconds}`.

    Ours (by default: what our Python runs) runs in the environment of our workers.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "settings.json"
        file.write_text(json.dumps(settings))
        log = Path(scratch) / "log"
        began = time.perf_counter()
        with log.open("w") as stream:
            environment = os.environ | ENVIRONMENT if (python == OURS if ours is None else ours) else None
            command = [str(python), str(script), str(file)]
            process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
            memory = 0
            while process.poll() is None:
                memory = max(memory, peak(process.pid))
                time.sleep(0.1)
        wall = time.perf_counter() - began
        said = log.read_text(errors="replace")
    if process.returncode:
        raise SystemExit(f"{script.name} failed:\n{said[-3000:]}")
    parts = json.loads(said.split("RESULT", 1)[1].splitlines()[0])
    return RunResult(parts, wall, memory)


def peak(pid: int) -> int:
    """Peak resident set of a running process in bytes. What the system tells of a dead one counts its parent's from before the exec."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(found[0]) * 1024 if found else 0


def table(rows: list[dict[str, Any]]) -> None:
    """Print rows of equal keys."""
    import pandas as pd

    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda value: f"{value:.3g}"), flush=True)


OURS = sys.executable
