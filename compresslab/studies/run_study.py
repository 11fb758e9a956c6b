"""Runs a study from its recipe to its record and its page, for the command line and for programs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from compresslab.errors import BadInput
from compresslab.plan.graph import Plan
from compresslab.plan.prepare import prepare
from compresslab.recipe.changes import Changes
from compresslab.records import Failure, StudyRecord
from compresslab.records.compute import ComputeChoice
from compresslab.runner.executors.cluster import Cluster
from compresslab.runner.executors.executor import Executor
from compresslab.runner.executors.local import LocalExecutor, jobs_on
from compresslab.runner.executors.ray import RayExecutor
from compresslab.runner.run import RunResult, run
from compresslab.runner.watcher import Watcher
from compresslab.store.done import missing, to_do
from compresslab.store.store import Store
from compresslab.store.upkeep import note
from compresslab.studies.growing_page import GrowingPage
from compresslab.studies.page_folder import check_page_folder, folder_of_plan, folder_of_record
from compresslab.studies.programs import check_programs
from compresslab.studies.read_study import read_study
from compresslab.studies.study import Study


def run_study(
    recipe: str | Path | Plan,
    *,
    store: str | Path = ".compresslab",
    reports: str | Path | None = None,
    settings: Sequence[str] = (),
    only: Sequence[str] = (),
    compute: ComputeChoice | None = None,
    device: str | None = None,
    trust_code: bool = False,
    jobs: int | None = None,
    threads: int | None = None,
    cluster: Cluster | None = None,
    watcher: Watcher | None = None,
) -> Study:
    """Run the nodes of a recipe that the store lacks, and return the study's record. The variants' `failures` name what failed.

    Args:
        recipe: a YAML file, or its plan.
        store: the folder of results. Existing results are not computed again.
        reports: the folder in which the study's page is written, also while it runs: in a subfolder of the study's name, or one beside it
            for a run with other settings than the recipe's (`studies.page_folder.folder_of_plan`). By default no page is written.
        settings: changes as `path=value`, such as `evaluate.items=50`. only: the variants to run; all by default.
        compute: dtype of all matrix products, instead of the recipe's.
        device: by torch's name ("cpu", "cuda:1"). Default: the accelerator, if there is one.
        trust_code: run programs that a model wrote without a sandbox (docs/evaluation.md says what that gives up).
        jobs: nodes at once. Default: one an accelerator, or one on a processor.
        threads: of the processor, a node. Default: all, divided by the jobs. With another number sums are rounded otherwise.
        cluster: the hosts of a Ray cluster (`runner.executors.cluster.connected`) that run the nodes. Default: this machine.
        watcher: receives the progress.

    Raises:
        BadInput: an error in the recipe or the arguments, `evaluate.run_code` where there is no sandbox, or a folder of reports that cannot
            be written into or has the page of another recipe. It is tried before anything runs.
        RunFailed: the disk has too little free space for the results.
    """
    plan = (
        recipe
        if isinstance(recipe, Plan)
        else plan_study(recipe, settings=settings, only=only, compute=compute, device=device, trust_code=trust_code, cluster=cluster)
    )
    if recipe is plan and (settings or only or compute or device or trust_code):
        raise BadInput("settings, only, compute, device and trust_code belong to the preparation of a plan; give them to plan_study")
    if reports is not None:
        published = plan.recipe.evaluate.source == "published"
        check_page_folder(folder_of_plan(plan, Path(reports)), plan, None if published else Store(Path(store)))
    active_watcher = watcher or Watcher()
    result_store = None
    if plan.recipe.evaluate.source == "published":
        record = _published(plan, active_watcher)
    else:
        result_store = Store(Path(store))
        executor = (
            LocalExecutor(plan, result_store, jobs_on(device, jobs), threads)
            if cluster is None
            else RayExecutor(plan, result_store, cluster, jobs, threads)
        )
        hearing = active_watcher
        if reports is not None:
            folder, results = Path(reports), result_store  # as they are now, for the function
            hearing = GrowingPage(active_watcher, lambda failures: _write_if_no_poorer(report_study(plan, results, failures), folder))
        result = run_nodes(plan, result_store, hearing, executor)
        active_watcher.assessing(plan)
        record = _assembled(plan, result_store, result)
    try:
        if reports is not None:
            write_page(record, Path(reports))
    finally:  # the disk of the store may be full and that of the reports not, or the other way round
        if result_store is not None:
            note(plan, result_store, record.provenance.finished)
    return Study.of(record)


def plan_study(
    recipe: str | Path,
    *,
    settings: Sequence[str] = (),
    only: Sequence[str] = (),
    compute: ComputeChoice | None = None,
    device: str | None = None,
    trust_code: bool = False,
    cluster: Cluster | None = None,
) -> Plan:
    """Check a recipe and plan it, without running it.

    Args:
        settings, only, compute, device, trust_code, cluster: as in `run_study`.

    Raises:
        BadInput: an error in the recipe or the arguments.
    """
    computed = [] if compute is None else [f"compute={compute}"]
    changes = Changes((*_texts(settings, "settings"), *computed), _texts(only, "only"))
    machine = None if cluster is None else cluster.machine
    return prepare(Path(recipe), changes, device, machine=machine, trust_code=trust_code)


def run_nodes(plan: Plan, store: Store, watcher: Watcher, executor: Executor | None = None) -> RunResult:
    """Run the nodes of a plan that the store lacks, and note in the store which results the study uses.

    Args:
        executor: where they run. Default: on this machine.

    Raises:
        BadInput: programs of the model are to be run, there is no sandbox for them here, and the plan does not trust them.
    """
    check_programs(plan, store)
    note(plan, store)
    watcher.planned(plan, store)
    return run(plan, store, watcher, executor)


def report_study(plan: Plan, store: Store, failures: Mapping[str, Failure] | None = None) -> StudyRecord:
    """The study's record from the store, without running anything. The variants' `failures` name what is missing.

    Args:
        failures: of a run that goes on, by node key. All else that is missing has not run yet.

    Raises:
        BadInput: the store has no results of the study.
    """
    if plan.recipe.evaluate.source == "published":
        return _published(plan, Watcher())
    failed = failures or {}
    lacking = {node.key: failed.get(node.key) or missing(node, store) for node in to_do(plan, store)}
    if plan.variants[0].model in lacking:
        path, base = plan.file.path, plan.variants[0].model
        if store.occupied(base):
            raise BadInput(f"{lacking[base].node}: {lacking[base].cause}")
        raise BadInput(f"nothing of {path} has run yet in {store.root}; `compresslab run {path}` makes it")
    return _assembled(plan, store, RunResult(lacking, len(plan.nodes) - len(lacking), 0.0))


def write_page(record: StudyRecord, reports: Path) -> Path:
    """Write a study's page and the index of all studies into a folder of reports; returns the page's path."""
    from compresslab.report.html import write
    from compresslab.report.index import write_index

    page = write(record, folder_of_record(record, reports))
    write_index(reports)
    return page


def _write_if_no_poorer(record: StudyRecord, reports: Path) -> None:
    """Write the page of an unfinished study, unless the page of an earlier run knows more scores, or comparisons with parents."""
    before = (0, 0)
    with contextlib.suppress(BadInput):
        before = _known(read_study(folder_of_record(record, reports)))
    if all(now >= then for now, then in zip(_known(record), before, strict=True)):
        write_page(record, reports)


def _known(record: StudyRecord) -> tuple[int, int]:
    """Of how many variants the scores are known, and the divergence from their parents."""
    return sum(bool(variant.scores) for variant in record.variants), sum(variant.divergence is not None for variant in record.variants)


def _assembled(plan: Plan, store: Store, result: RunResult) -> StudyRecord:
    from compresslab.studies.assemble import assemble  # imports numpy and the densities, which running nodes does not need

    return assemble(plan, store, result)


def _published(plan: Plan, watcher: Watcher) -> StudyRecord:
    from compresslab.studies.published import assemble

    watcher.assessing(plan)
    return assemble(plan)


def _texts(texts: Sequence[str], argument: str) -> tuple[str, ...]:
    """A sequence of texts as a tuple. A single text is an error, because it would be read letter by letter."""
    if isinstance(texts, str):
        raise BadInput(f"{argument} is a list of texts: {argument}=[{texts!r}]")
    return tuple(texts)
