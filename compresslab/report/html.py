"""Writes a study as one self-contained HTML page, with its record in the same folder."""

from __future__ import annotations

import base64
import contextlib
import contextvars
import errno
import functools
import hashlib
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from compresslab.catalog.hardware import THIS_MACHINE
from compresslab.errors import RunFailed
from compresslab.files import atomic_write
from compresslab.records import Comparison, Failure, Interval, StudyRecord, TaskComparison, Timing, VariantRecord
from compresslab.report import contamination, facts, lineage, words
from compresslab.report import laws as published
from compresslab.report.answer import answer
from compresslab.report.downloads import downloads
from compresslab.report.extent.altered import altered
from compresslab.report.extent.basis import basis
from compresslab.report.figures import Figures, figures
from compresslab.report.markdown.short_report import short_report
from compresslab.report.merge import Difference
from compresslab.report.picking.quantities import accuracy_change, memory_at_inference, seconds_to_make

MAX_ITEMS = 1e6
"""The page does not ask for more items per task than this, because no benchmark has them."""


SCRIPTS = ("study.js", "pick.js", "sort.js")
"""What the page's script is made of, each part a program of its own."""


@dataclass(frozen=True)
class VariantRow:
    """One variant in the page's tables.

    Attributes:
        modelled: (hardware, seconds, ratio to the parent's seconds, interval of that ratio) for each profile; no interval where the ratio
            was measured.
        memory: bytes at inference. change: of the accuracy against the parent's. seconds: what its last step took.
        slower_than_modelled: modelled faster than the parent, measured slower.
        reason: why there is no density, if there is none.
    """

    variant: VariantRecord
    chain: str
    was_built: bool
    bpb: float | None
    accuracy: float | None
    parent: Comparison | None
    root: Comparison | None
    reason: str
    modelled: list[tuple[str, float, float | None, Interval | None]]
    slower_than_modelled: bool
    memory: float | None
    change: Interval | None
    seconds: float | None

    @property
    def verdict(self) -> str:
        """The verdict against the parent by the headline's count of N, "" without a ratio."""
        return self.parent.headline[1] if self.parent and self.parent.ratio else ""

    @property
    def place(self) -> str:
        """What N counts in that verdict, and the tasks that it rests on if they are few."""
        return words.place(self.parent) if self.parent else ""

    @property
    def benchmarks(self) -> str:
        """How many tasks that verdict rests on: "1 task", "5 tasks"."""
        tasks = facts.benchmarks(self.parent) if self.parent else ()
        return f"{len(tasks)} task{'s' if len(tasks) != 1 else ''}"

    @property
    def items_needed(self) -> str:
        """For an undecided verdict, the number of items that would decide it, as text."""
        items_needed = self.parent.items_needed if self.parent else None
        if items_needed is None:
            return ""
        if math.isinf(items_needed) or items_needed > MAX_ITEMS:
            return "more items would not decide it"
        return f"≈ {words.number(max(items_needed, 1), 2)} items a task would decide"

    @property
    def within_noise(self) -> set[str]:
        """The quantities in which it differs from its parent by no more than two runs of its step."""
        return facts.within_noise(self.variant)

    @property
    def timing(self) -> Timing | None:
        """The measured time, if any."""
        return self.variant.timing

    @property
    def state(self) -> str:
        """CSS class of the row: "base", "pending" (not yet run), "failed", "faint" (unnamed) or "named"."""
        if facts.is_pending(self.variant):
            return "pending"
        if self.variant.failures or not self.was_built:
            return "failed"
        return "base" if not self.variant.parent else "named" if self.variant.named else "faint"


class TableColumn(NamedTuple):
    """A column of the verdict table: its key, its name, what stands below the name, and whether it is one of texts."""

    key: str
    name: str
    below: str = ""
    text: bool = False


OF_DENSITY = ("r", "root", "days", "density")
"""The columns in whose place a variant without a density has the reason."""


def table_columns(rows: Sequence[VariantRow]) -> list[TableColumn]:
    """The columns of the verdict table after the variant's name: those in which some row has a value."""
    parents, roots = ([found for row in rows if (found := getattr(row, name)) is not None] for name in ("parent", "root"))
    there = {
        TableColumn("verdict", "Verdict", "", True): True,
        TableColumn("r", "r to parent", "95% interval"): any(one.headline[0] for one in parents),
        TableColumn("root", "r to base"): any(one.headline[0] for one in roots),
        TableColumn("days", "Density-days"): any(one.density_days for one in parents),
        TableColumn("density", "Density", "by parameters"): any(row.variant.density and row.variant.density.params for row in rows),
        TableColumn("N", "N"): any(row.was_built for row in rows),
        TableColumn("stored", "Stored", "bits"): any(row.was_built for row in rows),
        TableColumn("memory", "Memory", "at inference"): any(row.memory is not None for row in rows),
        TableColumn("bpb", "bpb", "less is better"): any(row.bpb is not None for row in rows),
        TableColumn("accuracy", "Accuracy", "mean"): any(row.accuracy is not None for row in rows),
        TableColumn("time", "Time to parent", "measured | modelled"): any(row.timing or row.modelled for row in rows),
        TableColumn("made", "To make", "last step"): any(row.seconds is not None for row in rows),
    }
    return [column for column, has_values in there.items() if has_values]


def write(study: StudyRecord, folder: Path, diffs: Sequence[Difference] = ()) -> Path:
    """Write `folder/index.html`, `folder/study.json` and `folder/report.md`, each in one atomic rename; returns the page's path.

    The page needs no network and no other file. Its script picks a variant, sorts and filters the tables and offers them for
    download. `study.json` is the record of the page. It is written first, so that it is there whatever becomes of the page.

    Raises:
        RunFailed: nothing can be written there.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        replace(folder / "study.json", words.record_json(study))
    page = folder / "index.html"
    text, short = render(study, diffs), short_report(study)
    with writing(folder):
        replace(folder / "report.md", short)
        replace(page, text)
    return page


@functools.cache
def templates_of_pages() -> Environment:
    """The templates of pages, in which every text is escaped. They are compiled once."""
    environment = Environment(
        loader=PackageLoader("compresslab.report"),
        autoescape=True,
        finalize=words.shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = ("number", "signed", "count", "size", "duration", "percent", "times", "point", "span", "ratio", "budget", "ruler")
    environment.filters.update({name: getattr(words, name) for name in names})
    return environment


def page_parts(*scripts: str) -> tuple[Markup, str]:
    """The style of pages, and the script that is made of these files."""
    templates = resources.files("compresslab.report") / "templates"
    return Markup((templates / "study.css").read_text("utf-8")), "".join((templates / name).read_text("utf-8") for name in scripts)


def script_hash(script: str) -> str:
    """The name of a script in a content security policy, by its digest: no other script runs."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def render(study: StudyRecord, diffs: Sequence[Difference] = ()) -> str:
    """The page as text. `diffs`: the differences of the recipes if the page shows several studies."""
    # The charts are drawn by another process, while this one makes the tables.
    with ThreadPoolExecutor(1) as thread:
        drawn = thread.submit(contextvars.copy_context().run, figures, study)
        return _page(study, diffs, drawn)


def _page(study: StudyRecord, diffs: Sequence[Difference], drawn: Future[Figures]) -> str:
    css, script = page_parts(*SCRIPTS)
    tables = downloads(study)
    rows = _rows(study)
    columns = table_columns(rows)
    keys = [column.key for column in columns]
    study_answer = answer(study)
    missing = _missing(study)
    graph = lineage.layout(study)
    template = templates_of_pages().get_template("study.html.j2")
    return template.render(
        study=study,
        diffs=diffs,
        css=css,
        script=Markup(script),
        script_hash=script_hash(script),
        data=Markup(tables.script),
        tables=tables.tables,
        study_cost=facts.study_cost(study),
        lost=any(variant.lost_items for variant in study.variants),
        answer=study_answer,
        rows=rows,
        columns=columns,
        keys=keys,
        merged=[key for key in keys if key in OF_DENSITY],
        points=words.points,
        missing=words.MISSING,
        symbols=words.SYMBOLS,
        figures=drawn.result(),
        graph=graph,
        node_width=lineage.NODE_WIDTH,
        node_height=lineage.NODE_HEIGHT,
        tasks=facts.shared_tasks(study),
        hardware=facts.hardware(study),
        engines=facts.engines(study),
        differences=_differences(study),
        changes=facts.changes(study),
        held=facts.held(study),
        diverged=[variant for variant in study.variants if variant.divergence],
        told_by_top_k=facts.told_by_top_k,
        most_lost=facts.MOST_LOST,
        generated=[(variant, one) for variant in study.variants for one in variant.fidelity or [] if one.generated],
        verdict_count=sum(bool(row.verdict) for row in rows),
        mixtures=any(one is not None and one.count == "active" for row in rows for one in (row.parent, row.root)),
        alternatives=[row for row in rows if row.parent and row.parent.robustness],
        replicated=[(variant, found) for variant in study.variants for found in variant.comparisons if found.replicates],
        noise=facts.noise_floors(study),
        against_noise=words.against_noise,
        few_runs=words.few_runs,
        failures=[(name, failure) for name, failure in missing if not failure.pending],
        pending=[(name, failure) for name, failure in missing if failure.pending],
        altered=altered(study).sentence,
        basis=basis(study),
        overlaps=contamination.sentences(study),
        laws=published.laws(study),
        predicted=published.predicted,
        costs=sum(len(variant.costs) for variant in study.variants),
        extrapolated=any(row.variant.density and row.variant.density.params and row.variant.density.params.extrapolated for row in rows),
        rulers=facts.rulers(study),
        density=next((variant.density for variant in study.variants if variant.density), None),
    )


def _rows(study: StudyRecord) -> list[VariantRow]:
    tasks, by_name, machines = facts.shared_tasks(study), {variant.name: variant for variant in study.variants}, facts.hardware(study)
    rows = []
    for variant in study.variants:
        seconds = variant.density.modelled_seconds if variant.density else {}
        time_ratios = facts.modelled_ratios(variant, by_name)
        rows.append(
            VariantRow(
                variant=variant,
                chain=words.chain(variant),
                was_built=facts.was_built(variant, by_name),
                bpb=facts.mean_bpb(variant, tasks),
                accuracy=facts.mean_accuracy(variant, tasks),
                parent=facts.comparison_with(variant, "parent") if variant.parent else None,
                root=facts.comparison_with(variant, "root") if variant.parent else None,
                reason=_reason(variant),
                modelled=[(name, seconds[name], time_ratios.get(name), _error(variant, name)) for name in machines if name in seconds],
                slower_than_modelled=facts.measured_slower(variant, by_name),
                memory=memory_at_inference(variant, study),
                change=accuracy_change(variant, "parent", tasks),
                seconds=seconds_to_make(variant),
            )
        )
    return rows


def _error(variant: VariantRecord, machine: str) -> Interval | None:
    """The interval of the modelled time over the parent's; `None` if the ratio is that of a measurement, which stands beside it."""
    comparison = facts.comparison_with(variant, "parent") if variant.parent else None
    if comparison is None or (machine == THIS_MACHINE and variant.timing and variant.timing.ratio):
        return None
    return comparison.time_ratio.get(machine)


def _reason(variant: VariantRecord) -> str:
    """Why a variant has no density, in one line."""
    if variant.failures:
        return variant.failures[0].cause
    if variant.density is None:
        return "not scored" if not variant.scores else "no density was computed"
    reasons = list(dict.fromkeys(task.reason for task in variant.density.tasks if task.reason))
    return "; ".join(reasons) or "no estimate"


def _differences(study: StudyRecord) -> list[tuple[VariantRecord, TaskComparison]]:
    """Rows of the per-task table: each variant against its parent, task by task."""
    compared = [(variant, facts.comparison_with(variant, "parent")) for variant in study.variants if variant.parent]
    return [(variant, task) for variant, comparison in compared if comparison is not None for task in comparison.tasks]


def _missing(study: StudyRecord) -> list[tuple[str, Failure]]:
    return [(variant.name, failure) for variant in study.variants for failure in variant.failures]


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an error of the disk into one that names the folder and says what to do.

    Raises:
        RunFailed: nothing can be written there.
    """
    try:
        yield
    except OSError as error:
        why = "no space is left on its disk" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise RunFailed(
            f"the report could not be written into {folder}: {why}. Make room or name another folder with --reports; "
            "the results stay in the store, and `compresslab report RECIPE` writes the report from them"
        ) from error


def replace(path: Path, text: str) -> None:
    """Write a file atomically. Lone surrogates, which model answers may contain and UTF-8 cannot encode, become "?"."""
    atomic_write(path, text.encode("utf-8", errors="replace"))
