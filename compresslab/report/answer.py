"""The study's answer in a sentence, computed from the verdicts and from nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from compresslab.records import Comparison, Interval, StudyRecord, Verdict
from compresslab.report import words
from compresslab.report.facts import compared, hardware, slower_in_fact

Pick = Callable[[Comparison], tuple[Interval | None, Verdict]]


@dataclass(frozen=True)
class Answer:
    """What the verdicts say.

    Attributes:
        verdict: "raised" if a variant is denser than the base, "lowered" if all are less dense, else "inconclusive"; "" without any ratio.
        headline: the answer by parameters and by loss, in one sentence.
        details: how each step fared against its parent, and what changes when N counts bits or time.
    """

    verdict: str
    headline: str
    details: list[str]


@dataclass(frozen=True)
class _Judged:
    name: str
    ratio: Interval
    verdict: Verdict


def answer(study: StudyRecord) -> Answer:
    """Say what the study found, most important first: the named variants against the base, then the steps, then other counts of N."""
    derived = [variant for variant in study.variants if variant.parent]
    roots = [variant.name for variant in study.variants if not variant.parent]
    base = "its base" if len(roots) > 1 else "the base" if roots in ([], ["base"]) else roots[0]
    if not derived:
        return Answer("", "No answer: the study has no compressed variant, only its base.", [])
    ends = _judge(study, "root", _by_params, named_only=True)
    if not ends:
        return Answer("", f"No answer: {_of(len(derived), 'variant')} in the study, but none has a density to compare.", [])
    details = [_steps(study)] if _judge(study, "parent", _by_params) else []
    missing = sum(variant.named for variant in derived) - len(ends)
    if missing:
        details.append(f"{_of(missing, 'named variant')} could not be compared with {base}; the table says why.")
    details += _other_counts(study, ends)
    if fragile := [variant.name for variant in derived if (c := compared(variant, "parent")) is not None and c.fragile]:
        who = words.listed(fragile) if len(fragile) <= 4 else f"{len(fragile)} variants"
        one = len(fragile) == 1
        said = (
            "verdict on {} is fragile: another reasonable choice turns it"
            if one
            else "verdicts on {} are fragile: other reasonable choices turn them"
        )
        details.append(f"⚠ The {said.format(who)} round.")
    by_name = {variant.name: variant for variant in study.variants}
    slower = [variant.name for variant in derived if slower_in_fact(variant, by_name)]
    if slower:
        who = f"{words.listed(slower)} ran" if len(slower) <= 4 else f"{len(slower)} variants ran"
        details.append(f"⚠ Measured here, {who} slower than the parent although the model of time says faster.")
    return Answer(_overall(ends), _headline(ends, base), details)


def _headline(ends: list[_Judged], base: str) -> str:
    up, down, open_ = _split(ends)
    best = max(ends, key=lambda end: end.ratio.value)
    if len(ends) == 1:
        state = {"raised": "is denser than", "lowered": "is less dense than", "inconclusive": "cannot be told apart in density from"}
        return f"{best.name} {state[best.verdict]} {base}: {words.ratio(best.ratio)}."
    shown = f"{best.name} ({words.ratio(best.ratio)})"
    if len(up) == len(ends):
        return f"Each of {len(ends)} variants is denser than {base}, most of all {shown}."
    if up:
        best = max(up, key=lambda end: end.ratio.value)
        rest = ", ".join(text for text in (f"{len(down)} less dense" if down else "", f"{len(open_)} undecided" if open_ else "") if text)
        verb = "is" if len(up) == 1 else "are"
        return f"{len(up)} of {len(ends)} variants {verb} denser than {base}, most of all {best.name} ({words.ratio(best.ratio)}); {rest}."
    if len(down) == len(ends):
        return f"No variant is denser than {base}: all {len(ends)} are less dense; the least costly is {shown}."
    if down:
        verb = "is" if len(down) == 1 else "are"
        tally = f"{len(down)} of {len(ends)} {verb} less dense, {len(open_)} undecided"
        return f"No variant is shown to be denser than {base}: {tally}; best is {shown}."
    return f"Undecided: none of {len(ends)} variants can be told apart in density from {base}; the highest is {shown}."


def _steps(study: StudyRecord) -> str:
    steps = _judge(study, "parent", _by_params)
    parts: list[str] = []
    for group, word in zip(_split(steps), ("raised", "lowered", "inconclusive"), strict=True):
        if group:
            verb = {"raised": "raised density", "lowered": "lowered it" if parts else "lowered density"}.get(word, "inconclusive")
            names = words.listed([step.name for step in group]) if len(group) <= 3 else ""
            parts.append(f"{words.SYMBOLS[word]} {len(group)} {verb}" + (f" ({names})" if names else ""))
    return f"Step by step, each against its parent: {', '.join(parts)}."


def _other_counts(study: StudyRecord, ends: list[_Judged]) -> list[str]:
    """One sentence for each count of N by which the tally differs from the one by parameters; equal hardware shares a sentence."""
    by_params = _tally(ends)
    found: dict[str, list[str]] = {}
    sentences: dict[str, str] = {}
    # How a count is called, the machine that it is for, and the ratio.
    counts: list[tuple[str, str, Pick]] = [("by stored bits", "", _by_bits), ("by score", "", _by_score)]
    counts += [(f"by modelled time on {name}", name, _by_time(name)) for name in hardware(study)]
    for label, machine, pick in counts:
        judged = _judge(study, "root", pick, named_only=True)
        if judged and _tally(judged) != by_params:
            best = max(judged, key=lambda end: end.ratio.value)
            key = f"{_tally(judged)} {best.name}" if machine else label
            shown = machine if key in found else label
            found.setdefault(key, []).append(shown)
            sentences.setdefault(key, f"{_tally(judged)}; highest {best.name} ({words.ratio(best.ratio)})")
    if not found and len(counts) > 1:
        return ["Counting N by stored bits or by modelled time does not change how many variants are denser."]
    return [f"Counted {words.listed(labels)}: {sentences[key]}." for key, labels in found.items()]


def _tally(judged: list[_Judged]) -> str:
    groups = zip(_split(judged), ("denser", "less dense", "undecided"), strict=True)
    return ", ".join(f"{len(group)} {word}" for group, word in groups if group)


def _overall(ends: list[_Judged]) -> str:
    up, down, _ = _split(ends)
    return "raised" if up else "lowered" if len(down) == len(ends) else "inconclusive"


def _judge(study: StudyRecord, relation: str, pick: Pick, *, named_only: bool = False) -> list[_Judged]:
    judged = []
    for variant in study.variants:
        comparison = compared(variant, relation) if variant.parent and (variant.named or not named_only) else None
        if comparison is not None:
            ratio, verdict = pick(comparison)
            if ratio is not None:
                judged.append(_Judged(variant.name, ratio, verdict))
    return judged


def _split(judged: list[_Judged]) -> tuple[list[_Judged], list[_Judged], list[_Judged]]:
    up, down, open_ = ([one for one in judged if one.verdict == verdict] for verdict in ("raised", "lowered", "inconclusive"))
    return up, down, open_


def _of(number: int, noun: str) -> str:
    return f"1 {noun}" if number == 1 else f"{number} {noun}s"


def _by_params(comparison: Comparison) -> tuple[Interval | None, Verdict]:
    return comparison.ratio, comparison.verdict


def _by_score(comparison: Comparison) -> tuple[Interval | None, Verdict]:
    return comparison.ratio_by_score, comparison.verdict_by_score


def _by_bits(comparison: Comparison) -> tuple[Interval | None, Verdict]:
    return comparison.ratio_bits, comparison.verdict_bits


def _by_time(name: str) -> Pick:
    return lambda comparison: (comparison.ratio_time.get(name), comparison.verdict_time.get(name, "inconclusive"))
