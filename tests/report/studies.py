# ruff: noqa: E501
"""Synthetic studies for the report's tests: shaped like the quickstart, with knobs for what goes wrong."""

from __future__ import annotations

import math
from typing import Any

from compresslab.records import (
    Comparison,
    Cost,
    Density,
    Failure,
    Interval,
    Provenance,
    Shape,
    Size,
    StepRecord,
    StudyRecord,
    TaskComparison,
    TaskDensity,
    TaskScore,
    Timing,
    VariantRecord,
    Verdict,
)

TASKS = ["arc_easy", "csqa", "piqa", "hellaswag"]
HARDWARE = {"this-machine": 0.9, "rtx-4090": 0.06, "h100-sxm": 0.021}


def interval(value: float, spread: float = 0.15, **flags: Any) -> Interval:
    return Interval(value=value, low=value * (1 - spread), high=value * (1 + spread), **flags)


def verdict(ratio: Interval | None) -> Verdict:
    if ratio is None:
        return "inconclusive"
    return "raised" if ratio.low > 1 else "lowered" if ratio.high < 1 else "inconclusive"


def size(parameters: float, bits: float) -> Size:
    whole = int(parameters)
    return Size(parameters=whole, counted=whole, active=whole, nonzero=whole, stored_bytes=int(parameters * bits / 8), effective_bits=bits)


def step(kind: str, method: str, parameters: float, bits: float, config: dict[str, Any] | None = None, tokens: int = 0) -> StepRecord:
    shape = Shape(
        architecture="llama",
        layers=30,
        hidden=576,
        intermediate=1536,
        attention_width=576,
        key_value_width=192,
        vocabulary=49152,
        weight_bits=bits,
    )
    return StepRecord(
        kind=kind,
        method=method,
        config=config or {},
        seed=0,
        size=size(parameters, bits),
        shape=shape,
        tokens_seen=tokens,
        reload_difference=0.0,
    )


def scores(bpb: float, tasks: list[str]) -> list[TaskScore]:
    return [
        TaskScore(
            task=task, items=200, bits_per_byte=bpb + 0.06 * place, bits_per_byte_stderr=0.03, accuracy=max(0.25, 1.2 - 0.65 * bpb - 0.03 * place),
            accuracy_stderr=0.034, metric="acc_per_char", chance=0.25, engine="tree", weights="as stored", bos=False, truncated=0, prompts="ab" * 32,
        )
        for place, task in enumerate(tasks)
    ]  # fmt: skip


def base(bpb: float = 0.93, tasks: list[str] = TASKS, name: str = "base") -> VariantRecord:
    return VariantRecord(
        name=name, parent="", root=name, steps=[step("base", "offline:smollm2-135m-instruct", 134.5e6, 16)], scores=scores(bpb, tasks),
        timing=Timing(machine="this-machine", batch=1, prompt=512, decode=32, rounds=5, seconds=1.31, prefill_seconds=0.31, parent_seconds=None,
                      ratio=None, low=None, high=None, weights="bfloat16"),
        density=density(94e6, 134.5e6, 16, 1.0), costs=costs(12),
    )  # fmt: skip


def density(effective: float, parameters: float, bits: float, speed: float) -> Density:
    far = effective < 60e6
    params = interval(effective / parameters, extrapolated=far)
    return Density(
        reference="olmo-ladder", tokens=1e12, effective_by_loss=interval(effective, extrapolated=far), effective_by_score=None, params=params,
        active=params, bits=interval(effective / parameters * 16 / bits, extrapolated=far), params_by_score=None,
        time={name: interval(effective / parameters / speed, extrapolated=far) for name in HARDWARE},
        modelled_seconds={name: seconds * speed for name, seconds in HARDWARE.items()},
        tasks=[TaskDensity(task=task, by_loss=interval(effective, extrapolated=far), by_score=None) for task in TASKS],
    )  # fmt: skip


def costs(seconds: float) -> dict[str, Cost]:
    parts = {"model": 1.0, "evaluate": 2.0, "measure": 0.4}
    return {
        kind: Cost(
            seconds=seconds * part,
            peak_memory_bytes=int(2.1e9 + 3e7 * seconds),
            started="2026-11-21T20:00:00Z",
            threads=2,
            device="cpu",
            tokens_per_second=410.0,
        )
        for kind, part in parts.items()
    }


def child(parent: VariantRecord, root: VariantRecord, name: str, last: StepRecord, bpb: float, speed: float, *, measured: float | None = None,
          named: bool = True, seconds: float = 20, tasks: list[str] = TASKS) -> VariantRecord:  # fmt: skip
    """A variant whose density follows from its bits-per-byte, so that the figures hang together."""
    parameters, bits = last.size.counted, last.size.effective_bits
    effective = 94e6 * math.exp(-5.5 * (bpb - 0.93))

    def compare(other: VariantRecord, relation: Any) -> Comparison:
        before = other.density
        assert before is not None
        assert before.params is not None
        assert before.bits is not None
        ratio = interval(effective / parameters / before.params.value, 0.12, extrapolated=effective < 60e6)
        by_bits = interval(effective / parameters * 16 / bits / before.bits.value, 0.12)
        by_time = {key: interval(effective / parameters / speed / value.value, 0.12) for key, value in before.time.items()}
        tasks_ = [
            TaskComparison(
                task=score.task, items=200,
                bits_per_byte=Interval(value=bpb + 0.06 * place - (score.bits_per_byte or 0), low=bpb + 0.06 * place - (score.bits_per_byte or 0) - 0.03,
                                       high=bpb + 0.06 * place - (score.bits_per_byte or 0) + 0.03),
                accuracy=Interval(value=-0.3 * (bpb - 0.93) + 0.01 * place, low=-0.3 * (bpb - 0.93) - 0.05, high=-0.3 * (bpb - 0.93) + 0.05),
                ratio_by_loss=ratio, ratio_by_score=None,
            )
            for place, score in enumerate(other.scores)
        ]  # fmt: skip
        days = interval(1.0)
        days = Interval(value=math.log(ratio.value) / 0.0073, low=math.log(ratio.low) / 0.0073, high=math.log(ratio.high) / 0.0073)
        return Comparison(
            against=other.name, relation=relation, ratio=ratio, ratio_by_score=None, ratio_bits=by_bits, ratio_time=by_time, verdict=verdict(ratio),
            verdict_by_score="inconclusive", verdict_bits=verdict(by_bits), verdict_time={key: verdict(value) for key, value in by_time.items()},
            density_days=days, tasks=tasks_, resamples=1000, seed=0,
            runs_apart=sum(one.kind in ("distill", "retrain") for one in [*parent.steps, last][len(other.steps):]),
        )  # fmt: skip

    timing = None
    if measured is not None:
        timing = Timing(machine="this-machine", batch=1, prompt=512, decode=32, rounds=5, seconds=1.31 * measured, prefill_seconds=0.3, parent_seconds=1.31,
                        ratio=measured, low=measured * 0.95, high=measured * 1.08, weights="bnb-nf4 packed" if bits < 16 else "bfloat16")  # fmt: skip
    return VariantRecord(
        name=name, parent=parent.name, root=root.name, named=named, steps=[*parent.steps, last], costs=costs(seconds), scores=scores(bpb, tasks),
        timing=timing, density=density(effective, parameters, bits, speed), comparisons=[compare(parent, "parent"), compare(root, "root")],
    )  # fmt: skip


def study(variants: list[VariantRecord], **changes: Any) -> StudyRecord:
    provenance = Provenance(
        recipe_sha256="c0ffee" * 10, recipe_path="recipes/quickstart.yaml", commit="0123456789abcdef", dirty=True, versions={"torch": "2.13.0", "transformers": "5.23.0"},
        python="3.11.9", machine="Intel Xeon, 2 cores", cores=2, memory_bytes=25_000_000_000, finished="2026-11-21T21:00:00Z",
    )  # fmt: skip
    values: dict[str, Any] = {
        "study": "smollm2-quickstart", "question": "Does pruning, healing or quantizing SmolLM2-135M raise its capability density?",
        "base": "offline:smollm2-135m-instruct", "recipe": "study: smollm2-quickstart\n", "variants": variants, "provenance": provenance,
        "seconds": 412.0, "cached_nodes": 3, "nodes": 21, "workload": {"batch": 1, "prompt": 512, "decode": 128},
    }  # fmt: skip
    return StudyRecord(**(values | changes))


def quickstart(**changes: Any) -> StudyRecord:
    """Seven variants: quantized, pruned, healed, a chain of three with an unnamed middle."""
    root = base()
    nf4 = child(root, root, "bnb-nf4", step("quantize", "bnb-nf4", 134.5e6, 5.2, {"bits": 4, "block": 64}), 0.965, 0.36, measured=1.42)
    depth = child(root, root, "depth-24", step("prune", "depth", 113.3e6, 16, {"keep": 24}), 1.449, 0.83, measured=0.82)
    healed_step = step("distill", "forward-kl", 113.3e6, 16, {"temperature": 1.0}, 60_000)
    healed = child(depth, root, "depth-24-healed", healed_step, 1.25, 0.83, measured=0.99, seconds=90)
    last = child(healed, root, "depth-24-healed-nf4", step("quantize", "bnb-nf4", 113.3e6, 5.3), 1.29, 0.3, measured=1.37)
    middle = child(root, root, "width-75/1", step("prune", "width", 118e6, 16, {"keep": 0.75}), 1.33, 0.88, named=False, measured=0.9)
    width = child(middle, root, "width-75", step("retrain", "full", 118e6, 16, {}, 60_000), 1.2, 0.88, measured=1.0, seconds=70)
    return study([root, nf4, depth, healed, last, middle, width], **changes)


def many(number: int, tasks: list[str] = TASKS) -> StudyRecord:
    """A base and `number` children, each a little smaller."""
    root = base(tasks=tasks)
    made = [root]
    for place in range(number):
        share = 1 - 0.9 * place / number
        parent = made[-1] if place % 3 else root
        made.append(
            child(
                parent,
                root,
                f"depth-{place}",
                step("prune", "depth", 134.5e6 * share, 16),
                0.94 + 0.3 * place / number,
                share,
                measured=share,
            )
        )
    return study(made)


def failed(name: str = "gptq", cause: str = "The worker was killed (signal 9), most likely out of memory.") -> VariantRecord:
    return VariantRecord(name=name, parent="base", root="base", steps=base().steps, failures=[Failure(node=f"model:{name}", cause=cause)])


def with_failure() -> StudyRecord:
    """The quickstart, one of whose variants failed."""
    whole = quickstart()
    return whole.model_copy(update={"variants": [*whole.variants, failed()]})


def unfinished(**changes: Any) -> StudyRecord:
    """The quickstart, one of whose variants has not run yet."""
    whole = quickstart(**changes)
    waiting = Failure(node="model:awq", cause="model:awq has not run yet", pending=True)
    return whole.model_copy(update={"variants": [*whole.variants, failed("awq").model_copy(update={"failures": [waiting]})]})


def resting_on(tasks: list[str], study: StudyRecord) -> StudyRecord:
    """The study, whose verdicts rest on these tasks."""
    variants = [
        one.model_copy(update={"comparisons": [found.model_copy(update={"rests_on": tasks}) for found in one.comparisons]})
        for one in study.variants
    ]
    return study.model_copy(update={"variants": variants})
