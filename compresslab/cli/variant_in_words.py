"""What is recorded of a variant, as `compresslab show STUDY VARIANT` prints it for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from compresslab.cli.tables import console, say, show_table, table
from compresslab.records import Comparison, Interval, StepRecord, StudyRecord, VariantRecord
from compresslab.report import facts, words

COUNTED = {
    "params": "parameters",
    "params by score": "parameters, read off by score",
    "active": "active parameters",
    "bits": "stored bits",
    "time": "time on",
}


def show_variant(study: StudyRecord, variant: VariantRecord) -> None:
    """Print what is recorded of a variant: how it was made, what it weighs, what it scored, how dense it is and against what."""
    screen = console()
    say(screen, *_head(study, variant))
    if steps := [step for step in variant.steps if step.kind != "base"]:
        show_table(screen, table(("step", "settings", "tokens read", "stored"), list(map(_step, steps)), right=("tokens read", "stored")))
    if variant.scores:
        numbers = ("items", "accuracy", "bits per byte", "chance")
        show_table(screen, table(("task", *numbers, "engine"), list(_scores(variant)), right=numbers, whole=("task",)))
    if variant.density:
        densities = [(name, words.point(value) + "*" * value.extrapolated, words.span(value)) for name, value in _densities(variant)]
        title = f"density on {words.ruler(variant.density)}"
        show_table(screen, table(("N counted by", "density", "95% interval"), densities, right=("density",)), title)
    for comparison in variant.comparisons:
        rows = [_ratio(*ratio) for ratio in facts.existing_ratios(comparison)]
        title = f"against {comparison.against}, its {comparison.relation}: {comparison.headline[1]} {words.place(comparison)}"
        show_table(screen, table(("N counted by", "r", "95% interval", "verdict"), rows, right=("r",)), title + _doubts(comparison))
    say(screen, *_changes(study, variant), *_times(variant), *_tail(study, variant))


def _head(study: StudyRecord, variant: VariantRecord) -> Iterator[str]:
    yield f"{variant.name} of {study.study}: {words.chain(variant) or f'the base, {study.base}'}"
    if variant.parent:
        yield f"made from {variant.parent}" + (f"; a replicate of {variant.replicate_of}" if variant.replicate_of else "")
    for failure in variant.failures:
        yield f"failed: {failure.node}: {failure.cause}"
    if (size := variant.size) is not None and facts.was_built(variant, {entry.name: entry for entry in study.variants}):
        parts = [f"{words.count(size.parameters)} parameters"]
        parts += [f"{words.count(size.counted)} of them multiply activations"] * (size.counted != size.parameters)
        parts += [f"{words.count(size.active)} meet a token"] * (size.active != size.counted)
        parts += [f"{words.count(size.nonzero)} are not zero"] * (size.nonzero < 0.99 * size.parameters)
        yield f"{', '.join(parts)}; {words.size(size.stored_bytes)} stored, {words.number(size.effective_bits)} bits a parameter"


def _step(step: StepRecord) -> tuple[str, ...]:
    settings = {name: value for name, value in step.config.items() if value is not None and name != "method"}
    read = step.tokens_seen or step.calibration_tokens
    shown = ", ".join(f"{name}: {_plain(value)}" for name, value in settings.items())
    return words.step_name(step), shown, words.count(read) if read else "", words.size(step.size.stored_bytes)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False).replace('"', "")


def _scores(variant: VariantRecord) -> Iterator[tuple[str, ...]]:
    for score in variant.scores:
        accuracy = f"{words.percent(score.accuracy)} ± {100 * score.accuracy_stderr:.1f}"
        bits = words.number(score.bits_per_byte) if score.bits_per_byte is not None else ""
        error = f" ± {words.number(score.bits_per_byte_stderr, 2)}" if score.bits_per_byte_stderr is not None else ""
        chance = words.percent(score.chance) if score.chance is not None else ""
        yield score.task, str(score.items), accuracy, bits + error, chance, score.engine


def _densities(variant: VariantRecord) -> Iterator[tuple[str, Interval]]:
    density, size = variant.density, variant.size
    if density is None:
        return
    active = density.active if size is not None and size.active != size.counted else None
    counts = (("parameters", density.params), ("active parameters", active), ("stored bits", density.bits))
    yield from ((name, value) for name, value in counts if value is not None)
    yield from ((f"time on {name}", value) for name, value in density.time.items())


def _ratio(basis: str, hardware: str, ratio: Interval, verdict: str) -> tuple[str, ...]:
    name = f"{COUNTED[basis]} {hardware}".rstrip()
    return name, words.point(ratio) + "*" * ratio.extrapolated, words.span(ratio), verdict


def _doubts(comparison: Comparison) -> str:
    fragile = "; fragile: another choice turns it round" if comparison.fragile else ""
    return f"{fragile}; {comparison.reason}" if comparison.reason else fragile


def _changes(study: StudyRecord, variant: VariantRecord) -> Iterator[str]:
    for change in facts.changes(study):
        if change.variant.name == variant.name and change.decided:
            yield (
                f"answers: of {change.decided} items {change.lost} went from right to wrong and {change.gained} from wrong to right "
                f"against {variant.parent} (p = {words.number(change.p, 2)})"
            )


def _times(variant: VariantRecord) -> Iterator[str]:
    if (timing := variant.timing) is not None:
        against = f", {words.times(timing.ratio)} its parent's" if timing.ratio is not None else ""
        request = f"{timing.batch} x {timing.prompt} tokens read, {timing.decode} written"
        yield f"measured: {words.duration(timing.seconds)} a request ({request}) on {timing.machine}{against}; {timing.weights}"
    costs = [f"{kind} {words.duration(cost.seconds)}" for kind, cost in variant.costs.items()]
    if costs:
        yield f"took: {', '.join(costs)}"


def _tail(study: StudyRecord, variant: VariantRecord) -> Iterator[str]:
    if any(interval.extrapolated for interval in _all_intervals(variant)):
        yield "* outside the sizes that the reference was fitted on"
    if key := variant.keys.get("model"):
        yield f"result {key} of the store; `compresslab export {study.study} {variant.name} FOLDER` copies the model"
    yield f"everything that is recorded: compresslab show {study.study} {variant.name} --json"


def _all_intervals(variant: VariantRecord) -> Iterator[Interval]:
    yield from (value for _, value in _densities(variant))
    for comparison in variant.comparisons:
        yield from (ratio for _, _, ratio, _ in facts.existing_ratios(comparison))
