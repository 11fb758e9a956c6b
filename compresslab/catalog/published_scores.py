"""Published benchmark scores: which model scored what in which table, and what the models weigh.

A score stands in a table, made by one evaluator in one setting. Parent and child compare within one table; the same model on the
same benchmark differs between tables by more than many compressions cost. Nothing is averaged over tables.
"""

from __future__ import annotations

import csv
import difflib
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

from compresslab.catalog.published_shapes import StoredAs, dimensions, weigh
from compresslab.errors import BadInput
from compresslab.records import Shape, Size

PREFIX = "published:"

BENCHMARKS = {
    "MMLU": (14042, 1 / 4),
    "BBH": (6511, 0.0),
    "MATH": (5000, 0.0),
    "HumanEval": (164, 0.0),
    "MBPP": (500, 0.0),
}
"""The Densing paper's five: number of items, and the score of a guess.

The items are those of the public test sets; tables do not state theirs, and some EvalPlus tables count 378 of MBPP's 500. BBH's guess is 0:
answers are generated after a chain of thought and matched exactly, and weak models fall below the options' chance (Qwen2.5-0.5B has
20.3%, a guess among the options about 26%). With 0.257 the curves predict left-out BBH scores no better: they miss by 0.012 on
Qwen2.5 and 0.024 on Llama, against 0.012 and 0.022 (`experiments/ruler/forms.py bbh`).
"""

GROUP = 128
"""Weights that share a scale, where a table does not say: the default of GPTQ's and AWQ's tools."""

MOBILE = StoredAs(5.0, head_bits=8.0, weight_only=False, head_apart=True)
"""Llama 3.2's 4-bit models: groups of 32 share a 32-bit scale, embedding and head have 8 bits each: gives the published files' sizes."""

PACKED = {
    # A group has a scale of 16 bits and a zero point of the weights' width; a scale a row is below 0.01 bits a weight.
    "gptq-int8": StoredAs(8 + 24 / GROUP),
    "gptq-int4": StoredAs(4 + 20 / GROUP),
    "gptq-int4 (w4a16)": StoredAs(4 + 20 / GROUP),
    "awq": StoredAs(4 + 20 / GROUP),
    "awq (int4 onnx)": StoredAs(4 + 20 / GROUP),
    "w8a16": StoredAs(8.0),
    "w8a8": StoredAs(8.0, weight_only=False),
    "fp8": StoredAs(8.0, weight_only=False),
    "w4a8 vanilla PTQ (group 32)": MOBILE,
    "w4a8 SpinQuant+GPTQ (group 32)": MOBILE,
    "w4a8 QAT+LoRA (group 32)": replace(MOBILE, trained=True),
}
"""How a quantized model stores the weights of its layers."""


@dataclass(frozen=True)
class Score:
    """One row of a table. `score` is a share in [0, 1]. `parent` and `compression` as the table's authors state them."""

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
        BadInput: a gap or a value that is no score, by table, model and benchmark.
    """
    found = []
    for row in _rows("published_scores.csv"):
        where = f"{row['table_id']}, {row['model']}, {row['benchmark']}"
        found.append(
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
                score=_number(row["score"], where, 100.0, least=0.0) / 100,
                note=row["note"],
            )
        )
    return tuple(found)


@cache
def tables() -> dict[str, tuple[str, str]]:
    """Who made each table, and where it stands."""
    return {row["table_id"]: (row["evaluator"], row["source"]) for row in _rows("published_tables.csv")}


def model_names() -> list[str]:
    """Every model with a published score."""
    return sorted({score.model for score in scores()})


def find_model(name: str) -> str:
    """The model's name if there is one of that name. Raises BadInput with what may have been meant."""
    names = model_names()
    if name in names:
        return name
    close = difflib.get_close_matches(name, names, n=3)
    raise BadInput(f"no published scores of {name!r}{_meant(close)}")


def find_table(name: str) -> str:
    """The table's name if there is one of that name. Raises BadInput with what may have been meant."""
    if name in tables():
        return name
    raise BadInput(f"there is no published table {name!r}{_meant(difflib.get_close_matches(name, list(tables()), n=3))}")


def of_model(model: str, table: str) -> dict[str, Score]:
    """A model's scores in one table, by benchmark; empty if it is not there."""
    return {score.benchmark: score for score in scores() if score.model == model and score.table == table}


def tables_of(model: str) -> list[str]:
    """The tables that a model stands in."""
    return list(dict.fromkeys(score.table for score in scores() if score.model == model))


def compression(model: str) -> tuple[str, str]:
    """A model's parent and how it was made from it, as its tables state; two empty texts for a model trained by itself."""
    found = next((score for score in scores() if score.model == model and score.parent), None)
    return (found.parent, found.compression) if found else ("", "")


def weights(model: str) -> tuple[Size, Shape]:
    """What a published model weighs and its dimensions; a quantized model has its parent's dimensions.

    Raises:
        BadInput: the dimensions of the model are not known.
    """
    parent, how = compression(model)
    stored = PACKED.get(how)
    return weigh(model) if stored is None or model in dimensions() else weigh(parent, stored)


def _rows(name: str) -> list[dict[str, str]]:
    text = (resources.files("compresslab") / "data" / name).read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))


def _number(text: str, where: str, most: float, least: float = 1e-9) -> float:
    try:
        value = float(text)
    except ValueError:
        raise BadInput(f"{where} is {text or 'missing'}; it must be a number") from None
    if not least <= value <= most:
        raise BadInput(f"{where} is {value}; it must lie between {least} and {most}")
    return value


def _meant(close: list[str]) -> str:
    return f"; did you mean {' or '.join(close)}?" if close else ""
