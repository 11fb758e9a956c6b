"""What the last step of a variant did to its parent, in the terms of the laws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import ValidationError

from compresslab.errors import BadInput
from compresslab.methods.registry import method
from compresslab.records import StepRecord, VariantRecord

Change = Literal["rounded", "zeros", "cut", "trained", "other"]


@dataclass(frozen=True)
class Setting:
    """A step and the model that it started from.

    Attributes:
        method: of the step; of a published model the table's name of the compression.
        params: parameters of the parent without the embedding. tokens: training tokens of the model at the chain's start, `None` where
            nobody said. removed: share of the weights that are zero or gone. bits: of a weight's code.
        rounds_inputs: activations are rounded as well. after_rounding: the weights were trained after rounding.
        distills: the step trains on a teacher's distributions. pruned: a step before it pruned.
        parent_note: how the parent differs from the models of the fits, or "".
    """

    change: Change
    method: str
    params: float
    tokens: float | None
    mixture: bool
    bits: int | None = None
    removed: float | None = None
    rounds_inputs: bool = False
    after_rounding: bool = False
    distills: bool = False
    pruned: bool = False
    parent_note: str = ""


def setting_of(variant: VariantRecord, parent: VariantRecord, tokens: Mapping[str, float]) -> Setting:
    """The setting of a variant's last step.

    Args:
        tokens: training tokens by model, for models whose record does not state them.
    """
    last, before = variant.steps[-1], parent.steps[-1]
    shape, size = before.shape, before.size
    changed = {step.kind for step in parent.steps} & {"prune", "distill", "retrain", "quantize"}
    setting = Setting(
        change="other",
        method=last.method,
        params=size.counted - shape.vocabulary * shape.hidden,
        tokens=_training_tokens(parent.steps, tokens),
        mixture=shape.experts > 0,
        rounds_inputs=not last.shape.weight_only,
        pruned="prune" in changed,
        parent_note=f"the parent itself was changed ({', '.join(sorted(changed))}); the tokens are those of its base" if changed else "",
    )
    if last.kind in ("distill", "retrain"):
        return replace(setting, change="trained", distills=last.kind == "distill")
    if last.kind == "prune":
        return _pruned(setting, last)
    return _rounded(setting, last)


def _pruned(setting: Setting, last: StepRecord) -> Setting:
    if "sparsity" in last.details:
        return replace(setting, change="zeros", removed=float(last.details["sparsity"]))
    # What a cut removes is counted without the embedding, as the laws count N.
    left = last.size.counted - last.shape.vocabulary * last.shape.hidden
    known = 0 < left < setting.params
    return replace(setting, change="cut", removed=1 - left / setting.params) if known else setting


def _rounded(setting: Setting, last: StepRecord) -> Setting:
    if "weight_bits" in last.details:  # a published model that a table calls quantized
        bits, trained, how = (last.details[key] for key in ("weight_bits", "trained_after", "compression"))
        return replace(setting, change="rounded", method=str(how).lower(), bits=int(bits), after_rounding=bool(trained))
    if last.kind != "quantize":
        return setting
    try:
        entry = method(last.kind, last.method)
        settings = entry.config.model_validate(last.config)
    except (BadInput, ValidationError):
        return setting  # a method of a package that is not installed here
    if entry.format is None or entry.packing is None:
        return setting
    return replace(setting, change="rounded", bits=entry.packing(settings).bits)


def _training_tokens(steps: list[StepRecord], tokens: Mapping[str, float]) -> float | None:
    """Tokens of the model at the start of a chain, or of the last adopted one; a step's own training counts nothing beside them."""
    start = next((step for step in reversed(steps) if step.kind in ("base", "adopt")), None)
    if start is None:  # the record of a variant that was made elsewhere need not begin with its base
        return None
    stated = start.config.get("train_tokens") or start.details.get("train_tokens") or tokens.get(str(start.config.get("model")))
    return float(stated) if stated else None
