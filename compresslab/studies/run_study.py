"""The front door: a study from its recipe to its record and its page. The command line and programs go through it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compresslab.errors import BadInput
from compresslab.plan.graph import Plan
from compresslab.plan.prepare import prepare
from compresslab.recipe.changes import Changes
from compresslab.records import Failure, StudyRecord
from compresslab.records.compute import ComputeChoice
from compresslab.runner.run import RunResult, run, to_do
from compresslab.runner.store import Store
from compresslab.runner.upkeep import note
from compresslab.runner.watcher import Watcher


def run_study(
    recipe: str | Path | Plan,
    *,
    store: str | Path = ".compresslab",
    reports: str | Path | None = None,
    settings: Sequence[str] = (),
    only: Sequence[str] = (),
    compute: ComputeChoice | None = None,
    device: str | None = None,
    watcher: Watcher | None = None,
) -> StudyRecord:
    """Run what a recipe needs and the store lacks, and give the study's record. What failed stands in its variants' `failures`.

    Args:
        recipe: a YAML file, or a plan of one that was prepared before.
        store: the folder of results; what is there is not made again.
        reports: a folder in which the study's page is written, in a folder of the study's name; without it no page is written.
        settings: changes as `path=value`, such as `evaluate.items=50`. only: the variants that are meant; all without it.
        compute: dtype of all matrix products, in place of the recipe's.
        device: by torch's name ("cpu", "cuda:1"), to compute on; this machine's own choice without it.
        watcher: hears what goes on.

    Raises:
        BadInput: anything in the recipe or the arguments that cannot work, named.
        RunFailed: the disk has too little room for what is to be made.
    """
    plan = recipe if isinstance(recipe, Plan) else plan_study(recipe, settings=settings, only=only, compute=compute, device=device)
    if recipe is plan and (settings or only or compute or device):
        raise BadInput("settings, only, compute and device belong to the preparation of a plan; give them to plan_study")
    heard = watcher or Watcher()
    if plan.recipe.evaluate.source == "published":
        record = _published(plan, heard)
    else:
        kept = Store(Path(store))
        result = run_nodes(plan, kept, heard)
        heard.assessing(plan)
        record = _assembled(plan, kept, result)
        note(plan, kept, record.provenance.finished)
    if reports is not None:
        write_page(record, Path(reports))
    return record


def plan_study(
    recipe: str | Path,
    *,
    settings: Sequence[str] = (),
    only: Sequence[str] = (),
    compute: ComputeChoice | None = None,
    device: str | None = None,
) -> Plan:
    """Check a recipe and plan it. Nothing runs. Arguments and errors are those of `run_study`."""
    computed = [] if compute is None else [f"compute={compute}"]
    return prepare(Path(recipe), Changes((*_texts(settings, "settings"), *computed), _texts(only, "only")), device)


def run_nodes(plan: Plan, store: Store, watcher: Watcher) -> RunResult:
    """Run the nodes of a plan that the store lacks, and note in the store what the study uses."""
    note(plan, store)
    watcher.planned(plan, store)
    return run(plan, store, watcher)


def report_study(plan: Plan, store: Store) -> StudyRecord:
    """The study's record from what the store holds. Nothing runs; what is missing stands in the variants' `failures`.

    Raises:
        BadInput: the store holds nothing of the study.
    """
    if plan.recipe.evaluate.source == "published":
        return _published(plan, Watcher())
    missing = {node.key: Failure(node=node.label, cause="has not run yet") for node in to_do(plan, store)}
    if plan.variants[0].model in missing:
        path = plan.file.path
        raise BadInput(f"nothing of {path} has run yet in {store.root}; `compresslab run {path}` makes it")
    return _assembled(plan, store, RunResult(missing, len(plan.nodes) - len(missing), 0.0))


def write_page(record: StudyRecord, reports: Path) -> Path:
    """Write a study's page and the list of all studies into a folder of reports; gives the page."""
    from compresslab.report.html import write
    from compresslab.report.index import write_index

    page = write(record, reports / record.study)
    write_index(reports)
    return page


def _assembled(plan: Plan, store: Store, result: RunResult) -> StudyRecord:
    from compresslab.studies.assemble import assemble  # numpy and the tables of densities, which no node waits for

    return assemble(plan, store, result)


def _published(plan: Plan, watcher: Watcher) -> StudyRecord:
    from compresslab.studies.published import assemble

    watcher.assessing(plan)
    return assemble(plan)


def _texts(given: Sequence[str], what: str) -> tuple[str, ...]:
    """A sequence of texts. One text alone would be taken letter by letter."""
    if isinstance(given, str):
        raise BadInput(f"{what} is a list of texts: {what}=[{given!r}]")
    return tuple(given)
