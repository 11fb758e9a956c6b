"""What an accelerator does: whether all of compresslab works on it, whether its answers are the processor's, how fast it is.

    python benchmarks/gpu.py [--device cuda] [--part study --part steps ...] [--small] [--work FOLDER] [--json FILE]

One command for a machine that is at hand for a quarter of an hour; `--part` takes less. It needs no hub: models have random weights in
the shape of TinyLlama (1.1 billion parameters; `--small`: a tiny one, for a try on a processor), and the text is that of the OLMES requests
in the cache. Parts run one after the other, and one that fails stops no other; each prints its rows as JSON, one a line. Where gptqmodel is
installed, its kernels are compiled at their first use, which takes minutes of all processors.

doctor: kernels, the probe, and seconds until a worker answers. study: a recipe run on the processor and on the device in two dtypes, and
the differences of its scores. evaluation: the tree engine and generation against lm-eval's `hf`. steps: seconds, peak memory and
the reload check of each method; tokens a second of training. time: measured seconds of inference against the model of time.
ranks: training in shards (FSDP2) on the one device.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from gpu_models import Bench, Row, free, prepare
from gpu_ranks import ranks
from gpu_speed import evaluation, inference, steps

RECIPE = """
study: gpu-{name}
question: Do a processor and an accelerator say the same?
base: {{model: {model}, dtype: bfloat16}}
compute: {dtype}
text:
  calibration: {{source: {text}, samples: 8, length: 64}}
  training: {{source: {text}, length: 64}}
variants:
  shallow: [{{prune: {{method: depth, keep: 2}}}}]
  narrow: [{{prune: {{method: width, keep: 0.5}}}}]
  sparse: [{{prune: {{method: wanda, sparsity: 0.5}}}}]
  healed: {{from: shallow, steps: [{{distill: {{tokens: 4096, optimizer: {{batch_tokens: 512, micro_batch_tokens: 256}}}}}}]}}
  rounded: {{from: healed, steps: [{{quantize: {{method: rtn, bits: 8, group_size: 32}}}}]}}
  nf4: [{{quantize: {{method: bnb-nf4}}}}]
{packed}evaluate: {{tasks: [openbookqa, csqa], items: 12}}
density: {{hardware: [h100-sxm, this-machine], measure: {measure}, workload: {{prompt: 16, decode: 4}}, resamples: 200}}
"""
PACKED = "  gptq: [{quantize: {method: gptq}}]\n  awq: [{quantize: {method: awq}}]\n"


def main() -> None:
    """Make the models, run the parts, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--part", action="append", choices=list(PARTS))
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    from compresslab.models.device import find_device

    work = given.work or Path(tempfile.mkdtemp(prefix="compresslab-gpu-"))
    bench = prepare(find_device(given.device), work, given.small)
    told: list[Row] = []
    for name in given.part or PARTS:
        began = time.perf_counter()
        try:
            for row in PARTS[name](bench):
                told.append({"part": name, **row})
                print(json.dumps(told[-1], default=str), flush=True)
        except Exception:
            traceback.print_exc(file=sys.stdout)
            told.append({"part": name, "failed": traceback.format_exc(limit=-1)})
        print(json.dumps({"part": name, "seconds": round(time.perf_counter() - began, 1)}), flush=True)
        if given.json:
            given.json.write_text(json.dumps(told, indent=1, default=str) + "\n")
        free(bench.device)


def doctor(bench: Bench) -> Iterator[Row]:
    """What `compresslab doctor` says, and the seconds of two workers of one fork server."""
    done = subprocess.run([sys.executable, "-m", "compresslab", "doctor", "--json"], capture_output=True, text=True, check=True)
    for found in json.loads(done.stdout):
        if found["what"].startswith(("kernel", "accelerator", "float", "bfloat", "lock")):
            yield found
    command = [sys.executable, "-m", "compresslab.models.probe", "1", str(bench.device)]
    yield {"probe": json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)}
    from compresslab.runner.processes import Worker

    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            began = time.perf_counter()
            with Worker(Path(folder) / "log") as worker:
                worker.start(import_module("gpu").multiply, str(bench.device))  # not that of `__main__`
                answer = worker.pipe.recv()
                worker.finish(5)
            yield {"worker": answer, "seconds": time.perf_counter() - began}


def multiply(device: str, pipe: Any) -> None:
    """A worker's work: a product on the device, or why it cannot be computed there."""
    try:
        pipe.send(float((torch.ones(64, 64, device=device) @ torch.ones(64, 64, device=device)).sum()))
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}"[:300])


def study(bench: Bench) -> Iterator[Row]:
    """The recipe on the processor in float32, and on the device in float32 and bfloat16, side by side.

    Differences of bits per byte are to the first. Times are of programs that ran at the same time.
    """
    from compresslab.plan.packages import missing_package
    from compresslab.recipe.steps import Step

    packed = "" if missing_package(Step.model_validate({"quantize": {"method": "gptq"}})) else PACKED
    runs = {"processor": ("cpu", "float32"), "float32": (str(bench.device), "float32"), "bfloat16": (str(bench.device), "bfloat16")}
    running = {}
    began = time.perf_counter()
    for name, (device, dtype) in runs.items():
        recipe = bench.work / f"{name}.yaml"
        settings = {"name": name, "dtype": dtype, "measure": str(name != "processor").lower()}
        recipe.write_text(RECIPE.format(**settings, model=bench.tiny, text=bench.text, packed=packed))
        command = [sys.executable, "-m", "compresslab", "run", str(recipe), "--device", device]
        command += ["--store", str(bench.work / "stores" / name), "--reports", str(bench.work / "reports")]
        with (bench.work / f"{name}.log").open("w") as log:
            running[name] = subprocess.Popen(command, stdout=log, stderr=log)
    base: dict[tuple[str, str], Row] = {}
    for name, process in running.items():
        code = process.wait()
        row: Row = {"run": name, "seconds": time.perf_counter() - began, "exit code": code}
        if code:
            row["said"] = (bench.work / f"{name}.log").read_text()[-3000:]
        yield row
        scores = scores_of(bench.work / "reports" / f"gpu-{name}")
        base = base or scores
        if name != "processor":
            bits = "bits_per_byte"
            yield {"run": name, "differences": [(*key, scores[key][bits] - base[key][bits]) for key in base if key in scores]}


def scores_of(folder: Path) -> dict[tuple[str, str], Row]:
    """The scores of a study's record by variant and task."""
    files = list(folder.rglob("study.json"))
    if not files:
        return {}
    variants = json.loads(files[0].read_text())["variants"]
    return {(variant["name"], score["task"]): score for variant in variants for score in variant["scores"]}


PARTS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "doctor": doctor,
    "study": study,
    "evaluation": evaluation,
    "steps": steps,
    "time": inference,
    "ranks": ranks,
}

if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    main()
