"""The front matter of a model card, in the form that the Hub reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from huggingface_hub import EvalResult, ModelCardData

from compresslab.export.origin import Origin
from compresslab.records import StepRecord, StudyRecord, TaskScore, VariantRecord
from compresslab.report import words

Relation = Literal["quantized", "finetune"]


def front_matter(
    study: StudyRecord, variant: VariantRecord, origin: Origin, gguf: str = "", shipped: Sequence[TaskScore] | None = None
) -> str:
    """The metadata as YAML, without the lines around it. Fields that are not known are left out.

    Args:
        origin: what is known of the model that the variant was made from.
        gguf: the format of the weights of a GGUF file; empty for a folder.
        shipped: the scores of the file. Without them a rounded file has none: those of the folder are not its own.
    """
    relation = relation_of(variant, gguf)
    scores = shipped if shipped is not None else [] if gguf[:1] == "Q" else variant.scores
    results = list(_results(scores))
    data = ModelCardData(
        license=origin.license or None,
        license_name=origin.license_name or None,
        license_link=origin.license_link or None,
        language=list(origin.languages) or None,
        library_name="gguf" if gguf else "transformers",
        pipeline_tag="text-generation",
        tags=["compresslab", *dict.fromkeys(step.method for step in _changes(variant)), *([gguf.lower()] if gguf else [])],
        base_model=origin.hub_id or None,
        base_model_relation=relation if origin.hub_id else None,
        model_name=f"{study.study} {variant.name}" if results else None,
        eval_results=results or None,
    )
    return data.to_yaml()


def relation_of(variant: VariantRecord, gguf: str = "") -> Relation | None:
    """How the Hub names the way from the base to a variant; `None` for an unchanged copy.

    The Hub knows adapters, merges, quantized models and finetunes. Pruned, distilled and retrained models have other weights than their
    base, which the Hub calls a finetune, also if they are quantized afterwards.
    """
    kinds = {step.kind for step in _changes(variant)} | ({"quantize"} if gguf[:1] == "Q" else set())
    return None if not kinds else "quantized" if kinds == {"quantize"} else "finetune"


def _changes(variant: VariantRecord) -> list[StepRecord]:
    """The steps after the model that the variant was made from."""
    origin = max((number for number, step in enumerate(variant.steps) if step.kind in ("base", "adopt")), default=-1)
    return list(variant.steps[origin + 1 :])


def _results(scores: Sequence[TaskScore]) -> Iterator[EvalResult]:
    for score in scores:
        yield _result(score, "accuracy", f"accuracy ({score.metric})", score.accuracy)
        if score.bits_per_byte is not None:
            yield _result(score, "bits_per_byte", "bits-per-byte of the right answer", score.bits_per_byte)


def _result(score: TaskScore, metric: str, name: str, value: float) -> EvalResult:
    return EvalResult(
        task_type="text-generation",
        dataset_type=score.task,
        dataset_name=f"{score.task}, {words.count(score.items)} items",
        metric_type=metric,
        metric_name=name,
        metric_value=round(value, 6),
    )
