"""Makes one node in a worker, and moves its result into the store."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from compresslab.methods.adopt import Adopt
from compresslab.plan.graph import Node, Plan
from compresslab.plan.keys import KEY_LENGTH
from compresslab.plan.replicates import with_text_seeds
from compresslab.records import Cost, StepRecord, read_record
from compresslab.runner import provenance
from compresslab.runner.messages import Done, Failed, NodeJob, ReloadJob, Share
from compresslab.runner.processes import LARGEST_RELOAD_DIFFERENCE, Listener, Stop, execute
from compresslab.store.digests import DamagedDigests
from compresslab.store.done import RECORDS
from compresslab.store.leases import Lease
from compresslab.store.reference import model_folder
from compresslab.store.store import Store, write_record


class Disturbed(Exception):
    """A result may not be kept: what it was made from has changed meanwhile, or another machine has taken the node over."""


def make(
    node: Node,
    plan: Plan,
    store: Store,
    listener: Listener,
    leases: Sequence[Lease],
    tasks: Mapping[str, str],
    share: Share,
    stop: Stop | None = None,
) -> Done | Failed:
    """Run one node in a worker and move its result into the store.

    Args:
        leases: of the keys of all results that are to be made.
        tasks: keys of the scores to make, by task. share: what of the machine it may use. stop: what interrupts it.

    Raises:
        Disturbed: the result was not kept.
        KeyboardInterrupt: it was interrupted.
        OSError: the disk could not write it.
    """
    started = provenance.now()
    made_from = _made_from(node, store)
    # What was computed from another parent, or from a damaged one, must not be gone on from.
    checkpoints = store.checkpoints(node.key) / hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:KEY_LENGTH]

    def check_inputs() -> None:
        if any(store.problem(key, None, every_byte=True) for key in node.needs) or _made_from(node, store) != made_from:
            shutil.rmtree(checkpoints, ignore_errors=True)
            raise Disturbed("what it was made from has changed meanwhile")

    def commit(key: str, staged: Path) -> None:
        for lease in leases:
            lease.beat()
        if any(lease.lost for lease in leases):
            raise Disturbed("another machine has taken it over")
        check_inputs()
        store.commit(key, staged, RECORDS[node.kind], made_from)

    with ExitStack() as stack:
        staged = stack.enter_context(store.stage(node.key))
        scores = {task: stack.enter_context(store.stage(key)) for task, key in tasks.items()}
        job = NodeJob(
            node=node,
            recipe=with_text_seeds(plan.recipe, node.replicate),
            staged=staged,
            log=store.logs / f"{node.key}.log",
            models={key: store.model(key) for key in node.needs if key != node.gathered},
            scores=scores,
            gathered=store.folder(node.gathered) if node.gathered else None,
            checkpoints=checkpoints,
            encodings=store.encodings,
            machine=plan.machine,
            share=share,
            compute=plan.compute,
            trust_code=plan.trust_code,
        )
        outcome = execute(job, listener, lambda task: commit(tasks[task], scores[task]), stop)
        if isinstance(outcome, Failed):
            check_inputs()  # what cannot be read may be damaged
            return outcome
        if node.kind == "model":
            reloaded = _check_reload(staged, listener, job, stop)
            if isinstance(reloaded, Failed):
                return reloaded
            seconds, peak = outcome.seconds + reloaded.seconds, max(outcome.peak_memory, reloaded.peak_memory)
            outcome = outcome._replace(seconds=seconds, peak_memory=peak)
        if node.kind != "evaluate":
            write_record(staged, _cost(outcome, started, staged, node, share), "cost.json")
            commit(node.key, staged)
        shutil.rmtree(store.checkpoints(node.key), ignore_errors=True)
        return outcome


def _made_from(node: Node, store: Store) -> dict[str, str]:
    try:
        return store.made_from(node.needs)
    except DamagedDigests as error:
        raise Disturbed("what it is made from was removed meanwhile") from error


def _check_reload(staged: Path, listener: Listener, job: NodeJob, stop: Stop | None) -> Done | Failed:
    """Load the staged folder by plain transformers in a fresh process and compare logits; the record keeps the difference."""
    listener.progress(1.0, "reloading in a fresh process")
    probe = staged / "probe.pt"
    reloaded = execute(ReloadJob(model_folder(staged), probe, job.log, job.share, job.compute, _brings_code(job)), listener, stop=stop)
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
    how = {"reloaded": "by parts"} if reloaded.by_parts else {}
    write_record(staged, record.model_copy(update={"reload_difference": reloaded.difference, "details": {**record.details, **how}}))
    return reloaded


def _brings_code(job: NodeJob) -> bool:
    """Whether a model was saved from a base whose own code the recipe trusts. An adopted model's code is never run."""
    return job.recipe.base.trust_remote_code and (job.node.step is None or not isinstance(job.node.step[1], Adopt))


def _cost(outcome: Done, started: str, staged: Path, node: Node, share: Share) -> Cost:
    rate = None
    if node.kind == "model":
        record = read_record(staged / "record.json", StepRecord, "run again")
        tokens = record.tokens_seen or record.calibration_tokens
        rate = tokens / outcome.seconds if tokens else None
    return Cost(
        seconds=outcome.seconds,
        peak_memory_bytes=outcome.peak_memory,
        started=started,
        threads=share.threads,
        device=outcome.device,
        tokens_per_second=rate,
        devices=node.devices,
    )
