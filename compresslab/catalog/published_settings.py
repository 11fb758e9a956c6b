"""Benchmarks in their settings: what a published score measures, so that a score is only read where a reference has the same.

A task is one benchmark in one setting: shots, what the model does (picks a letter, is asked for the likelihood of the answers, answers
after a chain of thought), and metric. `data/published_settings.csv` gives the task of every benchmark, number of shots and metric of
the tables, with the evidence where a table's own words do not tell. A row with a table applies to that table alone and comes first.
A row without a task is a setting in which no reference's models have scores; its note says which.
"""

from __future__ import annotations

import csv
from collections.abc import Container, Iterable
from functools import cache
from importlib import resources
from typing import NamedTuple


class Task(NamedTuple):
    """One benchmark in one setting: number of items, the score of a guess, the benchmark's name in the tables, and the setting in words."""

    items: int
    chance: float
    benchmark: str
    setting: str


TASKS = {
    "MMLU": Task(14042, 1 / 4, "MMLU", "5-shot, letters"),
    "BBH": Task(6511, 0.0, "BBH", "3-shot, chain of thought, exact match"),
    "MATH": Task(5000, 0.0, "MATH", "4-shot, exact match"),
    "HumanEval": Task(164, 0.0, "HumanEval", "0-shot, pass@1"),
    "MBPP": Task(500, 0.0, "MBPP", "3-shot, pass@1"),
    "MBPP EvalPlus": Task(378, 0.0, "MBPP", "0-shot, EvalPlus's tasks and base tests, pass@1"),
    "EvalPlus average": Task(542, 0.0, "EvalPlus", "0-shot, average of HumanEval and MBPP with base and further tests"),
    "GSM8K 4-shot": Task(1319, 0.0, "GSM8K", "4-shot, exact match"),
    "GSM8K 5-shot": Task(1319, 0.0, "GSM8K", "5-shot, exact match after ####"),
    "GSM8K 8-shot": Task(1319, 0.0, "GSM8K", "8-shot, exact match"),
    "MMLU-Pro": Task(12032, 1 / 10, "MMLU-Pro", "5-shot, chain of thought"),
    "MMLU-Pro letters": Task(12032, 1 / 10, "MMLU-Pro", "5-shot, likelihood of the letters"),
    "BBH direct": Task(6511, 0.0, "BBH", "3-shot, answers without reasoning, exact match"),
    "BBH likelihood": Task(5761, 0.292, "BBH", "3-shot, likelihood of the options, not normalised by a guess"),
    "MATH level 5": Task(1324, 0.0, "MATH", "4-shot, level 5 only, exact match"),
    "ARC-C 25-shot": Task(1172, 1 / 4, "ARC-C", "25-shot, likelihood of the answers by length"),
    "ARC-C 0-shot": Task(1172, 1 / 4, "ARC-C", "0-shot, likelihood of the answers by length"),
    "HellaSwag 10-shot": Task(10042, 1 / 4, "HellaSwag", "10-shot, likelihood of the endings by length"),
    "HellaSwag 0-shot": Task(10042, 1 / 4, "HellaSwag", "0-shot, likelihood of the endings by length"),
    "WinoGrande 5-shot": Task(1267, 1 / 2, "WinoGrande", "5-shot, likelihood of the rest"),
    "WinoGrande 0-shot": Task(1267, 1 / 2, "WinoGrande", "0-shot, likelihood of the rest"),
}
"""Every task that a reference reads. The first five are the Densing paper's.

The items are those of the public test sets; tables do not state theirs. BBH's guess is 0 where answers are generated and matched exactly,
because weak models then fall below the options' chance (Qwen2.5-0.5B has 20.3%), which 0.257 would leave without a reading. With it
the curves miss left-out BBH scores by 0.011 on Qwen2.5 and by 0.067 on Llama, with 0 by 0.014 and 0.067 (`experiments/ruler/forms.py bbh`).
By likelihood the guess is the mean over the 24 subtasks of 1 / options; GPT-2 has 29.8%.
"""


@cache
def _settings() -> dict[tuple[str, str, str, str], tuple[str, str]]:
    text = (resources.files("compresslab") / "data" / "published_settings.csv").read_text("utf-8")
    rows = csv.DictReader(text.splitlines())
    return {(row["benchmark"], row["table_id"], row["n_shot"], row["metric"]): (row["task"], row["note"]) for row in rows}


def task_of(benchmark: str, table: str, shots: str, metric: str) -> tuple[str, str]:
    """The task of a table's benchmark ("" for none), and a note: the evidence for it, or for none the setting in words."""
    settings = _settings()
    for place in (table, ""):
        if (benchmark, place, shots, metric) in settings:
            return settings[benchmark, place, shots, metric]
    return "", f"{shots or 'unstated'} shots, {metric or 'no metric stated'}"


def other_settings(benchmark: str, known: Iterable[str]) -> list[str]:
    """Those of the tasks `known` that are the same benchmark, each with its setting in words."""
    return [f"{task} ({TASKS[task].setting})" for task in known if task in TASKS and TASKS[task].benchmark == benchmark]


def mismatch(task: str, reference: str, known: Container[str]) -> str:
    """Why a reference with the tasks `known` does not read a published task, in one sentence."""
    benchmark, setting = TASKS[task].benchmark, TASKS[task].setting
    others = other_settings(benchmark, [other for other in TASKS if other in known])
    there = f"it reads {', '.join(others)}" if others else f"it has no {benchmark}"
    return f"{task} is {setting}, which {reference} does not read; {there}"
