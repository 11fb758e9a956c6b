"""What each kind of node does, from what the store holds to a staged result: one function a kind. Imported by workers alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from compresslab.evaluation.backends import load_lm
from compresslab.evaluation.harness import evaluate_model
from compresslab.evaluation.scores import write_items
from compresslab.evaluation.text_divergence import text_divergence
from compresslab.evaluation.timing.machine import measure_machine
from compresslab.evaluation.timing.measured import measure
from compresslab.evaluation.tree_lm import TreeLM
from compresslab.methods.adopt import Adopt
from compresslab.methods.depth import PruneDepth
from compresslab.methods.distill import Distill
from compresslab.methods.registry import method_of
from compresslab.models.calibration.removals import order_removals
from compresslab.models.calibration.statistics import gather
from compresslab.models.calibration.stored_logits import store_logits
from compresslab.models.computing import computing
from compresslab.models.counting.size import nonzero_of, shape_of, size_of
from compresslab.models.device import torch_dtype, visible_devices
from compresslab.models.formats.dequantize import countable, dequantized
from compresslab.models.formats.gguf_origin import origin_details
from compresslab.models.load import Loaded, check_finite, load, load_folder
from compresslab.models.own_code import run_own_code
from compresslab.models.progress import Amount
from compresslab.models.ranks import this_rank
from compresslab.models.save import save
from compresslab.models.streamed.check import Check, check_reload
from compresslab.models.streamed.digests import tensor_digests
from compresslab.models.streamed.open import open_by_layers
from compresslab.models.streamed.trial import Trial, as_saved, tried
from compresslab.models.text import calibration_tokens, training_tokens
from compresslab.models.vocabulary import check_readable
from compresslab.plan.graph import NodeKind
from compresslab.recipe.model_folder import files_of
from compresslab.recipe.source import Source, parse_source
from compresslab.records import Cost, ItemScores, Shape, Size, StepRecord, TaskScore
from compresslab.runner.messages import NodeJob, Progressed, ReloadJob, Scored
from compresslab.runner.provenance import now, peak_memory
from compresslab.steps.adopt import adopted, details_of
from compresslab.steps.contract import Context, run
from compresslab.steps.step_text import text_for
from compresslab.store.reference import refer
from compresslab.store.store import write_record

Send = Callable[[Progressed | Scored], None]


class Clock(NamedTuple):
    """When something began: on the clock that only goes forward, and as a date."""

    seconds: float
    date: str


class Made(NamedTuple):
    """A model that is saved: its record, its probe's logits, and the digests of its tensors by name."""

    record: StepRecord
    probe: Tensor
    tensors: dict[str, str]


class Reporter:
    """A `Progress` that sends what it hears."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def __call__(self, share: float, text: str, amount: Amount | None = None, /) -> None:
        """Send it."""
        self._send(Progressed(share, text, amount))


def make_model(job: NodeJob, send: Send) -> None:
    """The base, or one step applied to its parent's model."""
    progress = Reporter(send)
    made = _base(job, progress) if job.node.step is None else _adopt(job) or _step(job, progress)
    torch.save({"logits": made.probe, "tensors": made.tensors}, job.staged / "probe.pt")
    write_record(job.staged, made.record)


def _base(job: NodeJob, progress: Reporter) -> Made:
    base, folder = job.recipe.base, job.staged / "model"
    progress(0.0, f"loading {base.model}")
    config = base.model_dump(mode="json")
    if not base.trust_remote_code and (made := _referred(job, "base", base.model)) is not None:
        trial, size, shape = made
        record = StepRecord(kind="base", method="load", config=config, seed=0, size=size, shape=shape)
        return Made(record, trial.probe, trial.tensors)
    loaded = load(base.model, base.dtype, trust_remote_code=base.trust_remote_code, device=job.compute.device)
    # Before any forward pass, as after a step: kernels lay packed weights out anew at their first use.
    save(loaded, folder)
    tensors = tensor_digests(loaded.model)
    size = size_of(folder, nonzero_of(loaded.model if countable(folder) else dequantized(folder, loaded).model))
    record = StepRecord(
        kind="base", method="load", config=config, seed=0, size=size, shape=shape_of(folder, size), details=origin_details(base.model)
    )
    computing(loaded.model, torch_dtype(job.compute))
    return Made(record, check_finite(loaded, base.model), tensors)


def _referred(job: NodeJob, what: str, model: str) -> tuple[Trial, Size, Shape] | None:
    """Make the result refer to the folder of a model, if a copy would be the same; what the model is like, its size and its shape."""
    base, source = job.recipe.base, parse_source(model)
    if source.kind != "folder" or base.store_copy:
        return None
    folder = Path(source.name)
    files = files_of(folder)
    if not as_saved(folder, files, base.dtype):
        return None
    trial = tried(open_by_layers(folder, device=job.compute.device), torch_dtype(job.compute), what)
    refer(job.staged, folder, files)
    size = size_of(folder, trial.nonzero)
    return trial, size, shape_of(folder, size)


def _adopt(job: NodeJob) -> Made | None:
    """An adopted model of which the store keeps no copy; `None` for one of which it does, and for any other step."""
    assert job.node.step is not None
    kind, config = job.node.step
    referred = _referred(job, kind, config.model) if isinstance(config, Adopt) else None
    if referred is None:
        return None
    assert isinstance(config, Adopt)
    trial, size, shape = referred
    record = StepRecord(
        kind=kind,
        method=config.method_name,
        config=config.model_dump(mode="json"),
        seed=0,
        size=size,
        shape=shape,
        details=details_of(config),
    )
    return Made(record, trial.probe, trial.tensors)


def _step(job: NodeJob, progress: Reporter) -> Made:
    node, device = job.node, job.compute.device
    assert node.step is not None
    kind, config = node.step
    progress(0.0, "loading")
    entry = method_of(kind, config)
    compute = torch_dtype(job.compute.for_training() if entry.trains else job.compute)
    loaded = _start(job)
    text = text_for(entry, config, job.recipe.text, loaded)
    other = load_folder(job.models[node.other], compute, device) if node.other else None
    parent = None if entry.kind == "adopt" else job.models[node.needs[0]]
    context = Context(text, other, progress, job.gathered, job.checkpoints, compute, parent=parent)
    saved = run(kind, config, loaded, context, job.staged / "model")
    return Made(saved.record, saved.probe, saved.tensors)


def _start(job: NodeJob) -> Loaded:
    """What a step starts from: the adopted model, or its parent's."""
    assert job.node.step is not None
    config = job.node.step[1]
    if isinstance(config, Adopt):
        return adopted(config, job.recipe.base.dtype, job.compute.device)
    opened = open_by_layers if method_of(*job.node.step).layerwise else load_folder
    return opened(job.models[job.node.needs[0]], device=job.compute.device)


def gather_for_steps(job: NodeJob, send: Send) -> None:
    """What several steps read of one model."""
    node, text, progress, ranks = job.node, job.recipe.text, Reporter(send), this_rank()
    progress(0.0, "loading")
    opened = open_by_layers if node.gathers in ("activations", "grams") else load_folder
    loaded = opened(job.models[node.needs[0]], torch_dtype(job.compute), job.compute.device)
    if node.gathers == "logits":
        readers = [config for config in node.readers if isinstance(config, Distill)]
        longest = max(config.tokens for config in readers)
        tokens = training_tokens(text.training, loaded.tokenizer, min(longest, text.training.tokens))
        assert readers[0].top_k is not None
        check_readable(tokens, loaded, f"the text {text.training.source!r}")
        store_logits(loaded, tokens, readers[0].top_k, job.staged, progress, ranks)
        return
    calibration = calibration_tokens(text.calibration, loaded.tokenizer)
    check_readable(calibration, loaded, f"the text {text.calibration.source!r}")
    if node.gathers == "removals":
        pruning = [config for config in node.readers if isinstance(config, PruneDepth)]
        order_removals(loaded.model, calibration, pruning, job.staged, progress, ranks)
        return
    gather(loaded, calibration, job.staged, grams=node.gathers == "grams", progress=progress, ranks=ranks)


def evaluate(job: NodeJob, send: Send) -> None:
    """A variant's scores on the tasks that lack them; each task is staged as soon as it is answered."""
    config, ranks = job.recipe.evaluate, this_rank()
    model, journals, encodings = job.models[job.node.needs[0]], job.checkpoints, job.encodings
    lm, weights = load_lm(model, config, job.compute, journals=journals, encodings=encodings, ranks=ranks)
    names = [name for name in config.tasks if name in job.scores]
    if ranks.rank:
        assert isinstance(lm, TreeLM)
        for _ in names:
            lm.follow()
            ranks.gathered(peak_memory())
        return
    clock = Clock(time.perf_counter(), now())

    def done(score: TaskScore, items: ItemScores) -> None:
        if isinstance(lm, TreeLM):
            lm.dismiss()
        peak = sum(ranks.gathered(peak_memory()))
        folder = job.scores[score.task]
        write_items(folder / "items.parquet", items)
        write_record(folder, score)
        nonlocal clock
        write_record(folder, _cost_since(clock, peak, job), "cost.json")
        clock = Clock(time.perf_counter(), now())
        send(Scored(score.task))

    evaluate_model(lm, names, config, weights=weights, trust_code=job.trust_code, done=done, progress=Reporter(send))


def _cost_since(clock: Clock, peak: int, job: NodeJob) -> Cost:
    seconds, device = time.perf_counter() - clock.seconds, job.compute.device
    devices = visible_devices() if job.recipe.evaluate.backend == "vllm" else job.node.devices
    return Cost(seconds=seconds, peak_memory_bytes=peak, started=clock.date, threads=job.threads, device=device, devices=devices)


def time_model(job: NodeJob, send: Send) -> None:
    """A variant's inference time, and its parent's in turn."""
    child, *parent = (job.models[key] for key in job.node.needs)
    workload = job.recipe.density.workload
    write_record(job.staged, measure(child, parent[0] if parent else None, workload, job.machine, job.compute, Reporter(send)))


def compare_with_parent(job: NodeJob, send: Send) -> None:
    """How far a variant is from its parent on the recipe's text."""
    child, parent = (job.models[key] for key in job.node.needs)
    text = job.recipe.evaluate.fidelity
    assert text is not None
    write_record(job.staged, text_divergence(child, parent, text, job.compute, Reporter(send), job.node.top_ks))


def time_machine(job: NodeJob, _: Send) -> None:
    """What this machine reaches."""
    write_record(job.staged, measure_machine(job.compute))


def reload(job: ReloadJob) -> Check:
    """What plain transformers makes of a saved folder, against the model that was saved."""
    if job.own_code:
        run_own_code(Source("folder", str(job.folder)))
    expected = torch.load(job.probe, weights_only=True)
    return check_reload(job.folder, expected["logits"], expected["tensors"], job.compute)


def perform(job: NodeJob, send: Send) -> None:
    """Make a node. If the recipe trusts the code of its base, this process knows the base's classes."""
    base = job.recipe.base
    if base.trust_remote_code:
        run_own_code(parse_source(base.model))
    NODES[job.node.kind](job, send)


NODES: dict[NodeKind, Callable[[NodeJob, Send], None]] = {
    "model": make_model,
    "gather": gather_for_steps,
    "evaluate": evaluate,
    "measure": time_model,
    "fidelity": compare_with_parent,
    "machine": time_machine,
}
