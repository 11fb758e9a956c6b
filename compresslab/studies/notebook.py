"""A study as HTML for notebooks: its answer, the table of verdicts, and a chart of r."""

from __future__ import annotations

import base64
import functools
import json
import re
from importlib import resources
from typing import NamedTuple

from compresslab.records import Comparison, StudyRecord, VariantRecord
from compresslab.report import words
from compresslab.report.answer import answer
from compresslab.report.charts.drawing import NotDrawnError
from compresslab.report.charts.forest import Bar, forest, interval_domain
from compresslab.report.charts.vega import CONFIG, Spec, page_renderer
from compresslab.report.facts import comparison_with, mean_accuracy, mean_bpb, shared_tasks, was_built
from compresslab.report.html import templates_of_pages

MOST_ROWS = 200
"""Variants in the table and bars in the chart. The page and the frames have all."""


class Row(NamedTuple):
    """One variant of the table.

    Attributes:
        built: whether its last step succeeded. parent: its comparison with its parent. bpb, accuracy: means over the study's tasks.
    """

    variant: VariantRecord
    built: bool
    parent: Comparison | None
    bpb: float | None
    accuracy: float | None


def as_html(study: StudyRecord) -> str:
    """The study's answer, its table of verdicts and a chart of r to the parent. It needs no script, no style sheet and no other file.

    The chart is an image, so that it looks the same in every notebook and nothing of the notebook acts on it. Where it cannot be drawn, a
    sentence says so.
    """
    tasks, by_name = shared_tasks(study), {variant.name: variant for variant in study.variants}
    rows = [
        Row(
            variant,
            was_built(variant, by_name),
            comparison_with(variant, "parent") if variant.parent else None,
            mean_bpb(variant, tasks),
            mean_accuracy(variant, tasks),
        )
        for variant in study.variants[:MOST_ROWS]
    ]
    image, trouble = _image(study.study, rows)
    template = templates_of_pages().get_template("study_in_notebook.html.j2")
    return template.render(
        study=study,
        answer=answer(study),
        rows=rows,
        left_out=len(study.variants) - len(rows),
        tasks=tasks,
        image=image,
        trouble=trouble,
        missing=words.MISSING,
        symbols=words.SYMBOLS,
        chain=words.chain,
        place=words.place,
    )


def _image(name: str, rows: list[Row]) -> tuple[str, str]:
    """The forest plot of r to the parent as the address of an image, and why there is none. Both are empty without any r."""
    bars = []
    for row in rows:
        if row.parent is not None and (interval := row.parent.headline[0]) is not None:
            bars.append(Bar(row.variant.name, interval, row.parent.headline[1], not row.variant.named))
    if not bars:
        return "", ""
    domain = interval_domain([bar.interval for bar in bars], log=True)
    chart = forest(bars, words.truncate(name, 60), "density ratio r to the parent, 95% interval", log=True, domain=domain)
    with page_renderer() as renderer:
        try:
            svg = renderer.svg(_coloured({**chart, "config": {**CONFIG, "background": "var(--card)"}}))
        except NotDrawnError as error:
            return "", str(error)
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode(), ""


def _coloured(chart: Spec) -> Spec:
    """The chart with the page's light colours in place of their names, which an image does not know."""
    colours = _light_colours()
    coloured: Spec = json.loads(re.sub(r"var\(--(\w+)\)", lambda found: colours[found[1]], json.dumps(chart)))
    return coloured


@functools.cache
def _light_colours() -> dict[str, str]:
    """The colours of the page by name. The first rule of its style sheet has the light ones."""
    css = (resources.files("compresslab.report") / "templates" / "study.css").read_text("utf-8")
    return dict(re.findall(r"--(\w+): *(#[0-9a-f]{6})", css.partition("}")[0]))
