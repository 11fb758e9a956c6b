"""Adopting: an existing model is the result of a chain."""

from __future__ import annotations

from pydantic import PositiveFloat

from compresslab.methods.method import Method
from compresslab.methods.settings import NonEmptyText, StepConfig


class Adopt(StepConfig):
    """Take an existing model as the outcome of a chain; `how` says in words how it was made from its parent.

    `table` and `train_tokens` are as for the base. `trained` says whether training set its weights apart from its parent's. Without it, a
    model with the parent's architecture, dimensions and embedding whose config.json says that it is quantized counts as a copy of the
    parent's weights, and any other as trained.
    """

    model: NonEmptyText
    how: str = ""
    table: NonEmptyText | None = None
    train_tokens: PositiveFloat | None = None
    trained: bool | None = None


ADOPT = Method("adopt", "model", Adopt, "compresslab.steps.adopt")
