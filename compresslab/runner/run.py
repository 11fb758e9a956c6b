"""Run the nodes of a plan that the store lacks."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from compresslab.errors import RunFailed
from compresslab.machine.processor import threads
from compresslab.plan.estimate import estimate
from compresslab.plan.graph import Node, NodeKind, Plan
from compresslab.records import Cost, Failure, MachineSpeed, StepRecord, StoredRecord, TaskScore, Timing, read_record
from compresslab.runner import provenance
from compresslab.runner.messages import Done, Failed, NodeJob, ReloadJob
from compresslab.runner.processes import LARGEST_RELOAD_DIFFERENCE, Listener, execute
from compresslab.runner.store import Store, write_record
from compresslab.runner.watcher import Watcher

# What a node's record is; what is gathered has none.
RECORDS: dict[NodeKind, type[StoredRecord] | None] = {
    "model": StepRecord,
    "evaluate": TaskScore,
    "measure": Timing,
    "machine": MachineSpeed,
    "gather": None,
}


class RunResult(NamedTuple):
    """What running a plan came to: failures by node key, and how many nodes were there already."""

    failures: dict[str, Failure]
    cached: int
    seconds: float


def results(node: Node) -> dict[str, type[StoredRecord] | None]:
    """The keys of a node's results, each with the kind of its record; an evaluation is its tasks' scores."""
    return dict.fromkeys(node.tasks.values() if node.kind == "evaluate" else (node.key,), RECORDS[node.kind])


def is_done(node: Node, store: Store) -> bool:
    """Whether the store holds a node's results. One that is damaged or of another version counts as not there."""
    return all(store.holds(key, kind) for key, kind in results(node).items())


def why_missing(node: Node, store: Store) -> str:
    """Why the store does not hold a node's results, in a sentence."""
    for key, kind in results(node).items():
        if store.has(key) and (problem := store.problem(key, kind)):
            return f"its result in the store cannot be used ({problem}); a run makes it again"
    return "has not run yet"


def to_do(plan: Plan, store: Store) -> list[Node]:
    """The nodes that a run has to make. What several steps share is made only if one of those steps is still to be made."""
    lacking = [node for node in plan.nodes if not is_done(node, store)]
    wanted = {node.gathered for node in lacking}
    return [node for node in lacking if node.kind != "gather" or node.key in wanted]


def run(plan: Plan, store: Store, watcher: Watcher, *, trust_code: bool = False) -> RunResult:
    """Make every result that the store lacks. A node that fails takes those that need it with it, and nothing else.

    `trust_code` runs programs of the model without a sandbox.

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
        if (lost := _lost(node, failures)) is not None:
            failures[node.key] = lost
            watcher.lost(node, lost.cause)
            continue
        listener = watcher.starting(node, estimate(node, plan).seconds)
        started = time.perf_counter()
        outcome = _make(node, plan, store, listener, trust_code)
        cause = outcome.cause if isinstance(outcome, Failed) else ""
        if cause:
            failures[node.key] = Failure(node=node.label, cause=cause)
        watcher.ended(node, time.perf_counter() - started, cause)
    return RunResult(failures, len(plan.nodes) - len(todo), time.perf_counter() - began)


def _lost(node: Node, failures: Mapping[str, Failure]) -> Failure | None:
    """Why a node cannot run: the failure at the start of the row that ends in what it needs."""
    failed = next((key for key in node.needs if key in failures), None)
    if failed is None:
        return None
    root = failures[failed].because or failed
    return Failure(node=node.label, cause=f"not run, because “{failures[root].node}” failed", because=root)


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


def _make(node: Node, plan: Plan, store: Store, listener: Listener, trust_code: bool) -> Done | Failed:
    """Run one node in a worker and move its result into the store."""
    started = provenance.now()
    with ExitStack() as stack:
        staged = stack.enter_context(store.stage(node.key))
        missing = {task: key for task, key in node.tasks.items() if not store.holds(key, TaskScore)}
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
            trust_code=trust_code,
        )
        outcome = execute(job, listener, lambda name: store.commit(missing[name], scores[name], TaskScore))
        if isinstance(outcome, Failed):
            return outcome
        if node.kind == "evaluate":
            shutil.rmtree(store.checkpoints(node.key), ignore_errors=True)
            return outcome
        if node.kind == "model":
            reloaded = _check_reload(staged, listener, job)
            if isinstance(reloaded, Failed):
                return reloaded
            outcome = outcome._replace(seconds=outcome.seconds + reloaded.seconds)
        write_record(staged, _cost(outcome, started, staged, node), "cost.json")
        store.commit(node.key, staged, RECORDS[node.kind])
        shutil.rmtree(store.checkpoints(node.key), ignore_errors=True)
        return outcome


def _check_reload(staged: Path, listener: Listener, job: NodeJob) -> Done | Failed:
    """Load the staged folder by plain transformers in a fresh process and compare logits; the record keeps the difference."""
    listener.progress(1.0, "reloading in a fresh process")
    probe = staged / "probe.pt"
    reloaded = execute(ReloadJob(staged / "model", probe, job.log, job.threads, job.compute), listener)
    if isinstance(reloaded, Failed):
        return reloaded
    assert reloaded.difference is not None
    if not reloaded.difference <= LARGEST_RELOAD_DIFFERENCE:
        return Failed(
            "the saved folder gives other logits than the model that was saved "
            f"(largest difference {reloaded.difference:.3g}); nothing was kept"
        )
    probe.unlink()
    record = read_record(staged / "record.json", StepRecord, "run again")
    write_record(staged, record.model_copy(update={"reload_difference": reloaded.difference}))
    return reloaded


def _cost(outcome: Done, started: str, staged: Path, node: Node) -> Cost:
    rate = None
    if node.kind == "model":
        record = read_record(staged / "record.json", StepRecord, "run again")
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
