"""What is sent to a tracker, and the interface that every tracker has."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from compresslab.records import Interval, StepRecord, StudyRecord, VariantRecord


@dataclass(frozen=True)
class TrackedVariant:
    """One variant, which is one run of a tracker.

    Attributes:
        study: the group of runs; a changed run of a study is a group of its own, such as `STUDY~items-60`. name: of the variant.
        params: settings, by names such as `step1/quantize/bits`.
        metrics: final values, by names such as `accuracy/arc_easy`, `density/params` and `density/params_low`.
        curves: (step, value) in the order of the steps, such as the loss of each training step.
        references: places of the variant's files and page, by what they are. They are named, not copied.
    """

    study: str
    name: str
    params: dict[str, str | int | float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)


class Tracker(Protocol):
    """A tracker."""

    def log(self, variant: TrackedVariant) -> None:
        """Write one variant as a run of its own.

        Raises:
            Exception: whatever the tracker's library raises, if it cannot be reached.
        """


def tracked(study: StudyRecord, store: Path, page: Path) -> list[TrackedVariant]:
    """The variants of a study that were made, as a tracker is told of them.

    Args:
        store: the folder of the store. page: the folder of the study's page.
    """
    return [_variant(study, variant, store, page) for variant in study.variants if variant.steps]


def _variant(study: StudyRecord, variant: VariantRecord, store: Path, page: Path) -> TrackedVariant:
    params: dict[str, str | int | float] = {"base": study.base, "parent": variant.parent, "recipe_sha256": study.provenance.recipe_sha256}
    curves: dict[str, list[tuple[int, float]]] = {}
    for number, step in enumerate(variant.steps):
        prefix = f"step{number}/{step.kind}"
        values = {"method": step.method, **{name: value for name, value in step.config.items() if value is not None}}
        params |= {f"{prefix}/{name}": value for name, value in _flat(values)}
        curves |= {f"{prefix}/{name}": curve for name, curve in _curves(step)}
    references = {"page": (page / "index.html").resolve().as_uri(), "record": (page / "study.json").resolve().as_uri()}
    if key := variant.keys.get("model"):
        references["model"] = (store / "objects" / key).resolve().as_uri()
    return TrackedVariant(
        page.name, variant.name, params, {name: value for name, value in _metrics(variant) if math.isfinite(value)}, curves, references
    )


def _flat(values: dict[str, object], prefix: str = "") -> Iterator[tuple[str, str | int | float]]:
    """Settings by their paths. What is no number and no text is written as JSON."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False, default=str)


def _curves(step: StepRecord) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """The losses of a training step. At most 200 are kept: every so many optimizer steps one, and the last."""
    losses, steps = step.details.get("loss"), step.details.get("steps")
    if isinstance(losses, list) and losses and isinstance(steps, int):
        stride = max(1, -(-steps // len(losses)))
        yield "loss", [(steps - stride * (len(losses) - 1 - place), float(loss)) for place, loss in enumerate(losses)]


def _metrics(variant: VariantRecord) -> Iterator[tuple[str, float]]:
    if variant.size is not None:
        for name in ("parameters", "counted", "active", "nonzero", "stored_bytes", "effective_bits"):
            yield f"size/{name}", float(getattr(variant.size, name))
    for score in variant.scores:
        yield f"accuracy/{score.task}", score.accuracy
        if score.bits_per_byte is not None:
            yield f"bits_per_byte/{score.task}", score.bits_per_byte
    if variant.density is not None:
        for name, interval in {
            "params": variant.density.params,
            "active": variant.density.active,
            "bits": variant.density.bits,
            **{f"time_{hardware}": value for hardware, value in variant.density.time.items()},
        }.items():
            yield from _interval(f"density/{name}", interval)
    for comparison in variant.comparisons:
        yield from _interval(f"ratio_to_{comparison.relation}/params", comparison.ratio)
    for kind, cost in variant.costs.items():
        yield f"seconds/{kind}", cost.seconds


def _interval(name: str, interval: Interval | None) -> Iterator[tuple[str, float]]:
    """A value with the ends of its 95% interval. A bound is no value, so it has a name of its own."""
    if interval is None:
        return
    if interval.bound:
        yield f"{name}_{'below' if interval.bound == '<' else 'above'}", interval.value
        return
    yield name, interval.value
    yield f"{name}_low", interval.low
    yield f"{name}_high", interval.high
