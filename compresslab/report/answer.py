"""The study's answer in a sentence, computed from the verdicts alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from compresslab.records import Comparison, Interval, StudyRecord, Verdict
from compresslab.report import words
from compresslab.report.facts import benchmarks, comparison_with, engines, hardware, measured_slower, time_on

SelectRatio = Callable[[Comparison], tuple[Interval | None, Verdict]]


@dataclass(frozen=True)
class StudyAnswer:
    """The answer of a study.

    Attributes:
        verdict: "raised" if a variant is denser than the base, "lowered" if all are less dense, else "inconclusive"; "" without any ratio.
        headline: the answer in one sentence, by the count of N that answers for what the steps changed; the sentence names it.
        details: the verdicts of the steps against their parents, and r by the other counts of N.
    """

    verdict: str
    headline: str
    details: list[str]


@dataclass(frozen=True)
class _VariantRatio:
    name: str
    ratio: Interval
    verdict: Verdict
    comparison: Comparison

    @property
    def place(self) -> str:
        """What N counts, and the tasks if they are few."""
        return words.place(self.comparison)


def answer(study: StudyRecord) -> StudyAnswer:
    """The study's answer, most important first: the named variants against the base, then the steps, then other counts of N."""
    derived = [variant for variant in study.variants if variant.parent and not variant.replicate_of]
    roots = [variant.name for variant in study.variants if not variant.parent]
    base = "its base" if len(roots) > 1 else "the base" if roots in ([], ["base"]) else roots[0]
    if not derived:
        return StudyAnswer("", "No answer: the study has no compressed variant, only its base.", [])
    against_base = _variant_ratios(study, "root", _by_headline, named_only=True)
    if not against_base:
        return StudyAnswer("", f"No answer: {_count_noun(len(derived), 'variant')} in the study, but none has a density to compare.", [])
    details = [_steps(study)] if _variant_ratios(study, "parent", _by_headline) else []
    missing = sum(variant.named for variant in derived) - len(against_base)
    if missing:
        details.append(f"{_count_noun(missing, 'named variant')} could not be compared with {base}; the table says why.")
    details += _side_by_side(study, against_base[0]) if len(against_base) == 1 else _other_counts(study, against_base)
    if any(_quantized_only(study, entry) for entry in against_base):
        details.append("Quantization leaves N by parameters as it is, so r by parameters compares the quality N̂ alone.")
    if fragile := [variant.name for variant in derived if (c := comparison_with(variant, "parent")) is not None and c.fragile]:
        names = words.join_names(fragile) if len(fragile) <= 4 else f"{len(fragile)} variants"
        single = len(fragile) == 1
        message = (
            "verdict on {} is fragile: another reasonable choice turns it"
            if single
            else "verdicts on {} are fragile: other reasonable choices turn them"
        )
        details.append(f"⚠ The {message.format(names)} round.")
    by_name = {variant.name: variant for variant in study.variants}
    slower = [variant.name for variant in derived if measured_slower(variant, by_name)]
    if slower:
        names = f"{words.join_names(slower)} ran" if len(slower) <= 4 else f"{len(slower)} variants ran"
        details.append(f"⚠ Measured here, {names} slower than the parent although the model of time says faster.")
    headline = _headline(against_base, base) if study.ranked or len(against_base) == 1 else _unranked(against_base, base)
    return StudyAnswer(_overall(against_base), headline, details)


def _headline(against_base: list[_VariantRatio], base: str) -> str:
    raised, lowered, undecided = _split(against_base)
    best = max(against_base, key=_height)
    if len(against_base) == 1:
        state = {"raised": "is denser than", "lowered": "is less dense than", "inconclusive": "cannot be told apart in density from"}
        return f"{best.name} {state[best.verdict]} {base} {best.place}: {words.ratio(best.ratio)}."
    places = {entry.place for entry in against_base}
    place = f" {places.pop()}" if len(places) == 1 else ""

    def label(entry: _VariantRatio) -> str:
        said, flag, _ = words.ratio(entry.ratio).partition(", extrapolated")
        return f"{entry.name} ({said}{'' if place else f' {entry.place}'}{flag})"

    if len(raised) == len(against_base):
        return f"Each of {len(against_base)} variants is denser than {base}{place}, most of all {label(best)}."
    if raised:
        best = max(raised, key=_height)
        rest = ", ".join(
            text for text in (f"{len(lowered)} less dense" if lowered else "", f"{len(undecided)} undecided" if undecided else "") if text
        )
        verb = "is" if len(raised) == 1 else "are"
        than = base if len(raised) == 1 else _plural(base)
        return f"{len(raised)} of {len(against_base)} variants {verb} denser than {than}{place}, most of all {label(best)}; {rest}."
    if len(lowered) == len(against_base):
        return f"No variant is denser than {base}{place}: all {len(against_base)} are less dense; the least costly is {label(best)}."
    if lowered:
        verb = "is" if len(lowered) == 1 else "are"
        tally = f"{len(lowered)} of {len(against_base)} {verb} less dense, {len(undecided)} undecided"
        return f"No variant is shown to be denser than {base}{place}: {tally}; best is {label(best)}."
    tally = f"none of {len(against_base)} variants can be told apart in density from {base}{place}"
    return f"Undecided: {tally}; the highest is {label(best)}."


def _unranked(against_base: list[_VariantRatio], base: str) -> str:
    """The headline of variants whose ratios do not compare with one another."""
    tasks = {len(benchmarks(entry.comparison)) for entry in against_base}
    rests_on = words.join_names([_count_noun(number, "task") for number in sorted(tasks)])
    tally = f"Of {len(against_base)} variants against {_plural(base)}: {_tally(against_base)}"
    return f"{tally}. They rest on different benchmarks ({rests_on}) and are not ranked."


def _plural(base: str) -> str:
    return "their bases" if base == "its base" else base


def _height(entry: _VariantRatio) -> tuple[bool, float]:
    """Orders ratios: one of which only an upper bound is known is not the highest, however far up the bound lies."""
    return entry.ratio.bound != "<", entry.ratio.value


def _steps(study: StudyRecord) -> str:
    """The tally of the steps, each against its parent. Training that ends below the base recovers what a step before it cost."""
    raised, lowered, undecided = _split(_variant_ratios(study, "parent", _by_headline))
    denser = {entry.name for entry in _variant_ratios(study, "root", _by_headline) if entry.verdict == "raised"}
    recovered = [step for step in raised if step.comparison.runs_apart and step.name not in denser]
    parts: list[str] = []
    for verdict, what, group in (
        ("raised", "raised density", [step for step in raised if step not in recovered]),
        ("raised", "recovered density that was lost before", recovered),
        ("lowered", "lowered density", lowered),
        ("inconclusive", "inconclusive", undecided),
    ):
        if group:
            names = words.join_names([step.name for step in group]) if len(group) <= 3 else ""
            parts.append(f"{words.SYMBOLS[verdict]} {len(group)} {what}" + (f" ({names})" if names else ""))
    return f"Step by step, each against its parent: {', '.join(parts)}."


WHY_COUNTS_DIFFER = (
    "The quality N̂ is the same in each and N is not: a quantized model stores fewer bits of each parameter, a mixture of experts uses few "
    "of its parameters for a token, and time also has parts that do not shrink."
)


def _side_by_side(study: StudyRecord, entry: _VariantRatio) -> list[str]:
    """r of one variant by every count of N."""
    one, named = entry.comparison, engines(study)
    ratios = [("parameters", one.ratio), ("active parameters", _by_active(one)[0]), ("stored bits", one.ratio_bits)]
    ratios += [(time_on(name, named).removeprefix("by "), ratio) for name, ratio in one.ratio_time.items()]
    there = [(name, ratio) for name, ratio in ratios if ratio is not None]
    if len({words.ratio(ratio) for _, ratio in there}) == 1:
        return ["r is the same by every count of N."]
    listed = ", ".join(f"{name} {words.point(ratio, 2)} {words.span(ratio, 2)}".rstrip() for name, ratio in there)
    return [f"r by every count of N: {listed}. {WHY_COUNTS_DIFFER}"]


def _other_counts(study: StudyRecord, against_base: list[_VariantRatio]) -> list[str]:
    """One sentence for each count of N whose tally differs from the headline's. Hardware with equal results shares a sentence."""
    headline = _tally(against_base)
    labels_by_result: dict[str, list[str]] = {}
    sentences: dict[str, str] = {}
    # Name of the count, its machine, and the function that selects the ratio.
    counts: list[tuple[str, str, SelectRatio]] = [("by parameters", "", _by_params), ("by active parameters", "", _by_active)]
    counts += [("by stored bits", "", _by_bits), ("by score and parameters", "", _by_score)]
    named = engines(study)
    counts += [(time_on(name, named), name, _by_time(name)) for name in hardware(study)]
    for label, machine, select in counts:
        ratios = _variant_ratios(study, "root", select, named_only=True)
        if ratios and _tally(ratios) != headline:
            best = max(ratios, key=_height)
            key = f"{_tally(ratios)} {best.name}" if machine else label
            name = machine if key in labels_by_result and not named else label
            labels_by_result.setdefault(key, []).append(name)
            highest = f"; highest {best.name} ({words.ratio(best.ratio)})" if study.ranked else ""
            sentences.setdefault(key, f"{_tally(ratios)}{highest}")
    if not labels_by_result:
        return ["Counting N by parameters, stored bits or time does not change how many variants are denser."]
    said = [f"Counted {words.join_names(labels)}: {sentences[key]}." for key, labels in labels_by_result.items()]
    return [*said, WHY_COUNTS_DIFFER]


def _quantized_only(study: StudyRecord, entry: _VariantRatio) -> bool:
    """Whether a variant differs from the base in the bits of its parameters and not in their number."""
    by_name = {variant.name: variant for variant in study.variants}
    sizes = [by_name[name].size for name in (entry.name, entry.comparison.against) if name in by_name]
    return entry.comparison.count == "bits" and len({size.counted for size in sizes if size}) == 1


def _tally(ratios: list[_VariantRatio]) -> str:
    groups = zip(_split(ratios), ("denser", "less dense", "undecided"), strict=True)
    return ", ".join(f"{len(group)} {state}" for group, state in groups if group)


def _overall(against_base: list[_VariantRatio]) -> str:
    raised, lowered, _ = _split(against_base)
    return "raised" if raised else "lowered" if len(lowered) == len(against_base) else "inconclusive"


def _variant_ratios(study: StudyRecord, relation: str, select: SelectRatio, *, named_only: bool = False) -> list[_VariantRatio]:
    ratios = []
    for variant in study.variants:
        comparison = comparison_with(variant, relation) if variant.parent and (variant.named or not named_only) else None
        if comparison is not None:
            ratio, verdict = select(comparison)
            if ratio is not None:
                ratios.append(_VariantRatio(variant.name, ratio, verdict, comparison))
    return ratios


def _split(ratios: list[_VariantRatio]) -> tuple[list[_VariantRatio], list[_VariantRatio], list[_VariantRatio]]:
    raised, lowered, undecided = (
        [entry for entry in ratios if entry.verdict == verdict] for verdict in ("raised", "lowered", "inconclusive")
    )
    return raised, lowered, undecided


def _count_noun(number: int, noun: str) -> str:
    return f"1 {noun}" if number == 1 else f"{number} {noun}s"


def _by_headline(comparison: Comparison) -> tuple[Interval | None, Verdict]:
    return comparison.headline


def _by_params(comparison: Comparison) -> tuple[Interval | None, Verdict]:
    return comparison.ratio, comparison.verdict


def _by_active(comparison: Comparison) -> tuple[Interval | None, Verdict]:
    """By active parameters, where they are not all parameters in the same share."""
    there = comparison.count == "active"
    return comparison.ratio_active if there else None, comparison.verdict_active


def _by_score(comparison: Comparison) -> tuple[Interval | None, Verdict]:
    """By score, where the headline is by loss."""
    return comparison.ratio_by_score if comparison.estimator == "loss" else None, comparison.verdict_by_score


def _by_bits(comparison: Comparison) -> tuple[Interval | None, Verdict]:
    return comparison.ratio_bits, comparison.verdict_bits


def _by_time(name: str) -> SelectRatio:
    return lambda comparison: (comparison.ratio_time.get(name), comparison.verdict_time.get(name, "inconclusive"))
