"""The charts of a study's page, with their data from the record."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from compresslab.errors import CompresslabWarning
from compresslab.records import Comparison, Count, Curve, Interval, StudyRecord, Timing, VariantRecord
from compresslab.report import facts, words
from compresslab.report.charts.forest import Bar, forest, interval_domain, verdict_class
from compresslab.report.charts.healing import healing_curve
from compresslab.report.charts.ruler import CurvePoint, ruler
from compresslab.report.charts.scatter import ScatterPoint, scatter
from compresslab.report.charts.stacked import stacked
from compresslab.report.charts.vega import ChartRenderer, Spec, log_domain, page_renderer
from compresslab.report.charts.waterfall import WaterfallStep, format_factor, waterfall
from compresslab.report.healing import Healing, healings
from compresslab.report.picking.quantities import measured_seconds

MAX_CHAINS = 24
"""Maximum number of waterfalls on one page. The tables have all chains."""


@dataclass(frozen=True)
class Figures:
    """The page's charts as SVG, by section; an empty list if the record has no data for it.

    `chains` have the names of the variants along them, `healing` the data of each chart.
    """

    chains: list[tuple[list[str], Markup]] = field(default_factory=list)
    chains_left_out: int = 0
    ratios: list[Markup] = field(default_factory=list)
    days: list[Markup] = field(default_factory=list)
    rulers: list[Markup] = field(default_factory=list)
    healing: list[tuple[Healing, Markup]] = field(default_factory=list)
    sizes: list[Markup] = field(default_factory=list)
    measured: list[Markup] = field(default_factory=list)
    modelled: list[Markup] = field(default_factory=list)
    losses: list[Markup] = field(default_factory=list)
    accuracies: list[Markup] = field(default_factory=list)
    costs: list[Markup] = field(default_factory=list)


def figures(study: StudyRecord) -> Figures:
    """Draw every chart for which the study has data. In the place of one that cannot be drawn is a sentence, and a warning is given."""
    with page_renderer() as renderer:
        drawn = _figures(study, renderer)
    if renderer.lost:
        warnings.warn(
            f"{len(renderer.lost)} of the {renderer.drawn} charts of {study.study} could not be drawn ({renderer.lost[0]}); "
            "the page says so in their places, and its tables have the figures",
            CompresslabWarning,
            stacklevel=2,
        )
    return drawn


def _figures(study: StudyRecord, renderer: ChartRenderer) -> Figures:
    machines = facts.hardware(study)
    measured = dict.fromkeys(_request(variant.timing) for variant in study.variants if variant.timing)
    chains = _chains(study)
    return Figures(
        chains=_waterfalls(chains[:MAX_CHAINS], renderer),
        chains_left_out=max(0, len(chains) - MAX_CHAINS),
        days=_days(study, renderer),
        rulers=_rulers(study, renderer),
        healing=[
            (healing, _draw(renderer, healing_curve(healing), f"Density of {healing.start} against tokens of {healing.method}"))
            for healing in healings(study)
        ],
        ratios=_ratios(study, renderer, machines),
        sizes=[
            *_scatter(study, renderer, "by parameters", "N, parameters", words.count, _counted),
            *_scatter(study, renderer, "by stored bytes", "stored", words.size, _stored_bytes),
        ],
        measured=[
            svg
            for request in measured
            for svg in _scatter(
                study, renderer, f"measured on {words.truncate(request.machine, 34)}", "one request", words.duration, request.of(study)
            )
        ],
        modelled=[
            svg
            for name in machines
            for svg in _scatter(
                study,
                renderer,
                f"modelled for {words.truncate(name, 34)}",
                "one request",
                words.duration,
                _modelled(name),
                _modelled_ends(name, study),
            )
        ],
        losses=_differences(study, renderer, "bits per byte, child − parent (less is better)", loss=True),
        accuracies=_differences(study, renderer, "accuracy, child − parent (more is better)", loss=False),
        costs=_costs(study, renderer),
    )


def _chains(study: StudyRecord) -> list[list[VariantRecord]]:
    """Every chain from a base to a leaf, the longest first; chains without any density, and those of replicates, are left out."""
    by_name = {variant.name: variant for variant in study.variants}
    parents = {variant.parent for variant in study.variants}
    chains = []
    for leaf in study.variants:
        if leaf.replicate_of or leaf.name in parents or leaf.parent not in by_name:
            continue
        chain = [leaf]
        while (parent := by_name.get(chain[0].parent)) is not None and parent not in chain:
            chain.insert(0, parent)
        if any(_density(variant, "params") is not None for variant in chain[1:]):
            chains.append(chain)
    return sorted(chains, key=lambda chain: -len(chain))


def _waterfalls(chains: list[list[VariantRecord]], renderer: ChartRenderer) -> list[tuple[list[str], Markup]]:
    counts = [_count_of(chain) for chain in chains]
    found = [_density(variant, count) for chain, count in zip(chains, counts, strict=True) for variant in chain]
    domain = log_domain([value for value in found if value is not None])
    drawn = []
    for chain, count in zip(chains, counts, strict=True):
        steps = [_waterfall_step(parent, child, count) for parent, child in pairwise(chain)]
        leaf = chain[-1].name
        factors = ", ".join(f"{step.label} {format_factor(step.ratio)}{step.note and f' ({step.note})'}" for step in steps)
        label = f"Density {words.COUNTS[count]} along the chain to {leaf}: {factors}"
        drawn.append(([variant.name for variant in chain], _draw(renderer, waterfall(steps, leaf, chain[0].name, domain, count), label)))
    return drawn


def _count_of(chain: list[VariantRecord]) -> Count:
    """The count of N by which a chain is drawn: that of the headline between its two ends, which counts what all of its steps changed."""
    base, leaf = chain[0].name, chain[-1]
    whole = next((comparison for comparison in leaf.comparisons if comparison.against == base), None)
    comparison = whole or facts.comparison_with(leaf, "parent")
    return comparison.count if comparison else "params"


def _waterfall_step(parent: VariantRecord, child: VariantRecord, count: Count) -> WaterfallStep:
    comparison = facts.comparison_with(child, "parent")
    step = words.step_name(child.steps[-1]) if len(child.steps) > len(parent.steps) else "not built"
    ratio, verdict = comparison.by(count) if comparison else (None, "")
    note = ""
    # A step that left the bits of a parameter as they were has the same r by both counts.
    own, judged = comparison.headline if comparison else (None, "")
    if comparison and own and (ratio is None or judged != verdict or not math.isclose(own.value, ratio.value, rel_tol=0.005)):
        note = f"{words.COUNTS[comparison.count]} {words.SYMBOLS[judged]} {format_factor(own)}"
    return WaterfallStep(step, child.name, _density(parent, count), _density(child, count), ratio, verdict if ratio else "", note)


def _density(variant: VariantRecord, count: Count) -> float | None:
    density = variant.density.by(count) if variant.density else None
    return density.value if density and density.value > 0 else None


def _rulers(study: StudyRecord, renderer: ChartRenderer) -> list[Markup]:
    """One panel for each task of the reference."""
    drawn = []
    for curve in study.curves:
        points = []
        for variant in study.variants:
            size, density = variant.size, variant.density
            task = next((estimate for estimate in density.tasks if estimate.task == curve.task), None) if density else None
            effective = (task.by_score if curve.unit == "score" else task.by_loss) if task else None
            if size is None or effective is None or not (0 < effective.value < math.inf):
                continue
            comparison = facts.comparison_with(variant, "parent") if variant.parent else None
            score = next((score for score in variant.scores if score.task == curve.task), None)
            measured = {"bits per byte": score.bits_per_byte, "score": score.accuracy}.get(curve.unit) if score else None
            value = _on_curve(curve, effective.value) if measured is None else measured
            flagged = effective.extrapolated or bool(effective.bound)
            points.append(
                CurvePoint(
                    variant.name, size.counted, value, effective.value, flagged, _verdict_class(variant, comparison), not variant.named
                )
            )
        if points:
            drawn.append(_draw(renderer, ruler(curve, points), f"The reference's {curve.unit} on {curve.task} by size, with every variant"))
    return drawn


def _on_curve(curve: Curve, params: float) -> float:
    """The curve's value at a size, between its points."""
    return float(np.interp(math.log(params), np.log(curve.params), curve.middle))


def _ratios(study: StudyRecord, renderer: ChartRenderer, machines: list[str]) -> list[Markup]:
    """One forest plot for each count of N: parameters, stored bits, modelled time on the first hardware."""
    found: dict[str, list[Bar]] = {}
    for variant in study.variants:
        comparison = facts.comparison_with(variant, "parent") if variant.parent else None
        for basis, name, interval, verdict in facts.existing_ratios(comparison) if comparison else []:
            if basis in ("params", "bits") or (basis == "time" and name == next(iter(machines), "")):
                found.setdefault(basis, []).append(Bar(variant.name, interval, verdict, not variant.named))
    first = next(iter(machines), "")
    engine = facts.engines(study).get(first, "modelled")
    titles = {"params": "N = parameters", "bits": "N = stored bits / 16", "time": f"N = time, {first} ({words.truncate(engine, 34)})"}
    domain = interval_domain([bar.interval for bars in found.values() for bar in bars], log=True)
    return [
        _draw(
            renderer,
            forest(found[basis], title, "density ratio r to the parent", log=True, domain=domain),
            f"Forest plot of density ratios, {title}",
        )
        for basis, title in titles.items()
        if basis in found
    ]


def _days(study: StudyRecord, renderer: ChartRenderer) -> list[Markup]:
    """The density-days of each named variant against its base."""
    bars = []
    for variant in study.variants:
        found = facts.comparison_with(variant, "root") if variant.parent and variant.named else None
        if found is not None and found.density_days is not None:
            bars.append(Bar(variant.name, found.density_days, found.headline[1]))
    if not bars:
        return []
    domain = interval_domain([bar.interval for bar in bars], log=False)
    chart = forest(bars, "against the base, each by its verdict's count of N", "days of the field's progress", log=False, domain=domain)
    return [_draw(renderer, chart, "Days of the field's progress that each variant gained or lost against the base")]


def _scatter(
    study: StudyRecord,
    renderer: ChartRenderer,
    title: str,
    x_title: str,
    form: Callable[[float], str],
    x: Callable[[VariantRecord], float | None],
    x_ends: Callable[[VariantRecord], tuple[float, float] | None] | None = None,
) -> list[Markup]:
    """Bits per byte against size or time; accuracy in a study without bits per byte, such as one of published scores."""
    tasks, by_name, points = facts.shared_tasks(study), {variant.name: variant for variant in study.variants}, []
    by_loss = any(facts.mean_bpb(variant, tasks) is not None for variant in study.variants)
    quality, error = (facts.mean_bpb, facts.bpb_stderr) if by_loss else (facts.mean_accuracy, facts.accuracy_stderr)
    for variant in study.variants:
        across, value = x(variant), quality(variant, tasks)
        if across is None or across <= 0 or value is None or not facts.was_built(variant, by_name):
            continue
        comparison = facts.comparison_with(variant, "parent") if variant.parent else None
        points.append(
            ScatterPoint(
                variant.name,
                variant.parent,
                across,
                value,
                1.96 * error(variant, tasks),
                _verdict_class(variant, comparison),
                not variant.named,
                x_ends(variant) if x_ends else None,
            )
        )
    if not points:
        return []
    name = "bits per byte" if by_loss else "accuracy"
    chart = scatter(points, title, x_title, f"{name} (better ↑)", form, more_is_better=not by_loss)
    return [_draw(renderer, chart, f"{name.capitalize()} against {x_title}, {title}")]


def _verdict_class(variant: VariantRecord, comparison: Comparison | None) -> str:
    if not variant.parent:
        return "base"
    return comparison.headline[1] if comparison and comparison.headline[0] else "inconclusive"


class _Request(NamedTuple):
    """The machine and request of a timing. Times of one chart have the same machine and request."""

    machine: str
    batch: int
    prompt: int
    decode: int

    def of(self, study: StudyRecord) -> Callable[[VariantRecord], float | None]:
        """Gives a variant's comparable seconds if its timing has this machine and request, else `None`."""
        return lambda variant: measured_seconds(variant, study) if variant.timing and _request(variant.timing) == self else None


def _request(timing: Timing) -> _Request:
    return _Request(timing.machine, timing.batch, timing.prompt, timing.decode)


def _counted(variant: VariantRecord) -> float | None:
    return variant.size.counted if variant.size else None


def _stored_bytes(variant: VariantRecord) -> float | None:
    return variant.size.stored_bytes if variant.size else None


def _modelled(name: str) -> Callable[[VariantRecord], float | None]:
    return lambda variant: variant.density.modelled_seconds.get(name) if variant.density else None


def _modelled_ends(name: str, study: StudyRecord) -> Callable[[VariantRecord], tuple[float, float] | None]:
    """The 95% interval of a variant's modelled seconds relative to its base, whose own error all variants share."""
    by_name = {variant.name: variant for variant in study.variants}

    def ends(variant: VariantRecord) -> tuple[float, float] | None:
        comparison = facts.comparison_with(variant, "root") if variant.parent else None
        relative = comparison.time_ratio.get(name) if comparison else None
        base = by_name.get(variant.root)
        seconds = base.density.modelled_seconds.get(name) if base and base.density else None
        return (relative.low * seconds, relative.high * seconds) if relative and seconds else None

    return ends


def _differences(study: StudyRecord, renderer: ChartRenderer, axis: str, *, loss: bool) -> list[Markup]:
    """One forest plot for each task, all with the same axis."""
    found: dict[str, list[Bar]] = {}
    for variant in study.variants:
        comparison = facts.comparison_with(variant, "parent") if variant.parent else None
        for task in comparison.tasks if comparison else []:
            interval: Interval | None = task.bits_per_byte if loss else task.accuracy
            if interval is not None:
                verdict = verdict_class(interval, 0.0, lower_is_better=loss)
                found.setdefault(task.task, []).append(Bar(variant.name, interval, verdict, not variant.named))
    domain = interval_domain([bar.interval for bars in found.values() for bar in bars], log=False)
    return [
        _draw(renderer, forest(bars, words.truncate(task, 40), axis, log=False, domain=domain), f"{task}: {axis}")
        for task, bars in found.items()
    ]


def _costs(study: StudyRecord, renderer: ChartRenderer) -> list[Markup]:
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
        _draw(renderer, stacked(seconds, "seconds by kind of node", "seconds"), "Seconds that each variant's nodes took"),
        _draw(renderer, stacked(memory, "peak memory of the largest node", "GB"), "Peak memory of each variant's largest node"),
    ]


def _draw(renderer: ChartRenderer, chart: Spec, label: str) -> Markup:
    return Markup(renderer.element(chart, label))  # the renderer escapes every text of the record
