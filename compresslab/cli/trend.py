"""`compresslab trend`: growth of the density of open models, from published scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compresslab.cli import completion
from compresslab.cli.options import AsJson
from compresslab.cli.tables import console, say, show_table, table

if TYPE_CHECKING:
    from compresslab.density.trend.corollaries import Corollaries
    from compresslab.density.trend.trend import Trend, TrendFit, TrendLine
    from compresslab.records import Interval


def trend(
    reference: Annotated[
        str, typer.Option("--reference", help="A reference that reads the benchmarks.", autocompletion=completion.references)
    ] = "qwen2.5",
    mmlu: Annotated[bool, typer.Option("--mmlu", help="MMLU alone: more models, also from before ChatGPT.")] = False,
    corollaries: Annotated[
        bool, typer.Option("--corollaries", help="What follows: density and chip prices, when models were passed on, price halving.")
    ] = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the trend into this .svg file.", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="List every model, not only those that set records.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fit the growth of ln density to the dated base models whose scores are published, and compare with the Densing Law paper.

    Example: compresslab trend --all
    """
    from compresslab.catalog.published_scores import BENCHMARKS
    from compresslab.density.trend.corollaries import corollaries as follow
    from compresslab.density.trend.trend import trend as compute
    from compresslab.report.overwriting import SVG_MARK, check_file

    if plot is not None:
        check_file(plot, SVG_MARK, "name another file with --plot")
    result = compute(reference, benchmarks=("MMLU",) if mmlu else tuple(BENCHMARKS))
    if plot is not None:
        plot.write_text(_picture(result), encoding="utf-8")
    if corollaries:
        found = follow(result)
        if as_json:
            typer.echo(found.model_dump_json(indent=2))
        else:
            _show_corollaries(found, every)
    elif as_json:
        typer.echo(result.model_dump_json(indent=2))
    else:
        _show(result, every)


def _show(result: Trend, every: bool) -> None:
    from compresslab.density.trend.trend import PAPER_GROWTH, PAPER_R2
    from compresslab.report import words

    screen, rows = console(), []
    for point in result.points:
        if every or point.frontier:
            flag = "*" if point.density.extrapolated else ""
            density = f"{words.point(point.density)}{flag} {words.span(point.density, 2)}"
            name = f"{point.model}{' (record)' if every and point.frontier else ''}"
            rows.append((name, str(point.released), words.count(point.params), density, point.table))
    headings = ("model", "released", "N", "density", "table")
    show_table(screen, table(headings, rows, right=("N", "density"), whole=("model", "table")))
    periods: list[tuple[str, TrendLine | None, list[TrendFit]]] = [("all", result.whole, result.fits)]
    if result.before is not None or result.before_fits:
        periods += [("before ChatGPT", result.before, result.before_fits), ("after ChatGPT", result.after, result.after_fits)]
    for name, line, fits in periods:
        for fit in fits:
            say(screen, _fit(name, fit))
        if line is not None:
            say(screen, _line(name, line))
    say(screen, f"On {result.reference}, {', '.join(result.benchmarks)}.")
    say(screen, f"The Densing Law paper: A = {PAPER_GROWTH} per day, R2 = {PAPER_R2}, doubling every 3.3 months (journal: 3.5).")
    for note in result.notes:
        say(screen, f"note: {note}")


def _fit(name: str, fit: TrendFit) -> str:
    rests = f"{fit.models} models ({fit.bounds} of them bounds) of {fit.releases} releases"
    return f"{name}, {fit.kind}: {_growth(fit.growth, fit.doubling_months)}; {rests}"


def _line(name: str, line: TrendLine) -> str:
    setters = f"{len(line.frontier)} record setters of {line.models} models"
    return f"{name}, record setters (always rising): {_growth(line.growth, line.doubling_months)}, R2 = {line.r2:.3f}; {setters}"


def _growth(growth: Interval, months: Interval) -> str:
    from compresslab.report import words

    doubling = f"{words.number(months.value, 2)} months [{words.number(months.low, 2)}, {words.number(months.high, 2)}]"
    return f"A = {growth.value:.4f} per day [{growth.low:.4f}, {growth.high:.4f}], doubling every {doubling}"


def _show_corollaries(found: Corollaries, every: bool) -> None:
    from compresslab.report import words

    screen = console()
    say(screen, "Effective parameters per dollar of chip double every ln 2 / (A + ln 2 / 2.1 years) days:")
    for doubling in found.doublings:
        say(
            screen,
            f"  {doubling.rate}, A = {doubling.growth.value:.4f}: {words.number(doubling.days.value, 3)} days {words.span(doubling.days)}",
        )
    say(screen, f"  source: {found.doublings_source}")
    reached = [entry for entry in found.passed if entry.days is not None]
    say(screen, "")
    say(screen, "Passed on: the first later model with fewer parameters and at least the same MMLU.")
    rows = []
    for entry in found.passed if every else [entry for entry in found.passed if entry.params >= 5e10]:
        ends = (
            (words.count(entry.by_params), f"{100 * (entry.by_mmlu or 0):.1f}", str(entry.on), str(entry.days)) if entry.by else ("",) * 4
        )
        mmlu = f"{100 * entry.mmlu:.1f}"
        rows.append((entry.model, words.count(entry.params), mmlu, str(entry.released), entry.by or "not yet", *ends))
    headings = ("model", "N", "MMLU", "released", "by", "N", "MMLU", "on", "days")
    show_table(screen, table(headings, rows, right=("N", "MMLU", "days"), whole=("model", "by")))
    if not every:
        say(screen, "  (models of 50B and more; --all lists every one)")
    median = found.median_days
    say(
        screen,
        f"  {len(reached)} of {len(found.passed)} were; median {words.number(median.value, 3)} days {words.span(median)} (Kaplan-Meier)",
    )
    half = found.median_days_half
    say(screen, f"  by one with at most half the parameters: median {words.number(half.value, 3)} days {words.span(half)}")
    say(screen, f"  source: {found.passed_source}")
    say(screen, "")
    say(screen, f"The price of one level of capability halves every {found.price_halving_days:.0f} days: d ln 2 / ln(p / q).")
    say(screen, f"  source: {found.price_source}")


def _picture(result: Trend) -> str:
    import datetime

    import numpy as np

    from compresslab.report.charts.standalone import to_svg, trend_chart

    top = [point for point in result.points if point.frontier]
    days = np.array([point.released.toordinal() for point in top], dtype=float)
    logs = np.log([point.density.value for point in top])
    middle = float(days.mean())
    ends = [
        (datetime.date.fromordinal(int(day)).isoformat(), float(np.exp(logs.mean() + result.whole.growth.value * (day - middle))))
        for day in (days[0], days[-1])
    ]
    points = [(p.model, p.released.isoformat(), p.density.value, p.frontier, bool(p.density.bound)) for p in result.points]
    lines = {"record setters": ends, **{fit.kind: fit.line for fit in result.fits}}
    rates = ", ".join(f"{fit.kind} {fit.growth.value:.4f}" for fit in result.fits)
    return to_svg(trend_chart(points, lines, f"density on {result.reference}; growth of ln density a day: {rates}"))
