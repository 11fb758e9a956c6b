"""Density against retraining tokens: the budgets of the study, and the fitted line up to the density of the base."""

from __future__ import annotations

import math

from compresslab.report import words
from compresslab.report.charts.vega import VARIANT, Spec, chart, layer, log_axis, log_domain, unscaled
from compresslab.report.healing import MAX_TOKENS, Healing

WIDTH, HEIGHT = 330, 220
STEPS = 40


def healing_curve(healing: Healing) -> Spec:
    """r to the base on log axes. A dashed line marks the model before training, a solid line at 1 the base."""
    points: list[Spec] = [
        {
            "variant": point.name,
            "tokens": point.tokens,
            "r": point.ratio.value,
            "low": point.ratio.low,
            "high": point.ratio.high,
            "fill": "var(--card)" if point.ratio.extrapolated else "var(--accent)",
            "name": f"{point.ratio.bound} {point.name}".strip(),
        }
        for point in healing.points
        if point.ratio.value > 0
    ]
    tokens = [point.tokens for point in healing.points]
    needed = healing.needed
    reach = min(needed.value, 100 * max(tokens), MAX_TOKENS) if needed else max(tokens)
    low, high = log_domain([*tokens, reach], around=tokens[0], reach=3)
    ratios = [healing.before.value, *(point["r"] for point in points), *(point["low"] for point in points if point["low"] > 0)]
    bottom, top = log_domain([value for value in ratios if value > 0], around=1.0, reach=1.05)
    x = {
        "type": "quantitative",
        "scale": {"type": "log", "domain": [low, high], "nice": False},
        "title": "retraining tokens",
        "axis": log_axis(low, high, words.count),
    }
    y = {
        "type": "quantitative",
        "scale": {"type": "log", "domain": [bottom, top], "nice": False},
        "title": "density ratio r to the base",
        "axis": log_axis(bottom, top),
    }
    level = {"y": {**y, "field": "r"}}
    layers: list[Spec] = [
        {"data": {"values": [{"r": 1.0}]}, **layer("rule", level, color="var(--ink)")},
        {"data": {"values": [{"r": healing.before.value}]}, **layer("rule", level, color="var(--lowered)", strokeDash=[4, 3])},
    ]
    if healing.line is not None:
        layers += _line(healing.line, max(tokens), (low, high), x, y)
    place = {**VARIANT, "x": {**x, "field": "tokens"}, "y": {**y, "field": "r"}}
    marks = [
        layer("rule", {**place, "y": {**y, "field": "low"}, "y2": {"field": "high"}}, color="var(--accent)", clip=True),
        layer("point", {**place, "fill": unscaled("fill", "nominal")}, size=64, color="var(--accent)", opacity=1),
        layer("text", {**place, "text": {"field": "name"}}, dx=7, dy=9, align="left", limit=110, fontSize=11),
    ]
    layers.append({"data": {"values": points}, "layer": marks})
    return chart(words.truncate(f"{healing.start}, {healing.method}", 48), WIDTH, HEIGHT, {"layer": layers})


def _line(line: tuple[float, float], last: float, ends: tuple[float, float], x: Spec, y: Spec) -> list[Spec]:
    """The fitted line, solid up to the largest budget and dashed beyond."""
    (intercept, slope), (low, high) = line, ends
    sizes = [low * (high / low) ** (i / STEPS) for i in range(STEPS + 1)]
    rows: list[Spec] = [{"tokens": n, "r": math.exp(intercept + slope * math.log(n))} for n in sizes]
    tried, beyond = ([row for row in rows if row["tokens"] <= last], [row for row in rows if row["tokens"] >= last])
    parts: list[tuple[list[Spec], list[int]]] = [(tried, []), (beyond, [5, 4])]
    return [
        {
            "data": {"values": part},
            **layer("line", {"x": {**x, "field": "tokens"}, "y": {**y, "field": "r"}}, color="var(--accent)", strokeDash=dash, clip=True),
        }
        for part, dash in parts
    ]
