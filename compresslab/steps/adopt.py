"""Adopt: take an existing model as the result of a chain that was run elsewhere."""

from __future__ import annotations

from typing import Any

from compresslab.methods.adopt import Adopt
from compresslab.models.formats.gguf_origin import origin_details
from compresslab.models.formats.reader import method_name, quantization_in
from compresslab.models.load import Loaded, load
from compresslab.records.compute import Dtype
from compresslab.steps.contract import Context, StepResult


def adopted(config: Adopt, dtype: Dtype, device: str | None = None) -> Loaded:
    """Load the model that the step names, with its own tokenizer."""
    return load(config.model, dtype, device=device)


def apply(loaded: Loaded, config: Adopt, context: Context) -> StepResult:
    """Return the loaded model, which `adopted` has loaded in place of the parent."""
    context.progress(1.0, "adopted")
    quantization = quantization_in(loaded.model)
    packed = {} if quantization is None else {"quantization": method_name(quantization)}
    return StepResult(loaded.model, details={**details_of(config), **packed})


def details_of(config: Adopt) -> dict[str, Any]:
    """What the record says of an adopted model, of plain weights or not."""
    return {"model": config.model, "how": config.how, **origin_details(config.model)}
