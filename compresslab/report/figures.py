"""Which charts a study's page shows, each with its data taken from the record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from markupsafe import Markup

from compresslab.records import Comparison, Interval, StudyRecord, VariantRecord
from compresslab.report import charts, facts, words
from compresslab.report.charts import Bar, Dot, Drawer


@dataclass(frozen=True)
class Figures:
    """The page's charts as SVG, by section; an empty list where the record has nothing to draw."""

    ratios: list[Markup] = field(default_factory=list)
    sizes: list[Markup] = field(default_factory=list)
    measured: list[Markup] = field(default_factory=list)
    modelled: list[Markup] = field(default_factory=list)
    losses: list[Markup] = field(default_factory=list)
    accuracies: list[Markup] = field(default_factory=list)
    costs: list[Markup] = field(default_factory=list)


def figures(study: StudyRecord) -> Figures:
    """Draw every chart for which the study has data."""
    drawer = Drawer()
    machines = facts.hardware(study)
    measured = next((variant.timing.machine for variant in study.variants if variant.timing), "")
    return Figures(
        ratios=_ratios(study, drawer, machines),
        sizes=[
            *_scatter(study, drawer, "by parameters", "N, parameters", words.count, lambda one: one.size.counted if one.size else None),
            *_scatter(study, drawer, "by stored bytes", "stored", words.size, lambda one: one.size.stored_bytes if one.size else None),
        ],
        measured=_scatter(study, drawer, f"measured on {words.clip(measured, 34)}", "one request", words.duration, _measured),
        modelled=[
            svg
            for name in machines
            for svg in _scatter(study, drawer, f"modelled for {words.clip(name, 34)}", "one request", words.duration, _modelled(name))
        ],
        losses=_differences(study, drawer, "bits per byte, child − parent (less is better)", loss=True),
        accuracies=_differences(study, drawer, "accuracy, child − parent (more is better)", loss=False),
        costs=_costs(study, drawer),
    )


def _ratios(study: StudyRecord, drawer: Drawer, machines: list[str]) -> list[Markup]:
    """One forest plot for each count of N: parameters, stored bits, modelled time on the first hardware."""
    found: dict[str, list[Bar]] = {}
    for variant in study.variants:
        comparison = facts.compared(variant, "parent") if variant.parent else None
        for basis, name, interval, verdict in facts.judged(comparison) if comparison else []:
            if basis in ("params", "bits") or (basis == "time" and name == next(iter(machines), "")):
                found.setdefault(basis, []).append(Bar(variant.name, interval, verdict, not variant.named))
    titles = {"params": "N = parameters", "bits": "N = stored bits / 16", "time": f"N = modelled time, {next(iter(machines), '')}"}
    domain = charts.interval_domain([bar.interval for bars in found.values() for bar in bars], log=True)
    return [
        _draw(
            drawer,
            charts.forest(found[basis], title, "density ratio r to the parent", log=True, domain=domain),
            f"Forest plot of density ratios, {title}",
        )
        for basis, title in titles.items()
        if basis in found
    ]


def _scatter(
    study: StudyRecord,
    drawer: Drawer,
    title: str,
    x_title: str,
    form: Callable[[float], str],
    x: Callable[[VariantRecord], float | None],
) -> list[Markup]:
    tasks, by_name, dots = facts.shared_tasks(study), {variant.name: variant for variant in study.variants}, []
    for variant in study.variants:
        across, bpb = x(variant), facts.mean_bpb(variant, tasks)
        if across is None or across <= 0 or bpb is None or not facts.reached(variant, by_name):
            continue
        comparison = facts.compared(variant, "parent") if variant.parent else None
        dots.append(Dot(variant.name, variant.parent, across, bpb, _mood(variant, comparison), not variant.named))
    if not dots:
        return []
    chart = charts.scatter(dots, title, x_title, "bits per byte (better ↑)", form)
    return [_draw(drawer, chart, f"Bits per byte against {x_title}, {title}")]


def _mood(variant: VariantRecord, comparison: Comparison | None) -> str:
    if not variant.parent:
        return "base"
    return comparison.verdict if comparison and comparison.ratio else "inconclusive"


def _measured(variant: VariantRecord) -> float | None:
    return variant.timing.seconds if variant.timing else None


def _modelled(name: str) -> Callable[[VariantRecord], float | None]:
    return lambda variant: variant.density.modelled_seconds.get(name) if variant.density else None


def _differences(study: StudyRecord, drawer: Drawer, axis: str, *, loss: bool) -> list[Markup]:
    """One forest plot a task, all on one axis, so that tasks compare."""
    found: dict[str, list[Bar]] = {}
    for variant in study.variants:
        comparison = facts.compared(variant, "parent") if variant.parent else None
        for task in comparison.tasks if comparison else []:
            interval: Interval | None = task.bits_per_byte if loss else task.accuracy
            if interval is not None:
                mood = charts.moody(interval, 0.0, lower_is_better=loss)
                found.setdefault(task.task, []).append(Bar(variant.name, interval, mood, not variant.named))
    domain = charts.interval_domain([bar.interval for bars in found.values() for bar in bars], log=False)
    return [
        _draw(drawer, charts.forest(bars, words.clip(task, 40), axis, log=False, domain=domain), f"{task}: {axis}")
        for task, bars in found.items()
    ]


def _costs(study: StudyRecord, drawer: Drawer) -> list[Markup]:
    """Seconds and peak memory of the nodes that ran."""
    seconds = [
        {"label": variant.name, "part": node, "value": cost.seconds} for variant in study.variants for node, cost in variant.costs.items()
    ]
    memory = [
        {"label": variant.name, "part": "memory", "value": max(cost.peak_memory_bytes for cost in variant.costs.values()) / 1e9}
        for variant in study.variants
        if variant.costs
    ]
    if not seconds:
        return []
    return [
        _draw(drawer, charts.stacked(seconds, "seconds by kind of node", "seconds"), "Seconds that each variant's nodes took"),
        _draw(drawer, charts.stacked(memory, "peak memory of the largest node", "GB"), "Peak memory of each variant's largest node"),
    ]


def _draw(drawer: Drawer, chart: charts.Spec, label: str) -> Markup:
    return Markup(drawer.svg(chart, label))  # the renderer escapes every text of the record
