"""How the report formats numbers, intervals and chains of steps, for all tables and charts."""

from __future__ import annotations

import math

from markupsafe import Markup

from compresslab.printable import printable
from compresslab.records import (
    Comparison,
    Count,
    Density,
    DivergenceFloor,
    Interval,
    NoiseFloor,
    Record,
    StepRecord,
    VariantRecord,
)

SYMBOLS = {"raised": "▲", "lowered": "▼", "inconclusive": "◇"}
"""A symbol for each verdict, so that a verdict is readable without colour."""

MISSING = "–"

# The settings in a step's label, in this order, if they are set. A step's config holds every default, which are too many for a page.
_LABEL_SETTINGS = ("keep", "groups", "hidden", "parameters", "sparsity", "pattern", "bits", "group_size", "rank", "top_k", "until")


def number(value: float | None, digits: int = 3) -> str:
    """A value with `digits` significant digits, with an exponent only below 0.0001 and from ten million."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    value = float(f"{value:.{digits - 1}e}")  # rounded first: 0.0999999 is 0.100, and its magnitude that of 0.1
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -4 or magnitude >= 7:
        mantissa = f"{value / 10.0**magnitude:.1f}"
        return f"{mantissa}e{magnitude}".replace("-", "−")
    text = f"{value:,.{max(0, digits - 1 - magnitude)}f}"
    return text.replace("-", "−")


def signed(value: float | None, digits: int = 2) -> str:
    """As `number`, with a plus sign before positive values, for differences."""
    text = number(value, digits)
    return f"+{text}" if value is not None and value > 0 else text


def count(value: float | None) -> str:
    """A number of parameters or tokens: 134.5 M, 6.9 B."""
    if value is None:
        return MISSING
    for unit, scale in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= scale:
            return f"{short(value / scale)} {unit}"
    return short(value)


def short(value: float, digits: int = 4) -> str:
    """As `number`, without trailing zeros: 60, 0.1, 134.5."""
    text = number(value, digits)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def size(value: float | None) -> str:
    """Bytes in decimal units: 269 MB."""
    if value is None:
        return MISSING
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= scale:
            return f"{number(value / scale, 3)} {unit}"
    return f"{value:.0f} B"


def duration(seconds: float | None) -> str:
    """Seconds in readable units: 4 ms, 0.42 s, 3 min 20 s, 2 h 5 min."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 0.1:
        return f"{number(seconds * 1000, 2)} ms"
    if seconds < 60:
        return f"{number(seconds, 3 if seconds >= 10 else 2)} s"
    rounded = round(seconds)
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60} s"
    return f"{rounded // 3600} h {rounded % 3600 // 60} min"


def points(change: Interval) -> str:
    """A difference of shares in percentage points, with its interval: −1.2 points [−2.5, +0.1]."""
    return f"{signed(100 * change.value)} points [{signed(100 * change.low)}, {signed(100 * change.high)}]"


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal."""
    return MISSING if value is None else f"{100 * value:.1f} %"


def times(value: float | None) -> str:
    """A factor: ×0.81. One that two digits would round to 1 has three: ×0.998."""
    return MISSING if value is None else f"×{number(value, 2 if value < 0.995 else 3)}"


def point(interval: Interval | None, digits: int = 3) -> str:
    """The value alone, with `<` or `>` before it if it is a bound."""
    if interval is None:
        return MISSING
    return f"{interval.bound} {number(interval.value, digits)}".strip()


def budget(density: Density) -> str:
    """D0 of a density: "1 T tokens", "200 tokens a parameter"."""
    if density.tokens is not None:
        return f"{count(density.tokens)} tokens"
    return f"{density.tokens_per_parameter:g} tokens a parameter" if density.tokens_per_parameter is not None else MISSING


def ruler(density: Density) -> str:
    """The reference and D0 of a density: "olmo-ladder, D0 = 200 tokens a parameter"."""
    return f"{density.reference}, D0 = {budget(density)}"


def span(interval: Interval | None, digits: int = 3) -> str:
    """The 95% interval alone: [0.95, 1.01]; empty if there is none."""
    if interval is None or interval.bound:
        return ""
    return f"[{_end(interval.low, digits)}, {_end(interval.high, digits)}]"


def ratio(interval: Interval | None) -> str:
    """A density ratio in a sentence, with no-break spaces: `r = 0.98 [0.95, 1.01]`, `r < 0.1`."""
    if interval is None:
        return "no r"
    flag = ", extrapolated" if interval.extrapolated else ""
    if interval.bound:
        return f"r\u00a0{interval.bound}\u00a0{number(interval.value)}{flag}"
    return f"r\u00a0=\u00a0{number(interval.value)} {span(interval)}{flag}".replace(", ", ",\u00a0", 1)


COUNTS: dict[Count, str] = {"params": "by parameters", "active": "by active parameters", "bits": "by stored bits"}
"""What N counts, in a sentence."""

FEW_TASKS = 2
"""A verdict that rests on no more tasks than this names them: it is no verdict over benchmarks."""


def on_tasks(tasks: list[str]) -> str:
    """`on MMLU` for a verdict that rests on one or two tasks, else empty."""
    return f"on {join_names(tasks)}" if 0 < len(tasks) <= FEW_TASKS else ""


def place(comparison: Comparison) -> str:
    """What N counts in a comparison's headline, and the tasks that it rests on if they are few: `by stored bits on MMLU`."""
    return f"{COUNTS[comparison.count]} {on_tasks(comparison.rests_on)}".rstrip()


def against_noise(floor: NoiseFloor | DivergenceFloor) -> str:
    """What a difference is beside its noise floor: `smaller than the noise floor`."""
    if floor.larger is None:
        return "no noise floor: the replicates are equal in it"
    if isinstance(floor, DivergenceFloor):
        chance = f"by chance in at most 1 of {len(floor.to_parent) + 1} cases"
        return f"larger than between any two runs ({chance})" if floor.larger else "not larger than between some two runs"
    return f"{'larger' if floor.larger else 'smaller'} than the noise floor"


def noise(floor: NoiseFloor | DivergenceFloor) -> str:
    """A difference, what two runs of the same step differ by, and which is larger, in a sentence."""
    if isinstance(floor, DivergenceFloor):
        to_parent, between = (sum(values) / len(values) for values in (floor.to_parent, floor.between))
        ends = f"[{number(min(floor.between), 2)}, {number(max(floor.between), 2)}]"
        return f"{floor.quantity} {number(to_parent)}, between two runs {number(between, 2)} {ends}: {against_noise(floor)}"
    if floor.twice is None or floor.floor is None:
        return f"{floor.quantity} {signed(floor.effect)}: {against_noise(floor)}"
    twice = f"two runs differ by {number(floor.twice.value, 2)} {span(floor.twice, 2)}"
    return f"{floor.quantity} {signed(floor.effect)}, {twice}: {against_noise(floor)}, {number(floor.floor, 2)}{few_runs(floor)}"


def few_runs(floor: NoiseFloor | DivergenceFloor) -> str:
    """Why the noise floor of a difference is known poorly, with a semicolon before it; empty if three or more runs differ.

    Accuracies of different models may be equal. In the other quantities equal replicates are the same model, as where all found the same
    layers: the choice is then one among few, which no normal distribution describes.
    """
    if isinstance(floor, DivergenceFloor) or floor.twice is None:
        return ""
    if floor.degrees == 1:
        return "; with two replicates the interval is very wide, take three or more"
    replicated = [side for side in (floor.values, floor.others) if len(side) > 1]
    different, runs = sum(len({round(value, 12) for value in side}) for side in replicated), sum(map(len, replicated))
    if floor.quantity != "accuracy" and different < runs:
        return f"; only {different} of {runs} replicates are different models, so the floor is a rough one"
    return ""


def step(record: StepRecord) -> str:
    """One step in words: `prune depth (keep 24)`, `distill forward-kl (60 k tokens)`."""
    name = step_name(record)
    if record.kind == "base":
        return name
    if record.method == "published":
        how = record.config.get("how")
        return f"{name} ({how})" if how else name
    settings = [
        f"{key.replace('_', ' ')} {_format_setting(record.config[key])}" for key in _LABEL_SETTINGS if _is_short(record.config.get(key))
    ]
    if record.tokens_seen:
        settings.append(f"{count(record.tokens_seen)} tokens")
    return f"{name} ({', '.join(settings)})" if settings else name


def step_name(record: StepRecord) -> str:
    """What a step is, without its settings: `prune depth`."""
    if record.kind == "base":
        return "base"
    if record.method == "published":
        return f"published {record.config.get('model')}"
    return record.kind if record.method == record.kind or not record.method else f"{record.kind} {record.method}"


def chain(variant: VariantRecord) -> str:
    """A variant's chain of steps as text, without the base."""
    return " → ".join(step(record) for record in variant.steps if record.kind != "base")


def truncate(text: str, limit: int) -> str:
    """The text, cut in its middle to `limit` characters with an ellipsis, since names that are alike begin alike and differ at the end.

    Only for charts; tables show whole names.
    """
    if len(text) <= limit:
        return text
    end = (limit - 1) // 2
    return f"{text[: limit - 1 - end]}…{text[len(text) - end :]}"


def join_names(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def record_json(record: Record) -> str:
    """A record as the JSON of `study.json`."""
    return record.model_dump_json(indent=1) + "\n"


def _end(value: float, digits: int) -> str:
    """An interval's end, with more digits if it would round to 1 and is not 1, because the verdict depends on its side of 1."""
    while digits < 6 and value != 1 and float(f"{value:.{digits - 1}e}") == 1:
        digits += 1
    return number(value, digits)


def _format_setting(value: float | str) -> str:
    return count(value) if isinstance(value, int) and value >= 10_000 else str(value)


def _is_short(value: object) -> bool:
    """Whether a setting is set and short enough for a label."""
    return isinstance(value, (int, float, str)) and not isinstance(value, bool) and bool(value) and len(str(value)) <= 12


def shown(value: object) -> object:
    """A value as a page shows it: a text without characters that change the order of reading. What is marked as HTML stays."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
