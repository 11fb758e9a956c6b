"""What the page's panel picks from: each variant's quantities, each as a number to compare and as the text that the tables show."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from compresslab.records import Interval, StudyRecord, Timing, VariantRecord
from compresslab.report import facts, words
from compresslab.report.picking.quantities import accuracy_change, bytes_of_a_token, measured_seconds, memory_at_inference, seconds_to_make

BYTES = "bytes a token"
"""The choice for whoever has none of the devices: what a token moves through memory, on any device."""


class Profile(NamedTuple):
    """A kind of machine to pick for. Its figures are a start that the reader changes.

    Attributes:
        gigabytes: what such a machine leaves to a model. devices: whose time stands for it, the best first.
    """

    name: str
    gigabytes: float
    devices: tuple[str, ...]


# Half of the memory of a common machine of each kind (8, 16 and 160 GB); the rest is for the system and the activations.
PROFILES = (
    Profile("phone", 4, ("oneplus-12",)),
    Profile("laptop", 8, ("this-machine",)),
    Profile("server", 80, ("h100-sxm", "a100-80g", "h20")),
)


def choices(study: StudyRecord) -> dict[str, Any]:
    """The base and its named variants with their quantities, the devices for which there are times, and the profiles.

    A quantity is [number, text], an interval [value, low, high, text, bound], each `None` where the record has none.
    """
    tasks, by_name = facts.shared_tasks(study), {variant.name: variant for variant in study.variants}
    measured = list(dict.fromkeys(_measured_on(variant.timing) for variant in study.variants if variant.timing))
    devices = [*measured, *facts.hardware(study)]
    found: list[dict[str, Any]] = []
    for variant in study.variants:
        if variant.replicate_of or not (variant.named or not variant.parent) or not facts.was_built(variant, by_name):
            continue
        size, density = variant.size, variant.density.params if variant.density else None
        change = accuracy_change(variant, "root", tasks)
        found.append(
            {
                "name": variant.name,
                "chain": words.chain(variant) if variant.parent else "the base",
                "base": not variant.parent,
                "root": variant.root,
                "memory": _quantity(memory_at_inference(variant, study), words.size),
                "stored": _quantity(size.stored_bytes if size else None, words.size),
                "times": {name: value for name in devices if (value := _quantity(_seconds(variant, name, study), words.duration))}
                | ({BYTES: value} if (value := _quantity(bytes_of_a_token(variant, study), words.size)) else {}),
                "accuracy": _quantity(facts.mean_accuracy(variant, tasks), words.percent),
                "change": _interval(change, words.points(change) if change else ""),
                "bpb": _quantity(facts.mean_bpb(variant, tasks), words.number),
                "density": _interval(density, f"{words.point(density)} {words.span(density, 2)}".strip()),
                "seconds": _quantity(seconds_to_make(variant), words.duration),
            }
        )
    named = [*devices, *([BYTES] if any(BYTES in one["times"] for one in found) else [])]
    profiles = [
        {
            "name": one.name,
            "gigabytes": one.gigabytes,
            "device": next((name for name in one.devices if name in named), ""),
            "devices": one.devices,
        }
        for one in PROFILES
    ]
    return {"ranked": study.ranked, "variants": found, "devices": named, "profiles": profiles}


def _measured_on(timing: Timing) -> str:
    return f"measured on {timing.machine} ({timing.batch} × {timing.prompt} + {timing.decode} tokens)"


def _seconds(variant: VariantRecord, device: str, study: StudyRecord) -> float | None:
    if variant.timing and _measured_on(variant.timing) == device:
        return measured_seconds(variant, study)
    return variant.density.modelled_seconds.get(device) if variant.density else None


def _quantity(value: float | None, form: Any) -> list[Any] | None:
    return None if value is None or not math.isfinite(value) else [value, form(value)]


def _interval(interval: Interval | None, text: str) -> list[Any] | None:
    if interval is None or not all(map(math.isfinite, (interval.value, interval.low, interval.high))):
        return None
    return [interval.value, interval.low, interval.high, text, interval.bound]
