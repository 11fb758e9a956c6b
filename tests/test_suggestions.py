"""Suggestions are quick on long lists and many mistakes, and one error lists no more than can be read."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from compresslab.catalog import stock_tasks
from compresslab.errors import BadInput, RecipeError
from compresslab.plan.prepare import prepare
from compresslab.suggestions import MOST_PROBLEMS, similar, suggest

HEAD = "study: s\nbase: {model: offline:smollm2-135m-instruct}\n"
LONG_LIST = [f"{kind}_{number}" for kind in ("mmlu", "arc", "hellaswag", "belebele") for number in range(5000)]


def test_the_most_similar_names_come_first():
    assert suggest("bse", ["other", "bases", "base"], 2) == " did you mean 'base' or 'bases'?"
    assert suggest("lr", ["learning_rate", "betas"]) == " did you mean 'learning_rate'?"
    assert suggest("xyz", ["base"]) == ""


def test_a_long_list_is_searched_in_milliseconds_and_to_its_end():
    similar("warm", LONG_LIST)
    begun = time.perf_counter()
    assert similar("beleble_4999", LONG_LIST)[0] == "belebele_4999"
    assert similar("HellaSwag-17", LONG_LIST)[0] == "hellaswag_17"
    assert time.perf_counter() - begun < 5


def tasks(count: int) -> str:
    return f"{HEAD}evaluate: {{tasks: [{', '.join(f'arc_eazy_{number}' for number in range(count))}]}}\n"


def keys(count: int) -> str:
    return f"{HEAD}evaluate: {{tasks: [arc_easy]}}\n" + "".join(f"evaluat{number}: 1\n" for number in range(count))


def variants(count: int) -> str:
    lines = (f"  v{number}: {{from: w{number}, steps: [prune: {{method: depth, keep: 3}}]}}\n" for number in range(count))
    return f"{HEAD}evaluate: {{tasks: [arc_easy]}}\nvariants:\n{''.join(lines)}"


def hardware(count: int) -> str:
    return f"{HEAD}evaluate: {{tasks: [arc_easy]}}\ndensity: {{hardware: [{', '.join(f'g{number}00-sxm' for number in range(count))}]}}\n"


@pytest.mark.parametrize(("recipe", "count"), [(tasks, 300), (tasks, 6000), (keys, 5000), (variants, 1500), (hardware, 5000)])
def test_many_mistakes_are_counted_and_the_first_are_listed(tmp_path: Path, recipe: Callable[[int], str], count: int):
    path = tmp_path / "r.yaml"
    path.write_text(recipe(count))
    begun = time.perf_counter()
    with pytest.raises(RecipeError) as caught:
        prepare(path)
    assert time.perf_counter() - begun < 30
    lines = str(caught.value).splitlines()
    assert len(caught.value.problems) == count
    assert lines[0] == f"{count} problems in the recipe:"
    assert len(lines) == MOST_PROBLEMS + 2
    assert lines[-1] == f"and {count - MOST_PROBLEMS} more"


def test_a_task_gets_suggestions_of_all_tasks():
    with pytest.raises(BadInput, match=r"no task is called hellaswg; did you mean '.*hellaswag'"):
        stock_tasks.find("hellaswg")
    with pytest.raises(BadInput, match=r"no task is called hellaswag\\u001b\[31m\\u202e; did you mean"):
        stock_tasks.find("hellaswag\x1b[31m\u202e")
