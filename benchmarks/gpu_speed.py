"""The speeds of `gpu.py`: evaluation against lm-eval's `hf`, each method's step, and inference against the model of time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from answer import requests
from evaluation import Answered, differ
from gpu_models import Bench, Row, free

CALIBRATION, LENGTH = 128, 512


def evaluation(bench: Bench) -> Iterator[Row]:
    """Ours and lm-eval's `hf` on the same requests in one process: seconds, and whether they answer alike."""
    from lm_eval.models.huggingface import HFLM

    from compresslab.evaluation.harness import quiet
    from compresslab.evaluation.tree_lm import TreeLM
    from compresslab.models.load import load_folder

    items = 12 if bench.small else 300
    for dtype in (torch.bfloat16, torch.float32):
        loaded = load_folder(bench.large, dtype, str(bench.device))
        for task in ("arc_easy", "csqa"):
            instances = requests({"tasks": [task], "shots": None, "items": items if dtype == torch.bfloat16 else items // 4})
            names = [f"{instance.task_name}/{instance.doc_id}" for instance in instances]
            found = {}
            with quiet(), torch.inference_mode():
                for name in ("ours", "hf 16", "hf 64"):
                    ours = TreeLM(loaded.model, loaded.tokenizer)
                    lm = ours if name == "ours" else HFLM(loaded.model, tokenizer=loaded.tokenizer, batch_size=int(name.split()[1]))
                    lm.loglikelihood(instances[:8])
                    began = time.perf_counter()
                    answers = lm.loglikelihood(instances)
                    found[name] = (time.perf_counter() - began, Answered(None, names, answers))  # type: ignore[arg-type]
            pairs = zip(found["ours"][1].answers, found["hf 16"][1].answers, strict=True)
            yield {
                "task": task,
                "dtype": str(dtype),
                "requests": len(instances),
                "seconds": {name: seconds for name, (seconds, _) in found.items()},
                "hf / ours": min(found["hf 16"][0], found["hf 64"][0]) / found["ours"][0],
                "largest": max(abs(a[0] - b[0]) for a, b in pairs),
                "differ": differ(found["ours"][1], found["hf 16"][1]),
                "hf differ": differ(found["hf 16"][1], found["hf 64"][1]),
            }
        yield {"dtype": str(dtype), **generation(loaded, 4 if bench.small else 32)}
        del loaded, lm, ours
        free(bench.device)


def generation(loaded: Any, prompts: int) -> Row:
    """Greedy answers of 32 tokens to prompts that share their examples."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from compresslab.evaluation.harness import quiet
    from compresslab.evaluation.olmes_requests import load
    from compresslab.evaluation.tree_lm import TreeLM

    settings = {"until": ["\n\n"], "max_gen_toks": 32}
    asked = [Instance("generate_until", {}, (item.requests[0][0], settings), 0, ("", 0, 1)) for item in load("arc_easy")[:prompts]]
    found = {}
    with quiet(), torch.inference_mode():
        for name, lm in {
            "ours": TreeLM(loaded.model, loaded.tokenizer),
            "hf": HFLM(loaded.model, tokenizer=loaded.tokenizer, batch_size=prompts),
        }.items():
            lm.generate_until(asked[:2])
            began = time.perf_counter()
            texts = lm.generate_until(asked)
            found[name] = (time.perf_counter() - began, texts)
    equal = sum(a == b for a, b in zip(found["ours"][1], found["hf"][1], strict=True)) / prompts
    return {"generation": prompts, "seconds": {name: seconds for name, (seconds, _) in found.items()}, "equal texts": equal}


def steps(bench: Bench) -> Iterator[Row]:
    """Each method on the large model: seconds with the pass over the calibration text, peak memory of the device, and the reload check."""
    from compresslab.models.load import load_tokenizer
    from compresslab.models.text import sequences
    from compresslab.plan.packages import missing_package
    from compresslab.recipe.steps import Step

    tokenizer = load_tokenizer(bench.large)
    calibration = sequences(str(bench.text), tokenizer, 4 if bench.small else CALIBRATION, LENGTH, 0)
    tokens, batch = (2048, 1024) if bench.small else (12 * 16384, 16384)
    training = sequences(str(bench.text), tokenizer, tokens // LENGTH, LENGTH, 0)
    optimizer = {"batch_tokens": batch, "micro_batch_tokens": batch}
    trained = {"tokens": tokens, "optimizer": optimizer}
    methods: dict[str, Row] = {
        "depth": {"prune": {"method": "depth", "keep": 0.5}},
        "width": {"prune": {"method": "width", "keep": 0.5}},
        "magnitude": {"prune": {"method": "magnitude", "sparsity": 0.5}},
        "wanda": {"prune": {"method": "wanda", "sparsity": 0.5}},
        "rtn": {"quantize": {"method": "rtn"}},
        "bnb-nf4": {"quantize": {"method": "bnb-nf4"}},
        "bnb-int8": {"quantize": {"method": "bnb-int8"}},
        "torchao-int8": {"quantize": {"method": "torchao-int8"}},
        "torchao-int4": {"quantize": {"method": "torchao-int4"}},
        "distill": {"distill": trained},
        "distill, micro-batches of 2,048": {"distill": {"tokens": tokens, "optimizer": {**optimizer, "micro_batch_tokens": 2048}}},
        "distill, stored logits": {"distill": {**trained, "top_k": 64}},
        "retrain": {"retrain": {"method": "full", **trained}},
        "lora": {"retrain": {"method": "lora", **trained}},
        "qlora": {"retrain": {"method": "qlora", **trained}},
        "awq": {"quantize": {"method": "awq"}},
        "sparsegpt": {"prune": {"method": "sparsegpt", "sparsity": 0.5}},
        "gptq": {"quantize": {"method": "gptq"}},
    }
    for name, settings in methods.items():
        step = Step.model_validate(settings)
        if missing := missing_package(step):
            yield {"method": name, "missing": missing}
            continue
        start = bench.work / "depth" if step.kind == "distill" else bench.large
        try:
            yield {"method": name, **one_step(bench, step, start, bench.work / name.partition(",")[0], calibration, training)}
        except Exception as error:
            yield {"method": name, "failed": f"{type(error).__name__}: {error}"[:1500]}
        free(bench.device)


def one_step(bench: Bench, step: Any, start: Path, folder: Path, calibration: Any, training: Any) -> Row:
    """Run a step in this process, as a worker does."""
    from compresslab.models.device import backend_of, synchronize
    from compresslab.models.load import load_folder
    from compresslab.models.save import reload_difference
    from compresslab.records.compute import Compute
    from compresslab.steps.contract import Context, run

    trains = step.kind in ("distill", "retrain")
    loaded = load_folder(start, device=str(bench.device))
    other = load_folder(bench.large, torch.bfloat16, str(bench.device)) if step.kind == "distill" else None
    updates: list[float] = []

    def progress(_: float, what: str, __: object = None) -> None:
        if what.startswith("loss "):
            synchronize(bench.device)
            updates.append(time.perf_counter())

    context = Context(training if trains else calibration, other, progress, compute=torch.bfloat16)
    began = time.perf_counter()
    saved = run(step.kind, step.config, loaded, context, folder)
    synchronize(bench.device)
    row: Row = {"seconds": time.perf_counter() - began}
    if bench.device.type == "cuda":
        row["GB"] = torch.cuda.max_memory_allocated(bench.device) / 1e9
    if len(updates) > 2:
        row["tokens/s"] = step.config.optimizer.batch_tokens * (len(updates) - 2) / (updates[-1] - updates[1])
        row["losses"] = [saved.record.details["loss"][0], saved.record.details["loss"][-1]]
    probe, tensors = saved.probe, saved.tensors
    del saved, loaded, other, context
    free(bench.device)
    compute = Compute("bfloat16", str(bench.device), backend_of(bench.device))
    return {**row, "reload difference": reload_difference(folder, probe, tensors, compute)}


def inference(bench: Bench) -> Iterator[Row]:
    """Seconds of prefill and of a decoding step, over those of the model of time for the H100 and for this machine as measured."""
    from compresslab.catalog.hardware import Hardware, load_hardware
    from compresslab.density.time.inference_time import seconds
    from compresslab.evaluation.timing.machine import measure_machine
    from compresslab.evaluation.timing.measured import measure
    from compresslab.models.counting.size import nonzero_of, shape_of, size_of
    from compresslab.models.device import backend_of
    from compresslab.models.formats.dequantize import dequantized
    from compresslab.models.load import load_folder
    from compresslab.recipe.schema import Workload
    from compresslab.records.compute import Compute

    compute = Compute("bfloat16", str(bench.device), backend_of(bench.device))
    speed = measure_machine(compute)
    machine = Hardware(name="this machine", flops=speed.flops, bandwidth=speed.bandwidth, source="measured")
    yield {"flops": speed.flops, "bandwidth": speed.bandwidth}
    scale = 16 if bench.small else 1
    for folder in (bench.large, bench.work / "rtn", bench.work / "bnb-nf4", bench.work / "gptq", bench.work / "awq"):
        if not folder.exists():
            continue
        loaded = load_folder(folder, device=str(bench.device))
        size = size_of(folder, nonzero_of(dequantized(folder, loaded).model))
        shape = shape_of(folder, size)
        del loaded
        for batch, prompt in ((1, 512), (1, 4096), (16, 512)):
            workload = Workload(batch=batch, prompt=prompt // scale, decode=128)
            timing = measure(folder, None, workload, "", compute, lambda *_: None)
            decode = (timing.seconds - timing.prefill_seconds) / workload.decode
            row: Row = {"model": folder.name, "batch": batch, "prompt": workload.prompt}
            row |= {"prefill": timing.prefill_seconds, "decoding step": decode}
            for hardware in (load_hardware("h100-sxm"), machine):
                whole, less = (seconds(shape, size, hardware, workload.model_copy(update={"decode": n})) for n in (128, 127))
                first = seconds(shape, size, hardware, workload.model_copy(update={"decode": 1})) - (whole - less)
                row[hardware.name] = {
                    "prefill": timing.prefill_seconds / first,
                    "decoding step": decode / (whole - less),
                    "all": timing.seconds / whole,
                }
            yield row
            free(bench.device)
