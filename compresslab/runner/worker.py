"""What a worker process does: one node, from what the store holds to a staged result."""

from __future__ import annotations

import errno
import os
import resource
import sys
import time
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from compresslab.errors import BadInput, CompresslabError
from compresslab.models.progress import Amount, Progress
from compresslab.plan.graph import Node
from compresslab.recipe.schema import Recipe
from compresslab.records import Cost, StepRecord
from compresslab.records.compute import Compute
from compresslab.runner.sessions import lead

# Variables by which libraries round float32 products to fewer bits: a record that says float32 would not be true.
LOWERS_PRECISION = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "NVIDIA_TF32_OVERRIDE")


class NodeJob(NamedTuple):
    """One node's work.

    Attributes:
        staged: folder to write the result into. log: file that takes what the libraries print.
        models: model folders of the nodes that it needs, by key.
        scores: for evaluate nodes, where each task's finished scores are to be put, by task (a folder each, staged).
        gathered: folder of the gather node that the step reads. checkpoints: where a training step or an evaluation keeps how far it
            has come. encodings: where a study keeps its tasks' token ids. machine: its name. compute: what is multiplied in, and on what.
    """

    node: Node
    recipe: Recipe
    staged: Path
    log: Path
    models: dict[str, Path]
    scores: dict[str, Path]
    gathered: Path | None
    checkpoints: Path
    encodings: Path
    machine: str
    threads: int
    compute: Compute


class ReloadJob(NamedTuple):
    """The check after a model node, in a process of its own: does the saved folder give the logits it should?"""

    folder: Path
    probe: Path
    log: Path
    threads: int
    compute: Compute


class Clock(NamedTuple):
    """When something began: on the clock that only goes forward, and as a date."""

    seconds: float
    date: str


class Report(NamedTuple):
    """A message from a worker: ("progress", share, text, amount), ("scored", job), ("done", value), ("failed", message, exit code)."""

    kind: str
    values: tuple[Any, ...]


def work(job: NodeJob | ReloadJob, pipe: Connection) -> None:
    """Entry point of a worker process. Every outcome, an exception too, is sent through the pipe."""
    lead(pipe)
    _settle(job.log, job.threads)
    started = time.perf_counter()
    try:
        value = _reload(job) if isinstance(job, ReloadJob) else _run(job, pipe)
        pipe.send(Report("done", (value, time.perf_counter() - started, peak_memory(), job.compute.device)))
    except CompresslabError as error:
        pipe.send(Report("failed", (str(error), isinstance(error, BadInput))))
    except Exception as error:  # whatever a library raised: the parent must hear of it and go on with the rest
        traceback.print_exc()
        sys.stderr.flush()
        pipe.send(Report("failed", (explained(error, job.log, job.compute.device), False)))
    finally:
        pipe.close()


def explained(error: Exception, log: Path, device: str = "cpu") -> str:
    """One clear sentence for an exception of somebody else's code while something was computed on `device`."""
    text = " ".join(str(error).split())
    if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "No space left on device" in text:
        return f"no space is left on the disk of {log.parent.parent}; free some (`compresslab ls` tells what the store holds) and run again"
    if isinstance(error, MemoryError) or "not enough memory" in text or "out of memory" in text.lower():
        where = "" if device == "cpu" else f" on {device}"
        else_cpu = "" if device == "cpu" else ", and --device cpu has the machine's own memory"
        return (
            f"not enough memory{where}: {text[:200]}. A smaller batch, fewer tokens a micro-batch or a smaller model needs less{else_cpu}"
        )
    # What torch raises for an operation without a kernel there, and MPS for float64.
    if device != "cpu" and (isinstance(error, NotImplementedError) or (isinstance(error, TypeError) and "MPS" in text)):
        return f"{device} has no kernel for an operation of this node: {text[:200]}. Run it with --device cpu"
    if device != "cpu" and type(error).__name__ == "AcceleratorError":
        return (
            f"{device} failed while it computed: {text[:200]}. Look at its driver (`compresslab doctor`), then run again to go on from here"
        )
    return f"{type(error).__name__}: {text[:400]} (the traceback is in {log})"


def peak_memory() -> int:
    """Peak resident set of this process in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _settle(log: Path, threads: int) -> None:
    """Send what the libraries print to the log, and use all processors."""
    log.parent.mkdir(parents=True, exist_ok=True)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(target, stream)
    os.close(target)
    for name in LOWERS_PRECISION:
        os.environ.pop(name, None)
    warnings.simplefilter("default")
    import torch

    torch.set_num_threads(threads)


def _run(job: NodeJob, pipe: Connection) -> str | None:
    def progress(share: float, text: str, amount: Amount | None = None, /) -> None:
        pipe.send(Report("progress", (share, text, amount)))

    kind = job.node.kind
    if kind == "model":
        _make_model(job, progress)
    elif kind == "gather":
        _gather(job, progress)
    elif kind == "evaluate":
        _evaluate(job, pipe, progress)
    elif kind == "measure":
        _measure(job, progress)
    else:
        from compresslab.evaluation.timing.machine import measure_machine
        from compresslab.runner.store import write_record

        write_record(job.staged, measure_machine(job.compute))
    return None


def _make_model(job: NodeJob, progress: Progress) -> None:
    import torch

    from compresslab.methods.adopt import Adopt
    from compresslab.methods.registry import method_of
    from compresslab.models.device import torch_dtype
    from compresslab.models.load import load, load_folder
    from compresslab.models.text import calibration_tokens, training_tokens
    from compresslab.runner.store import write_record
    from compresslab.steps.adopt import adopted
    from compresslab.steps.contract import Context, run

    node, base = job.node, job.recipe.base
    folder = job.staged / "model"
    if node.step is None:
        progress(0.0, f"loading {base.model}")
        loaded = load(base.model, base.dtype, trust_remote_code=base.trust_remote_code, device=job.compute.device)
        record, probe, tensors = _save_base(loaded, job, folder)
    else:
        kind, config = node.step
        progress(0.0, "loading")
        entry = method_of(kind, config)
        device = job.compute.device
        compute = torch_dtype(job.compute.for_training() if entry.trains else job.compute)
        loaded = adopted(config, base.dtype, device) if isinstance(config, Adopt) else load_folder(job.models[node.needs[0]], device=device)
        text = None
        if entry.text == "calibration":
            text = calibration_tokens(job.recipe.text.calibration, loaded.tokenizer)
        elif entry.text == "training":
            text = training_tokens(job.recipe.text.training, loaded.tokenizer, config.training_tokens)
        other = load_folder(job.models[node.other], compute, device) if node.other else None
        saved = run(kind, config, loaded, Context(text, other, progress, job.gathered, job.checkpoints, compute), folder)
        record, probe, tensors = saved.record, saved.probe, saved.tensors
    torch.save({"logits": probe, "tensors": tensors}, job.staged / "probe.pt")
    write_record(job.staged, record)


def _gather(job: NodeJob, progress: Progress) -> None:
    """What several steps read of one model."""
    from compresslab.methods.depth import PruneDepth
    from compresslab.methods.distill import Distill
    from compresslab.models.device import torch_dtype
    from compresslab.models.load import load_folder
    from compresslab.models.text import calibration_tokens, training_tokens

    node, text = job.node, job.recipe.text
    progress(0.0, "loading")
    loaded = load_folder(job.models[node.needs[0]], torch_dtype(job.compute), job.compute.device)
    if node.gathers == "logits":
        from compresslab.models.calibration.stored_logits import store_logits

        readers = [config for config in node.readers if isinstance(config, Distill)]
        longest = max(config.tokens for config in readers)
        tokens = training_tokens(text.training, loaded.tokenizer, min(longest, text.training.tokens))
        assert readers[0].top_k is not None
        store_logits(loaded, tokens, readers[0].top_k, job.staged, progress)
        return
    calibration = calibration_tokens(text.calibration, loaded.tokenizer)
    if node.gathers == "removals":
        from compresslab.models.calibration.removals import order_removals

        order_removals(
            loaded.model, calibration, [config for config in node.readers if isinstance(config, PruneDepth)], job.staged, progress
        )
        return
    from compresslab.models.calibration.statistics import gather

    gather(loaded.model, calibration, job.staged, grams=node.gathers == "grams", progress=progress)


def _save_base(loaded: Any, job: NodeJob, folder: Path) -> tuple[StepRecord, Any, str]:
    from compresslab.models.computing import computing
    from compresslab.models.device import torch_dtype
    from compresslab.models.formats.dequantize import countable, dequantized
    from compresslab.models.formats.gguf_origin import origin_details
    from compresslab.models.load import check_finite
    from compresslab.models.save import save, tensors_digest
    from compresslab.models.size import shape_of, size_of

    base = job.recipe.base
    # Before any forward pass, as after a step: kernels lay packed weights out anew at their first use.
    save(loaded, folder)
    tensors = tensors_digest(loaded.model)
    size = size_of(folder, loaded.model if countable(folder) else dequantized(folder, loaded).model)
    config = base.model_dump(mode="json")
    record = StepRecord(
        kind="base", method="load", config=config, seed=0, size=size, shape=shape_of(folder, size), details=origin_details(base.model)
    )
    computing(loaded.model, torch_dtype(job.compute))
    return record, check_finite(loaded, base.model), tensors


def _reload(job: ReloadJob) -> float:
    import torch

    from compresslab.models.save import reload_difference

    expected = torch.load(job.probe, weights_only=True)
    return reload_difference(job.folder, expected["logits"], expected["tensors"], job.compute)


def _evaluate(job: NodeJob, pipe: Connection, progress: Progress) -> None:
    from compresslab.evaluation.backends import answering
    from compresslab.evaluation.harness import evaluate_model
    from compresslab.evaluation.scores import write_items
    from compresslab.records import ItemScores, TaskScore
    from compresslab.runner.provenance import now
    from compresslab.runner.store import write_record

    config = job.recipe.evaluate
    lm, weights = answering(job.models[job.node.needs[0]], config, job.compute, journals=job.checkpoints, encodings=job.encodings)
    clock = Clock(time.perf_counter(), now())

    def done(score: TaskScore, items: ItemScores) -> None:
        folder = job.scores[score.task]
        write_items(folder / "items.parquet", items)
        write_record(folder, score)
        nonlocal clock
        seconds = time.perf_counter() - clock.seconds
        cost = Cost(seconds=seconds, peak_memory_bytes=peak_memory(), started=clock.date, threads=job.threads, device=job.compute.device)
        write_record(folder, cost, "cost.json")
        clock = Clock(time.perf_counter(), now())
        pipe.send(Report("scored", (score.task,)))

    names = [name for name in config.tasks if name in job.scores]
    evaluate_model(lm, names, config, weights=weights, done=done, progress=progress)


def _measure(job: NodeJob, progress: Progress) -> None:
    from compresslab.evaluation.timing.measured import measure
    from compresslab.runner.store import write_record

    child, *parent = (job.models[key] for key in job.node.needs)
    workload = job.recipe.density.workload
    write_record(job.staged, measure(child, parent[0] if parent else None, workload, job.machine, job.compute, progress))
