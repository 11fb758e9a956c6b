"""`compresslab trend`: growth of the density of open models, from published scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compresslab.cli.options import AsJson

if TYPE_CHECKING:
    from compresslab.density.trend import Trend, TrendLine


def trend(
    reference: Annotated[str, typer.Option("--reference", help="A reference with the five benchmarks.")] = "qwen2.5",
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the trend into this .svg file.", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="List every model, not only those that set records.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fit ln(rho_max) = A t + B to the dated base models whose five benchmarks are published, and compare with the Densing Law paper.

    Example: compresslab trend --all
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from compresslab.density.trend import PAPER_GROWTH, PAPER_R2
    from compresslab.density.trend import trend as compute
    from compresslab.report import words
    from compresslab.report.overwriting import SVG_MARK, check_file

    if plot is not None:
        check_file(plot, SVG_MARK, "name another file with --plot")
    result = compute(reference)
    if plot is not None:
        plot.write_text(_picture(result), encoding="utf-8")
    if as_json:
        typer.echo(result.model_dump_json(indent=2))
        return
    console = Console()
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("model", "released", "N", "density", "table"):
        table.add_column(heading, justify="right" if heading in ("N", "density") else "left", overflow="fold")
    for point in result.points:
        if every or point.frontier:
            flag = "*" if point.density.extrapolated else ""
            density = f"{words.point(point.density)}{flag} {words.span(point.density, 2)}"
            name = f"{point.model}{' (record)' if every and point.frontier else ''}"
            table.add_row(name, str(point.released), words.count(point.params), density, point.table)
    console.print(table)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    say(_line("all", result.whole, result.reference))
    if result.before is not None and result.after is not None:
        say(_line("before ChatGPT", result.before, result.reference))
        say(_line("after ChatGPT", result.after, result.reference))
    say(f"The Densing Law paper: A = {PAPER_GROWTH} per day, R2 = {PAPER_R2}, doubling every 3.3 months (journal: 3.5).")
    say(f"Price of a GPT-3.5-level model, hence of an effective parameter, halves every {result.price_halving_days:.0f} days (paper).")
    for note in result.notes:
        say(f"note: {note}")


def _line(name: str, line: TrendLine, reference: str) -> str:
    from compresslab.report import words

    growth, months = line.growth, line.doubling_months
    return (
        f"{name}: A = {growth.value:.4f} per day [{growth.low:.4f}, {growth.high:.4f}], R2 = {line.r2:.3f}, "
        f"doubling every {words.number(months.value, 2)} months [{words.number(months.low, 2)}, {words.number(months.high, 2)}]; "
        f"{len(line.frontier)} record setters of {line.models} models, on {reference}"
    )


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
    title = f"density on {result.reference}; ln(rho_max) grows by {result.whole.growth.value:.4f} a day"
    return to_svg(trend_chart(points, ends, title))
