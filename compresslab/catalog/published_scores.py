"""Published benchmark scores by model and table, and the sizes of the models.

A table has the scores of one evaluator. Parent and child are compared within one table, because the scores of a model on a benchmark
differ between tables by more than the effect of many compressions. Scores are never averaged over tables. Which setting a score was
taken in is in `published_settings`; scores are read by task, which is a benchmark in a setting.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

from compresslab.catalog.published_settings import TASKS, task_of
from compresslab.catalog.published_shapes import WeightStorage, dimensions, size_and_shape
from compresslab.errors import BadInput
from compresslab.records import Shape, Size
from compresslab.suggestions import suggest

PREFIX = "published:"

BENCHMARKS = {benchmark: (TASKS[benchmark].items, TASKS[benchmark].chance) for benchmark in ("MMLU", "BBH", "MATH", "HumanEval", "MBPP")}
"""The Densing paper's five benchmarks: number of items, and the score of a guess."""

MISPRINTS = {("Qwen2.5-blog-base-2", "Gemma-2-27B", "WinoGrande"): "59.7, likely a misprint: 83.7 in Google's report, 71.5 for the 2B"}
"""Scores that are not read, by table, model and benchmark, with the reason."""

GROUP = 128
"""Weights per scale if a table does not state it: the default of GPTQ's and AWQ's tools."""

MOBILE = WeightStorage(5.0, head_bits=8.0, weight_only=False, head_apart=True, scale_bits=1.0)
"""Llama 3.2's 4-bit models: a 32-bit scale per group of 32, embedding and head at 8 bits. This gives the published file sizes."""

PACKED = {
    # A group has a scale of 16 bits and a zero point of the weights' width; a scale per row is below 0.01 bits per weight.
    "gptq-int8": WeightStorage(8 + 24 / GROUP, scale_bits=24 / GROUP),
    "gptq-int4": WeightStorage(4 + 20 / GROUP, scale_bits=20 / GROUP),
    "gptq-int4 (w4a16)": WeightStorage(4 + 20 / GROUP, scale_bits=20 / GROUP),
    "awq": WeightStorage(4 + 20 / GROUP, scale_bits=20 / GROUP),
    "awq (int4 onnx)": WeightStorage(4 + 20 / GROUP, scale_bits=20 / GROUP),
    "w8a16": WeightStorage(8.0),
    "w8a8": WeightStorage(8.0, weight_only=False),
    "fp8": WeightStorage(8.0, weight_only=False),
    "w4a8 vanilla PTQ (group 32)": MOBILE,
    "w4a8 SpinQuant+GPTQ (group 32)": MOBILE,
    "w4a8 QAT+LoRA (group 32)": replace(MOBILE, trained=True),
}
"""Storage of the weights in a quantized model's layers, by the table's name of the compression."""

TOKENS = re.compile(r"(?:~|up to )?(?P<number>[0-9.]+)(?P<unit>[BT])\+?")
"""How tables state a model's training tokens."""


@dataclass(frozen=True)
class Score:
    """One row of a table. `score` is a share in [0, 1]. `parent` and `compression` are as the table states them.

    `benchmark`, `metric` and `shots` are the table's words. `task` is the benchmark in its setting, "" if no reference has that setting,
    and `setting` says why, or which.
    """

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
    task: str
    setting: str


@cache
def all_scores() -> tuple[Score, ...]:
    """Every published score.

    Raises:
        BadInput: a missing or invalid value, with its table, model and benchmark.
    """
    parsed = []
    for row in _rows("published_scores.csv"):
        where = f"{row['table_id']}, {row['model']}, {row['benchmark']}"
        task, setting = task_of(row["benchmark"], row["table_id"], row["n_shot"], row["metric"])
        if misprint := MISPRINTS.get((row["table_id"], row["model"], row["benchmark"])):
            task, setting = "", misprint
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
                task=task,
                setting=setting,
            )
        )
    return tuple(parsed)


@cache
def scores() -> tuple[Score, ...]:
    """Every published score of the Densing paper's five benchmarks, in any setting."""
    return tuple(score for score in all_scores() if score.benchmark in BENCHMARKS)


@cache
def tables() -> dict[str, tuple[str, str]]:
    """Evaluator and source of each table, by table."""
    return {row["table_id"]: (row["evaluator"], row["source"]) for row in _rows("published_tables.csv")}


def model_names() -> list[str]:
    """Every model with a published score."""
    return sorted({score.model for score in all_scores()})


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
    """A model's scores in one table by task, of all tasks that a reference reads; empty if the table lacks the model."""
    return {score.task: score for score in all_scores() if score.model == model and score.table == table and score.task}


def unread(model: str, table: str) -> list[str]:
    """The scores of a model in a table whose setting no reference reads: benchmark and setting in words."""
    found = [score for score in all_scores() if score.model == model and score.table == table and not score.task]
    return [f"{score.benchmark} ({score.setting})" for score in found]


def tables_of(model: str) -> list[str]:
    """The tables with scores of a model."""
    return list(dict.fromkeys(score.table for score in all_scores() if score.model == model))


def one_evaluation(first: str, second: str) -> bool:
    """Whether two tables are parts of one document by one evaluator, so that their scores compare as those of one table do."""
    return tables()[first] == tables()[second]


def compression(model: str) -> tuple[str, str]:
    """A model's parent and its compression, as its tables state them; two empty texts for a model without a parent."""
    found = next((score for score in all_scores() if score.model == model and score.parent), None)
    return (found.parent, found.compression) if found else ("", "")


def train_tokens(model: str) -> float | None:
    """The tokens that a model was pretrained on, as its tables state them; a bound ("15T+", "up to 9T") stands for the number.

    `None` where no table states them, or where they are those of a later training ("94B (distillation)").
    """
    stated = next((score.tokens for score in all_scores() if score.model == model and score.tokens), "")
    found = TOKENS.fullmatch(stated)
    return float(found["number"]) * {"B": 1e9, "T": 1e12}[found["unit"]] if found else None


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
