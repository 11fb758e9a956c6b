"""The form of a reference's file: which values it has, and of which kind. A user's own file is checked against it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, Strict, model_validator

from compresslab.printable import unprintable

Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
Factor = Annotated[Number, Field(ge=1)]

UNTESTED_REACH = (3.98, 2.48)
"""The reach of a reference whose file has none, because it is from before 2026-11-26: that of the OLMo ladder, untested for this one."""


def _shown(text: str) -> str:
    if unprintable(text):
        raise ValueError("it has a character that cannot be printed")
    return text


Text = Annotated[str, AfterValidator(_shown)]


class TaskForm(BaseModel):
    """One task in a reference's file; `reference.TaskFit` explains the values."""

    loss: Annotated[list[Number], Field(min_length=5, max_length=5)]
    loss_resamples: Annotated[list[Annotated[list[Number], Field(min_length=5, max_length=5)]], Field(min_length=1)]
    score: Annotated[list[Number], Field(min_length=4, max_length=4)] | None
    score_resamples: list[Annotated[list[Number], Field(min_length=4, max_length=4)]] | None = None
    latent: Text
    chance: Annotated[Number, Field(ge=0, lt=1)] | None
    r2_loss: Number | None
    r2_score: Number | None
    loss_range: tuple[Number, Number] | None
    score_range: tuple[Number, Number] | None
    loss_left: list[Number] | None
    score_left: list[Number] | None
    held_out: dict[Text, dict[Text, Number]]
    origin: Text
    points: list[tuple[Number, Number]] = []

    @model_validator(mode="after")
    def _as_many_resamples(self) -> TaskForm:
        if self.score is not None and len(self.score_resamples or ()) != len(self.loss_resamples):
            raise ValueError("it has not as many resamples of the score as of the loss")
        needed = {"loss", "loss_error"} | ({"score", "score_error", "score_error_given_loss"} if self.score is not None else set())
        for run, errors in self.held_out.items():
            if missing := sorted(needed - set(errors)):
                raise ValueError(f"its held-out run {run!r} lacks {missing[0]}")
        return self


class ReferenceForm(BaseModel):
    """A reference's file; `reference.Reference` explains the values."""

    name: Text
    source: Text
    kind: Literal["ladder", "family"]
    unit: Text
    convention: Text
    form: dict[Text, Text | Number | None]
    parameters_range: tuple[Positive, Positive]
    tokens_range: tuple[Positive, Positive]
    runs: Annotated[int, Strict(), Field(ge=1)]
    reach: tuple[Factor, Factor] | None = None
    reach_tested: tuple[bool, bool] | None = None
    tasks: dict[Text, TaskForm] = Field(min_length=1)

    @model_validator(mode="after")
    def _hangs_together(self) -> ReferenceForm:
        for low, high in (self.parameters_range, self.tokens_range):
            if low > high:
                raise ValueError(f"the range from {low:g} to {high:g} is none")
        if self.reach is None and self.reach_tested is not None:
            raise ValueError("it has reach_tested and no reach")
        if len({len(task.loss_resamples) for task in self.tasks.values()}) != 1:
            raise ValueError("its tasks do not have equally many resamples")
        return self


def checked(raw: Any) -> dict[str, Any]:
    """The content of a reference's file as plain values.

    Raises:
        ValueError: a value is missing or of another kind; the message names the first.
    """
    return ReferenceForm.model_validate(raw).model_dump()
