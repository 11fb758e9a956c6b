"""Run a study: every node of its plan that the store lacks, then densities and the report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from compresslab.errors import RunFailed
from compresslab.machine.processor import threads
from compresslab.plan.estimate import estimate
from compresslab.plan.graph import Node, Plan
from compresslab.records import Cost, Failure, StepRecord
from compresslab.runner import provenance
from compresslab.runner.processes import LARGEST_RELOAD_DIFFERENCE, Listener, WorkerResult, execute
from compresslab.runner.store import Store, write_record
from compresslab.runner.watcher import Watcher
from compresslab.runner.worker import NodeJob, ReloadJob


class RunResult(NamedTuple):
    """What running a plan came to: failures by node key, and how many nodes were there already."""

    failures: dict[str, Failure]
    cached: int
    seconds: float


def is_done(node: Node, store: Store) -> bool:
    """Whether the store holds a node's result; an evaluation is its tasks' scores."""
    if node.kind == "evaluate":
        return all(store.has(key) for key in node.tasks.values())
    return store.has(node.key)


def to_do(plan: Plan, store: Store) -> list[Node]:
    """The nodes that a run has to make. What several steps share is made only if one of those steps is still to be made."""
    lacking = [node for node in plan.nodes if not is_done(node, store)]
    wanted = {node.gathered for node in lacking}
    return [node for node in lacking if node.kind != "gather" or node.key in wanted]


def run(plan: Plan, store: Store, watcher: Watcher) -> RunResult:
    """Make every result that the store lacks. A node that fails takes those that need it with it, and nothing else.

    Raises:
        RunFailed: the disk has too little room for what is to be made.
        KeyboardInterrupt: with the store clean and everything finished kept.
    """
    began = time.perf_counter()
    store.sweep()
    todo = to_do(plan, store)
    check_disk(todo, plan, store)
    failures: dict[str, Failure] = {}
    for node in todo:
        lost = next((failures[key] for key in node.needs if key in failures), None)
        if lost is not None:
            failures[node.key] = Failure(node=node.label, cause=f"not run, because “{_root_cause(lost)}” failed")
            watcher.lost(node, failures[node.key].cause)
            continue
        listener = watcher.starting(node, estimate(node, plan).seconds)
        started = time.perf_counter()
        outcome = _make(node, plan, store, listener)
        if outcome.failure:
            failures[node.key] = Failure(node=node.label, cause=outcome.failure)
        watcher.ended(node, time.perf_counter() - started, outcome.failure)
    return RunResult(failures, len(plan.nodes) - len(todo), time.perf_counter() - began)


def _root_cause(failure: Failure) -> str:
    """The node at the start of a row of failures."""
    return failure.cause.split("“")[1].split("”")[0] if failure.cause.startswith("not run") else failure.node


def check_disk(todo: Sequence[Node], plan: Plan, store: Store) -> None:
    """Refuse a run that the disk cannot hold.

    Raises:
        RunFailed: saying how much is missing.
    """
    needed = sum(estimate(node, plan).disk or 0 for node in todo)
    place = next(folder for folder in (store.root.resolve(), *store.root.resolve().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise RunFailed(
            f"the disk of {store.root} has {free / 1e9:.1f} GB free and this study needs about {needed / 1e9:.1f} GB; "
            "free some, or put the store elsewhere with --store"
        )


def _make(node: Node, plan: Plan, store: Store, listener: Listener) -> WorkerResult:
    """Run one node in a worker and move its result into the store."""
    started = provenance.now()
    with ExitStack() as stack:
        staged = stack.enter_context(store.stage(node.key))
        missing = {task: key for task, key in node.tasks.items() if not store.has(key)}
        scores = {task: stack.enter_context(store.stage(key)) for task, key in missing.items()}
        job = NodeJob(
            node=node,
            recipe=plan.recipe,
            staged=staged,
            log=store.logs / f"{node.key}.log",
            models={key: store.model(key) for key in node.needs if key != node.gathered},
            scores=scores,
            gathered=store.folder(node.gathered) if node.gathered else None,
            checkpoints=store.checkpoints(node.key),
            encodings=store.encodings,
            machine=plan.machine,
            threads=threads(),
            compute=plan.compute,
        )
        outcome = execute(job, listener, lambda name: store.commit(missing[name], scores[name]))
        if node.kind == "evaluate" and not outcome.failure:
            shutil.rmtree(store.checkpoints(node.key), ignore_errors=True)
        if outcome.failure or node.kind == "evaluate":
            return outcome
        if node.kind == "model":
            outcome = _check_reload(staged, outcome, listener, job)
            if outcome.failure:
                return outcome
        write_record(staged, _cost(outcome, started, staged, node), "cost.json")
        store.commit(node.key, staged)
        shutil.rmtree(store.checkpoints(node.key), ignore_errors=True)
        return outcome


def _check_reload(staged: Path, outcome: WorkerResult, listener: Listener, job: NodeJob) -> WorkerResult:
    """Load the staged folder by plain transformers in a fresh process and compare logits; the record keeps the difference."""
    listener.progress(1.0, "reloading in a fresh process")
    probe = staged / "probe.pt"
    reloaded = execute(ReloadJob(staged / "model", probe, job.log, job.threads, job.compute), listener)
    if reloaded.failure:
        return reloaded
    assert reloaded.value is not None
    if not reloaded.value <= LARGEST_RELOAD_DIFFERENCE:
        return outcome._replace(
            failure="the saved folder gives other logits than the model that was saved "
            f"(largest difference {reloaded.value:.3g}); nothing was kept"
        )
    probe.unlink()
    record = StepRecord.model_validate_json((staged / "record.json").read_bytes())
    write_record(staged, record.model_copy(update={"reload_difference": reloaded.value}))
    return outcome._replace(seconds=outcome.seconds + reloaded.seconds)


def _cost(outcome: WorkerResult, started: str, staged: Path, node: Node) -> Cost:
    rate = None
    if node.kind == "model":
        record = StepRecord.model_validate_json((staged / "record.json").read_bytes())
        tokens = record.tokens_seen or record.calibration_tokens
        rate = tokens / outcome.seconds if tokens else None
    return Cost(
        seconds=outcome.seconds,
        peak_memory_bytes=outcome.peak_memory,
        started=started,
        threads=threads(),
        device=outcome.device,
        tokens_per_second=rate,
    )
