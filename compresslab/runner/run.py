"""Run a study: every node of its plan that the store lacks, then densities and the report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from compresslab.density.inference_time import Hardware, load_hardware
from compresslab.density.names import is_file, unknown_reference
from compresslab.errors import BadInput, RunFailed
from compresslab.evaluation import olmes, stock
from compresslab.plan.build import build
from compresslab.plan.estimate import estimate
from compresslab.plan.graph import Node, Plan
from compresslab.recipe.changes import NO_CHANGES, Changes
from compresslab.recipe.load import load_located
from compresslab.recipe.places import Complaint
from compresslab.recipe.schema import Recipe
from compresslab.recipe.source import version
from compresslab.records import Cost, Failure, MachineSpeed, StepRecord
from compresslab.runner import provenance
from compresslab.runner.executors import LARGEST_RELOAD_DIFFERENCE, Listener, Outcome, execute
from compresslab.runner.machine import ran_on, this_machine_for
from compresslab.runner.store import Store, write_record
from compresslab.runner.work import Reload, Task

THIS_MACHINE = "this-machine"


class Watcher:
    """What a caller may want to hear while a study runs. The default hears nothing."""

    def starting(self, node: Node, estimated: float | None) -> Listener:
        """A node starts; the listener given back hears its progress."""
        del node, estimated
        return Listener()

    def ended(self, node: Node, seconds: float, failure: str) -> None:
        """A node ended; `failure` is empty if it finished."""

    def lost(self, node: Node, cause: str) -> None:
        """A node is not run, because one that it needs failed."""


class Ran(NamedTuple):
    """What running a plan came to: failures by node key, and how many nodes were there already."""

    failures: dict[str, Failure]
    cached: int
    seconds: float


def prepare(path: Path, changes: Changes = NO_CHANGES, device: str | None = None, ran_in: Store | None = None) -> Plan:
    """Load, check and plan a recipe, with what a command line changes in it, without importing torch.

    Args:
        device: by torch's name, to compute on; this machine's own choice without it.
        ran_in: for whoever only reads results: the store whose last run of this study says what was computed in, and where. A store of
            another machine can be read so.

    Raises:
        BadInput: anything in the recipe that cannot work, named.
    """
    recipe, places = load_located(path, changes)
    if recipe.evaluate.source == "published":
        from compresslab.runner import published  # numpy and the tables, which a plan of models to run does not need

        planned = published.plan(recipe, places, complaints(recipe))
    else:
        noted = ran_on(ran_in.remembered().get(recipe.study, {}), recipe.compute) if ran_in is not None and device is None else None
        here = noted or this_machine_for(recipe.compute, recipe.base.dtype, device)
        planned = build(recipe, identify_task, here.facts, places, complaints(recipe), here.compute)
        warnings = (*filter(None, [here.warning]), *planned.warnings)
        planned = replace(planned, warnings=warnings, probe=here.probe, machine=here.name, machine_facts=here.facts)
    return replace(planned, changes=changes.described())


def complaints(recipe: Recipe) -> list[Complaint]:
    """Names of references and hardware that do not exist, each with those that do."""
    found = []
    problem = unknown_reference(recipe.density.reference)
    if not problem and is_file(recipe.density.reference):
        problem = _broken(recipe.density.reference)
    if problem:
        found.append(Complaint(("density", "reference"), problem))
    for number, name in enumerate(recipe.density.hardware):
        if name != THIS_MACHINE:
            try:
                load_hardware(name)
            except BadInput as error:
                found.append(Complaint(("density", "hardware", number), f"{error}; or {THIS_MACHINE}"))
    return found


def _broken(reference: str) -> str:
    """What is wrong with a reference's file; empty if nothing is. Reads it, which takes numpy: only a user's own file is worth that."""
    from compresslab.density.reference import Reference

    try:
        Reference.load(reference)
    except BadInput as error:
        return str(error)
    return ""


def identify_task(name: str) -> str:
    """What decides a task's content: the data wheel for OLMES tasks, lm-eval's version for its own.

    Raises:
        BadInput: there is no such task.
    """
    if olmes.is_olmes(name):
        return olmes.identity(name)
    stock.find(stock.plain(name))
    return f"lm-eval {version('lm_eval')}: {stock.plain(name)}"


def is_done(node: Node, store: Store) -> bool:
    """Whether the store holds a node's result; an evaluation is its tasks' scores."""
    if node.kind == "evaluate":
        return all(store.has(key) for key in node.tasks.values())
    return store.has(node.key)


def to_do(plan: Plan, store: Store) -> list[Node]:
    """The nodes that a run has to make. What several steps share is made only if one of those steps is still to be made."""
    lacking = [node for node in plan.nodes if not is_done(node, store)]
    wanted = {node.shared for node in lacking}
    return [node for node in lacking if node.kind != "shared" or node.key in wanted]


def run(plan: Plan, store: Store, watcher: Watcher) -> Ran:
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
    return Ran(failures, len(plan.nodes) - len(todo), time.perf_counter() - began)


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


def machine_speed(plan: Plan, store: Store) -> MachineSpeed | None:
    """This machine's measured speed, if the plan asks for it and it has been measured."""
    node = next(plan.of_kind("machine"), None)
    return store.read(node.key, MachineSpeed) if node is not None and store.has(node.key) else None


def this_machine(speed: MachineSpeed, machine: str) -> Hardware:
    """The measured machine as a hardware profile."""
    return Hardware(name=THIS_MACHINE, flops=speed.flops, bandwidth=speed.bandwidth, source=f"measured in {speed.dtype}: {machine}")


def _make(node: Node, plan: Plan, store: Store, listener: Listener) -> Outcome:
    """Run one node in a worker and move its result into the store."""
    started = provenance.now()
    with ExitStack() as stack:
        staged = stack.enter_context(store.stage(node.key))
        missing = {task: key for task, key in node.tasks.items() if not store.has(key)}
        scores = {task: stack.enter_context(store.stage(key)) for task, key in missing.items()}
        task = Task(
            node=node,
            recipe=plan.recipe,
            staged=staged,
            log=store.logs / f"{node.key}.log",
            models={key: store.model(key) for key in node.needs if key != node.shared},
            scores=scores,
            shared=store.folder(node.shared) if node.shared else None,
            checkpoints=store.checkpoints(node.key),
            encodings=store.encodings,
            machine=plan.machine,
            threads=provenance.threads(),
            compute=plan.compute,
        )
        outcome = execute(task, listener, lambda name: store.commit(missing[name], scores[name]))
        if node.kind == "evaluate" and not outcome.failure:
            shutil.rmtree(store.checkpoints(node.key), ignore_errors=True)
        if outcome.failure or node.kind == "evaluate":
            return outcome
        if node.kind == "model":
            outcome = _check_reload(staged, outcome, listener, task)
            if outcome.failure:
                return outcome
        write_record(staged, _cost(outcome, started, staged, node), "cost.json")
        store.commit(node.key, staged)
        shutil.rmtree(store.checkpoints(node.key), ignore_errors=True)
        return outcome


def _check_reload(staged: Path, outcome: Outcome, listener: Listener, task: Task) -> Outcome:
    """Load the staged folder by plain transformers in a fresh process and compare logits; the record keeps the difference."""
    listener.progress(1.0, "reloading in a fresh process")
    probe = staged / "probe.pt"
    reloaded = execute(Reload(staged / "model", probe, task.log, task.threads, task.compute), listener)
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


def _cost(outcome: Outcome, started: str, staged: Path, node: Node) -> Cost:
    rate = None
    if node.kind == "model":
        record = StepRecord.model_validate_json((staged / "record.json").read_bytes())
        tokens = record.tokens_seen or record.calibration_tokens
        rate = tokens / outcome.seconds if tokens else None
    return Cost(
        seconds=outcome.seconds,
        peak_memory_bytes=outcome.peak_memory,
        started=started,
        threads=provenance.threads(),
        device=outcome.device,
        tokens_per_second=rate,
    )
