"""Published benchmark scores by model and table, and the sizes of the models.

A table has the scores of one evaluator in one setting. Parent and child are compared within one table, because the scores of a model on
a benchmark differ between tables by more than the effect of many compressions. Scores are never averaged over tables.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

from compresslab.catalog.published_shapes import WeightStorage, dimensions, size_and_shape
from compresslab.errors import BadInput
from compresslab.records import Shape, Size
from compresslab.suggestions import suggest

PREFIX = "published:"

BENCHMARKS = {
    "MMLU": (14042, 1 / 4),
    "BBH": (6511, 0.0),
    "MATH": (5000, 0.0),
    "HumanEval": (164, 0.0),
    "MBPP": (500, 0.0),
}
"""The Densing paper's five benchmarks: number of items, and the score of a guess.

The items are those of the public test sets; tables do not state theirs, and some EvalPlus tables count 378 of MBPP's 500. BBH's guess is 0:
answers are generated after a chain of thought and matched exactly, and weak models fall below the options' chance (Qwen2.5-0.5B has
20.3%, a guess among the options about 26%). With 0.257 the curves predict left-out BBH scores no better: they miss by 0.012 on
Qwen2.5 and 0.024 on Llama, against 0.012 and 0.022 (`experiments/ruler/forms.py bbh`).
"""

GROUP = 128
"""Weights per scale if a table does not state it: the default of GPTQ's and AWQ's tools."""

MOBILE = WeightStorage(5.0, head_bits=8.0, weight_only=False, head_apart=True)
"""Llama 3.2's 4-bit models: a 32-bit scale per group of 32, embedding and head at 8 bits. This gives the published file sizes."""

PACKED = {
    # A group has a scale of 16 bits and a zero point of the weights' width; a scale per row is below 0.01 bits per weight.
    "gptq-int8": WeightStorage(8 + 24 / GROUP),
    "gptq-int4": WeightStorage(4 + 20 / GROUP),
    "gptq-int4 (w4a16)": WeightStorage(4 + 20 / GROUP),
    "awq": WeightStorage(4 + 20 / GROUP),
    "awq (int4 onnx)": WeightStorage(4 + 20 / GROUP),
    "w8a16": WeightStorage(8.0),
    "w8a8": WeightStorage(8.0, weight_only=False),
    "fp8": WeightStorage(8.0, weight_only=False),
    "w4a8 vanilla PTQ (group 32)": MOBILE,
    "w4a8 SpinQuant+GPTQ (group 32)": MOBILE,
    "w4a8 QAT+LoRA (group 32)": replace(MOBILE, trained=True),
}
"""Storage of the weights in a quantized model's layers, by the table's name of the compression."""


@dataclass(frozen=True)
class Score:
    """One row of a table. `score` is a share in [0, 1]. `parent` and `compression` are as the table states them."""

    table: str
    model: str
    parent: str
    family: str
    params: float
    active: float
    released: str
    tokens: str
    kind: str
    compression: str
    benchmark: str
    metric: str
    shots: str
    score: float
    note: str


@cache
def scores() -> tuple[Score, ...]:
    """Every published score of the five benchmarks.

    Raises:
        BadInput: a missing or invalid value, with its table, model and benchmark.
    """
    parsed = []
    for row in _rows("published_scores.csv"):
        where = f"{row['table_id']}, {row['model']}, {row['benchmark']}"
        parsed.append(
            Score(
                table=row["table_id"],
                model=row["model"],
                parent=row["parent"],
                family=row["family"],
                params=_number(row["params_total"], f"{where}: params_total", 1e6) * 1e9,
                active=_number(row["params_active"] or row["params_total"], f"{where}: params_active", 1e6) * 1e9,
                released=row["release_date"],
                tokens=row["train_tokens"],
                kind=row["kind"],
                compression=row["compression"],
                benchmark=row["benchmark"],
                metric=row["metric"],
                shots=row["n_shot"],
                score=_number(row["score"], where, 100.0, minimum=0.0) / 100,
                note=row["note"],
            )
        )
    return tuple(parsed)


@cache
def tables() -> dict[str, tuple[str, str]]:
    """Evaluator and source of each table, by table."""
    return {row["table_id"]: (row["evaluator"], row["source"]) for row in _rows("published_tables.csv")}


def model_names() -> list[str]:
    """Every model with a published score."""
    return sorted({score.model for score in scores()})


def find_model(name: str) -> str:
    """The name, if a model has it. Raises BadInput with similar names."""
    names = model_names()
    if name in names:
        return name
    raise BadInput(f"no published scores of {name[:200]!r};{suggest(name, names, 3)}".rstrip(";"))


def find_table(name: str) -> str:
    """The name, if a table has it. Raises BadInput with similar names."""
    if name in tables():
        return name
    raise BadInput(f"there is no published table {name[:200]!r};{suggest(name, tables(), 3)}".rstrip(";"))


def scores_of(model: str, table: str) -> dict[str, Score]:
    """A model's scores in one table, by benchmark; empty if the table lacks the model."""
    return {score.benchmark: score for score in scores() if score.model == model and score.table == table}


def tables_of(model: str) -> list[str]:
    """The tables with scores of a model."""
    return list(dict.fromkeys(score.table for score in scores() if score.model == model))


def compression(model: str) -> tuple[str, str]:
    """A model's parent and its compression, as its tables state them; two empty texts for a model without a parent."""
    found = next((score for score in scores() if score.model == model and score.parent), None)
    return (found.parent, found.compression) if found else ("", "")


def weights(model: str) -> tuple[Size, Shape]:
    """Size and shape of a published model; a quantized model has its parent's dimensions.

    Raises:
        BadInput: the dimensions of the model are not known.
    """
    parent, how = compression(model)
    stored = PACKED.get(how)
    return size_and_shape(model) if stored is None or model in dimensions() else size_and_shape(parent, stored)


def _rows(name: str) -> list[dict[str, str]]:
    text = (resources.files("compresslab") / "data" / name).read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))


def _number(text: str, where: str, maximum: float, minimum: float = 1e-9) -> float:
    try:
        value = float(text)
    except ValueError:
        raise BadInput(f"{where} is {text or 'missing'}; it must be a number") from None
    if not minimum <= value <= maximum:
        raise BadInput(f"{where} is {value}; it must lie between {minimum} and {maximum}")
    return value
