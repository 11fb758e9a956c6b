"""A study as tidy pandas frames: one row per observation, one column per quantity, with units in the column's name or docstring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from compresslab.records import Cost, GeneratedAnswers, Interval, NoiseFloor, Record, StudyRecord, TaskScore
from compresslab.report import words
from compresslab.report.facts import (
    comparison_with,
    existing_ratios,
    mean_accuracy,
    mean_bpb,
    modelled_ratios,
    noise_floors,
    shared_tasks,
    was_built,
)


def variants(study: StudyRecord) -> pd.DataFrame:
    """One row per variant: size, mean quality over the study's tasks, density by params, and the verdict against the parent.

    An interval has the columns `x`, `x_low`, `x_high`, `x_extrapolated`, `x_bound`. `bpb` and `accuracy` are means over the tasks of
    `shared_tasks`. They are missing if a variant lacks one of these tasks, because means over different tasks do not compare.
    """
    tasks, by_name = shared_tasks(study), {variant.name: variant for variant in study.variants}
    rows = []
    for variant in study.variants:
        parent = comparison_with(variant, "parent")
        size = variant.size if was_built(variant, by_name) else None
        rows.append(
            {
                "variant": variant.name,
                "parent": variant.parent,
                "root": variant.root,
                "named": variant.named,
                "replicate_of": variant.replicate_of,
                "chain": words.chain(variant),
                "counted": size.counted if size else None,
                "parameters": size.parameters if size else None,
                "active": size.active if size else None,
                "nonzero": size.nonzero if size else None,
                "stored_bytes": size.stored_bytes if size else None,
                "effective_bits": size.effective_bits if size else None,
                "bpb": mean_bpb(variant, tasks),
                "accuracy": mean_accuracy(variant, tasks),
                **_flat("density", variant.density.params if variant.density else None),
                **_flat("ratio", parent.headline[0] if parent else None),
                "count": parent.count if parent else None,
                "verdict": parent.headline[1] if parent and parent.headline[0] else None,
                "failures": len(variant.failures),
            }
        )
    columns = "variant parent root named replicate_of chain counted parameters active nonzero stored_bytes effective_bits bpb accuracy"
    return _table([*columns.split(), *_ends("density"), *_ends("ratio"), "count", "verdict", "failures"], rows)


def densities(study: StudyRecord) -> pd.DataFrame:
    """One row per variant, basis ("params", "params by score", "active", "bits", "time") and, for time, hardware profile."""
    rows: list[dict[str, Any]] = []
    for variant in study.variants:
        if (density := variant.density) is None:
            continue
        single = {"params": density.params, "params by score": density.params_by_score, "active": density.active, "bits": density.bits}
        found = [(basis, "", interval) for basis, interval in single.items() if interval]
        found += [("time", hardware, interval) for hardware, interval in density.time.items()]
        for basis, hardware, interval in found:
            rows.append(
                {
                    "variant": variant.name,
                    "basis": basis,
                    "hardware": hardware,
                    **_flat("density", interval),
                    "modelled_seconds": density.modelled_seconds.get(hardware),
                    "reference": density.reference,
                    "tokens": density.tokens,
                    "tokens_per_parameter": density.tokens_per_parameter,
                }
            )
    after = ["modelled_seconds", "reference", "tokens", "tokens_per_parameter"]
    return _table(["variant", "basis", "hardware", *_ends("density"), *after], rows)


def ratios(study: StudyRecord) -> pd.DataFrame:
    """One row per variant, relation ("parent", "root"), basis and, for time, hardware profile: r, its interval and verdict.

    `replicates` is the number of replicates of the step between the two, `spread_of_replicates` and `spread_of_reference` the standard
    deviation of ln r between them and by the reference's training runs.
    """
    rows: list[dict[str, Any]] = []
    for variant in study.variants:
        for comparison in variant.comparisons:
            for basis, hardware, interval, verdict in existing_ratios(comparison):
                rows.append(
                    {
                        "variant": variant.name,
                        "against": comparison.against,
                        "relation": comparison.relation,
                        "basis": basis,
                        "hardware": hardware,
                        **_flat("ratio", interval),
                        "verdict": verdict,
                        "replicates": comparison.replicates,
                        "spread_of_replicates": comparison.spread_of_replicates,
                        "spread_of_reference": comparison.spread_of_reference,
                    }
                )
    before = ["variant", "against", "relation", "basis", "hardware"]
    return _table([*before, *_ends("ratio"), "verdict", "replicates", "spread_of_replicates", "spread_of_reference"], rows)


def robustness(study: StudyRecord) -> pd.DataFrame:
    """One row per variant, relation and other choice: r under that choice, its verdict, and whether it flips the study's."""
    rows = [
        {
            "variant": variant.name,
            "against": comparison.against,
            "relation": comparison.relation,
            "choice": choice.choice,
            "setting": choice.setting,
            **_flat("ratio", choice.ratio),
            "verdict": choice.verdict,
            "flips": choice.flips,
            "reason": choice.reason,
        }
        for variant in study.variants
        for comparison in variant.comparisons
        for choice in comparison.robustness
    ]
    return _table(["variant", "against", "relation", "choice", "setting", *_ends("ratio"), "verdict", "flips", "reason"], rows)


def overlaps(study: StudyRecord) -> pd.DataFrame:
    """One row per text and item that overlap: whether they share 13 and 8 consecutive words."""
    rows = [
        {"role": text.role, "source": text.source, "task": task.task, "item": item, "words_13": item in long, "words_8": item in short}
        for text in study.overlaps or []
        for task in text.tasks
        for long, short in [(set(task.words_13), set(task.words_8))]
        for item in sorted(long | short)
    ]
    return _table(["role", "source", "task", "item", "words_13", "words_8"], rows)


def laws(study: StudyRecord) -> pd.DataFrame:
    """One row per variant and published law: what it predicts for the variant's last step, what was measured, and the residual.

    `quantity` is "size ratio" (N_hat over that of the parent) or "nats a token". `outside` names what lies outside the law's fit.
    """
    rows = [
        {
            "law": row.law,
            "cited": row.cited,
            "variant": row.variant,
            "against": row.against,
            "quantity": row.quantity,
            **_flat("predicted", row.predicted),
            **_flat("measured", row.measured),
            "residual": row.residual,
            "compared": row.compared,
            "outside": "; ".join(row.outside),
            "reason": row.reason,
        }
        for row in (study.laws.predictions if study.laws else [])
    ]
    before, after = ["law", "cited", "variant", "against", "quantity"], ["residual", "compared", "outside", "reason"]
    return _table([*before, *_ends("predicted"), *_ends("measured"), *after], rows)


def law_refits(study: StudyRecord) -> pd.DataFrame:
    """One row per law, method and coefficient that was fitted to the study's own variants, with the published value where it is known."""
    rows = [
        {
            "law": fit.law,
            "parent": fit.parent,
            "method": fit.method,
            "form": fit.form,
            "coefficient": one.name,
            "value": one.value,
            "low": one.low,
            "high": one.high,
            "published": one.published,
            "points": fit.points,
            "scatter": fit.scatter,
            "variants": ", ".join(fit.variants),
            "left_out": ", ".join(fit.left_out),
        }
        for fit in (study.laws.refits if study.laws else [])
        for one in fit.coefficients
    ]
    columns = "law parent method form coefficient value low high published points scatter variants left_out"
    return _table(columns.split(), rows)


def task_differences(study: StudyRecord) -> pd.DataFrame:
    """One row per variant, relation, task and metric: the paired difference, child minus parent or root."""
    rows: list[dict[str, Any]] = []
    for variant in study.variants:
        for comparison in variant.comparisons:
            for task in comparison.tasks:
                for metric, interval in (("bits_per_byte", task.bits_per_byte), ("accuracy", task.accuracy)):
                    if interval is not None:
                        rows.append(
                            {
                                "variant": variant.name,
                                "against": comparison.against,
                                "relation": comparison.relation,
                                "task": task.task,
                                "items": task.items,
                                "metric": metric,
                                **_flat("difference", interval),
                                **({"lost": task.lost, "gained": task.gained, "mcnemar_p": task.mcnemar} if metric == "accuracy" else {}),
                            }
                        )
    before = ["variant", "against", "relation", "task", "items", "metric"]
    return _table([*before, *_ends("difference"), "lost", "gained", "mcnemar_p"], rows)


def fidelity(study: StudyRecord) -> pd.DataFrame:
    """One row per variant and task: how many answers are not the parent's, and how far apart the two are.

    `kl` is KL(parent || variant) of the distributions over the options, in nats an item, `gold` the log-likelihood of the gold
    continuation, variant minus parent, in nats a token. Columns from `common` on are those of generated answers.
    """
    rows = [
        {
            "variant": variant.name,
            "against": variant.parent,
            **{name: getattr(one, name) for name in ("task", "items", "left_out", "changed", "lost", "gained")},
            "mcnemar_p": one.mcnemar,
            **(dict(zip(("kl", "kl_stderr", "kl_items"), (one.kl.value, one.kl.stderr, one.kl.items), strict=True)) if one.kl else {}),
            **({"gold": one.gold.value, "gold_stderr": one.gold.stderr} if one.gold else {}),
            **(one.generated.model_dump() if one.generated else {}),
        }
        for variant in study.variants
        for one in variant.fidelity or []
    ]
    before = "variant against task items left_out changed lost gained mcnemar_p kl kl_stderr kl_items gold gold_stderr"
    return _table([*before.split(), *_fields(GeneratedAnswers)], rows)


def divergences(study: StudyRecord) -> pd.DataFrame:
    """One row per variant that was compared with its parent on a text: KL(parent || variant) in nats a token, and the agreement.

    `agreement` is the share of tokens at which both find the same next token most likely. `kl_top_k` is what the parent's `top_k` largest
    logits and the mass of all others tell of `kl`, for the smallest `top_k` that the study stores.
    """
    rows = [
        {
            "variant": variant.name,
            "against": variant.parent,
            "kl": found.kl.value,
            "kl_stderr": found.kl.stderr,
            **(dict(zip(("top_k", "kl_top_k"), min(found.top_k.items()), strict=True)) if found.top_k else {}),
            "sequences": found.kl.items,
            **found.model_dump(include={"agreement", "length", "documents", "bos", "source", "sha256", "weights", "parent_weights"}),
        }
        for variant in study.variants
        if (found := variant.divergence) is not None
    ]
    columns = "variant against kl kl_stderr top_k kl_top_k agreement sequences length documents bos source sha256 weights parent_weights"
    return _table(columns.split(), rows)


def noise(study: StudyRecord) -> pd.DataFrame:
    """One row per replicated variant, other model, quantity and task ("" for their mean): the difference beside that of two runs.

    `values` are those of the replicates, `others` those of the other model. `twice` is the standard deviation of the difference of two runs
    with its interval. Of divergences `others` are those between replicates, and `floor` is the largest of them.
    """
    rows = []
    for variant, found in noise_floors(study):
        row: dict[str, Any] = {"variant": variant.name, **found.model_dump(include={"against", "quantity", "task", "items"})}
        if isinstance(found, NoiseFloor):
            row |= found.model_dump(include={"relation", "effect", "degrees", "floor"}) | _flat("twice", found.twice)
            values, others = found.values, found.others
        else:
            values, others = found.to_parent, found.between
            row |= {"relation": "parent", "effect": sum(values) / len(values), "floor": max(others)}
        rows.append({**row, "larger": found.larger, "values": _joined(values), "others": _joined(others)})
    before = ["variant", "against", "relation", "quantity", "task", "items", "effect", "degrees"]
    return _table([*before, *_ends("twice"), "floor", "larger", "values", "others"], rows)


def _joined(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def costs(study: StudyRecord) -> pd.DataFrame:
    """One row per node of the study that ran: its seconds, peak memory in bytes, and tokens per second if it read text."""
    pairs = [(variant.name, node, cost) for variant in study.variants for node, cost in variant.costs.items()]
    rows = [{"variant": name, "node": node, **cost.model_dump(exclude={"version"})} for name, node, cost in pairs]
    return _table(["variant", "node", *_fields(Cost)], rows)


def times(study: StudyRecord) -> pd.DataFrame:
    """One row per variant and hardware: seconds of one request and the ratio to the parent's, modelled or measured (`kind`)."""
    rows: list[dict[str, Any]] = []
    by_name = {variant.name: variant for variant in study.variants}
    for variant in study.variants:
        if (timing := variant.timing) is not None:
            ends = {"ratio": timing.ratio, "ratio_low": timing.low, "ratio_high": timing.high, "weights": timing.weights}
            rows.append({"variant": variant.name, "kind": "measured", "hardware": timing.machine, "seconds": timing.seconds, **ends})
        ratios_ = modelled_ratios(variant, by_name)
        for hardware, seconds in (variant.density.modelled_seconds if variant.density else {}).items():
            row = {"variant": variant.name, "kind": "modelled", "hardware": hardware, "seconds": seconds, "ratio": ratios_.get(hardware)}
            engine = variant.density.engines.get(hardware) if variant.density else None
            interval = variant.density.modelled_interval.get(hardware) if variant.density else None
            ends = {"seconds_low": interval.low, "seconds_high": interval.high} if interval else {}
            rows.append({**row, "engine": engine, **ends})
    columns = "variant kind hardware seconds ratio ratio_low ratio_high weights engine seconds_low seconds_high"
    return _table(columns.split(), rows)


def scores(study: StudyRecord) -> pd.DataFrame:
    """One row per variant and task: the scores as recorded."""
    rows = [{"variant": variant.name, **score.model_dump(exclude={"version"})} for variant in study.variants for score in variant.scores]
    return _table(["variant", *_fields(TaskScore)], rows)


TABLES: dict[str, Callable[[StudyRecord], pd.DataFrame]] = {
    "variants": variants,
    "densities": densities,
    "ratios": ratios,
    "robustness": robustness,
    "overlaps": overlaps,
    "laws": laws,
    "law_refits": law_refits,
    "task_differences": task_differences,
    "fidelity": fidelity,
    "divergences": divergences,
    "noise": noise,
    "scores": scores,
    "times": times,
    "costs": costs,
}
"""Every table by name."""


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows in these columns, which a study without any row has as well. A value that a row lacks is missing."""
    unknown = {name for row in rows for name in row} - set(columns)
    assert not unknown, f"rows have columns that the table does not name: {sorted(unknown)}"
    return pd.DataFrame(list(rows), columns=list(columns))


def _fields(record: type[Record]) -> list[str]:
    """The columns of a whole record."""
    return [name for name in record.model_fields if name != "version"]


def _ends(name: str) -> tuple[str, ...]:
    """The columns of an interval."""
    return name, f"{name}_low", f"{name}_high", f"{name}_extrapolated", f"{name}_bound"


def _flat(name: str, interval: Interval | None) -> dict[str, Any]:
    keys = _ends(name)
    if interval is None:
        return dict.fromkeys(keys)
    return dict(zip(keys, (interval.value, interval.low, interval.high, interval.extrapolated, interval.bound), strict=True))
