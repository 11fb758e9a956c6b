"""Training in shards on one device, for `gpu.py`."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_models import Bench, Row, free

LENGTH = 512
TRAINED = ("retrain", "distill")


def ranks(bench: Bench) -> Iterator[Row]:
    """Training by one process, and by two in shards (FSDP2) where there are two devices: losses, tokens a second, memory of the first.

    The vendor's collectives refuse two processes on one device. There, one process trains in shards of its own.
    """
    from compresslab.runner.ranks.group import together

    several = bench.device.type == "cpu" or torch.accelerator.device_count() > 1
    for kind in TRAINED:
        losses: dict[int, list[float]] = {}
        for size in (1, 2) if several else (1,):
            told = bench.work / f"{kind}-{size}.json"
            with tempfile.TemporaryDirectory() as folder:
                work = partial(_train, bench, kind, size, told, Path(folder) / "out")
                together(size, work, lambda _: None, device=str(bench.device), threads=8, log=bench.work / "ranks.log")
            row = json.loads(told.read_text())
            losses[size] = row.pop("losses")
            yield {"step": kind, "processes": size, **row, "losses": [losses[size][0], losses[size][-1]]}
        if several:
            differences = [abs(one - two) for one, two in zip(losses[1], losses[2], strict=True)]
            yield {"step": kind, "largest difference of a loss": max(differences), "at the first step": differences[0]}
    yield from _one_sharded(bench)


def _train(bench: Bench, kind: str, size: int, told: Path, folder: Path, rank: int, _: Any) -> None:
    """What a process does: the step, as a node's worker does it. The first one writes what it saw."""
    from compresslab.models.load import load_folder, load_tokenizer
    from compresslab.models.text import sequences
    from compresslab.recipe.steps import Step
    from compresslab.steps.contract import Context, run

    # One process trains the model where it is. Shards go from the processor to the device.
    start = "cpu" if size > 1 else str(bench.device)
    micro = 256 if bench.small else 8192
    settings = {"tokens": 8 * 2 * micro, "optimizer": {"batch_tokens": 2 * micro, "micro_batch_tokens": micro}}
    step = Step.model_validate({kind: settings if kind == "distill" else {"method": "full", **settings}})
    length = 64 if bench.small else LENGTH
    text = sequences(str(bench.text), load_tokenizer(bench.large), 16 * micro // length, length, 0)
    student = load_folder(bench.large, device=start)
    other = load_folder(bench.large, torch.bfloat16, start) if kind == "distill" else None
    if other is not None:  # a student that is its teacher learns nothing
        for weight in student.model.parameters():
            weight.data.mul_(0.7)
    updates: list[float] = []

    def progress(_: float, what: str, __: object = None) -> None:
        if what.startswith("loss "):
            updates.append(time.perf_counter())

    began = time.perf_counter()
    context = Context(text, other, progress, compute=torch.bfloat16)
    saved = run(step.kind, step.config, student, context, folder)
    row: Row = {"seconds": time.perf_counter() - began, "losses": saved.record.details["loss"]}
    row["tokens/s"] = 2 * micro * (len(updates) - 2) / (updates[-1] - updates[1])
    if bench.device.type == "cuda":
        row["GB of this process"] = torch.cuda.max_memory_allocated() / 1e9
    if rank == 0:
        told.write_text(json.dumps(row))


def _loss(model: Any, ids: torch.Tensor) -> torch.Tensor:
    loss: torch.Tensor = model(input_ids=ids, labels=ids, use_cache=False).loss
    return loss


def _one_sharded(bench: Bench) -> Iterator[Row]:
    """Six steps with all weights in this process, then in shards of the one process by the device's own collectives."""
    from torch import distributed

    from compresslab.models.load import load_folder
    from compresslab.steps.training.parallel import Sharded, Whole

    kind = bench.device.type
    backend = "gloo" if kind == "cpu" else f"cpu:gloo,{kind}:{distributed.get_default_backend_for_device(kind)}"
    with tempfile.TemporaryDirectory() as folder:
        store = distributed.FileStore(f"{folder}/store", 1)
        distributed.init_process_group(backend, store=store, rank=0, world_size=1)
        drawn = torch.Generator(bench.device).manual_seed(0)
        ids = torch.randint(512, (4 if bench.small else 16, LENGTH), device=bench.device, generator=drawn)
        for name in ("whole", "sharded"):
            model = load_folder(bench.large, torch.float32, str(bench.device)).model.train()
            passes: Any = Sharded([model], torch.bfloat16) if name == "sharded" else Whole()
            # The same products: in shards FSDP2 gathers the weights in bfloat16, and autocast rounds them so.
            cast = torch.autocast(kind, torch.bfloat16, enabled=name == "whole")
            adam = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
            losses, times = [], []
            for _ in range(6):
                with cast:
                    loss = passes(partial(_loss, model, ids))
                loss.backward()
                adam.step()
                adam.zero_grad()
                losses.append(loss.item())
                times.append(time.perf_counter())
            row: Row = {"one process": name, "losses": losses, "tokens/s": ids.numel() * 4 / (times[-1] - times[1])}
            if kind == "cuda":
                row["GB"] = torch.cuda.max_memory_allocated(bench.device) / 1e9
            yield row
            model = passes = adam = loss = None
            free(bench.device)
        distributed.destroy_process_group()
