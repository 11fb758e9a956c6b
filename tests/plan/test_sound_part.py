"""All mistakes of a recipe are told in one round: those of its form, and those of its sound part that only a plan sees."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from compresslab.errors import RecipeError
from compresslab.plan.prepare import prepare
from compresslab.recipe.changes import Changes
from compresslab.recipe.load import load

sys.path.append(str(Path(__file__).parents[1] / "recipe"))
from malformed_recipes import CASES

RECIPE = """\
study: my study
base: {model: offline:smollm2-135m-instruct}
text: {calibration: {source: no.txt, samples: x}}
variants:
  a: [prune: {method: depth, keep: 40}]
  b: [prune: {method: depth, kep: 4}]
  c: {from: b, steps: [quantize: {method: rtn, group_size: 7}]}
  d: {from: nobody, steps: [quantize: {method: rtn}]}
  e: [quantize: {method: bnb-nf4}, prune: {method: depth, keep: 3}]
sweeps:
  "f-{k}": {grid: {k: [31, 3]}, steps: [prune: {method: depth, keep: "{k}"}]}
  "g-{k}": {grid: {k: []}, steps: [prune: {method: depth, keep: "{k}"}]}
evaluate: {tasks: [no_such_task, csqa], items: some, seed: -1}
density: {hardware: [h100], reference: olmo-lader, resamples: 3}
"""
PUBLISHED = """\
study: s
base: {model: published:Gemma-2-27}
variants:
  v: [{adopt: {model: published:Gemma-2-9B, hw: by Google}}]
  w: [{adopt: {model: published:Gemma-2-2B}}, quantize: {method: rtn}]
evaluate: {source: published, table: Gemma2-report-T13}
density: {reference: qwen2.5, resamples: 3}
"""


def problems(text: str, folder: Path, changes: Changes | None = None) -> list[str]:
    path = folder / "r.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(RecipeError) as caught:
        prepare(path, changes or Changes())
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


def test_mistakes_of_form_and_of_the_plan_are_told_at_once_in_the_files_order(tmp_path: Path) -> None:
    told = problems(RECIPE, tmp_path)
    expected = [
        ("1:", "'my study' does not fit here"),
        ("3:", "no text file at no.txt"),
        ("3:", "'x' does not fit here"),
        ("5:", "the model has 30 layers here"),
        ("6:", "unknown key 'kep'"),
        ("8:", "no variant is named 'nobody'"),
        ("9:", "pruning after bnb-nf4 is not possible"),
        ("11:", "f-31: the model has 30 layers here"),
        ("12:", "a list without entries does not fit here"),
        ("13:", "no task is called no_such_task"),
        ("13:", "'some' does not fit here"),
        ("13:", "-1 does not fit here"),
        ("14:", "there is no hardware profile 'h100'"),
        ("14:", "there is no reference 'olmo-lader'"),
        ("14:", "3 does not fit here"),
    ]
    assert [(problem.split(":")[0] + ":", part in problem) for problem, (_, part) in zip(told, expected, strict=True)] == [
        (line, True) for line, _ in expected
    ]


def test_a_study_of_published_scores_is_told_at_once_too(tmp_path: Path) -> None:
    told = "\n".join(problems(PUBLISHED, tmp_path))
    for part in ("unknown key 'hw'", "a study of published scores adopts models", "Gemma-2-27", "3 does not fit here"):
        assert part in told


def test_settings_and_the_file_are_told_at_once(tmp_path: Path) -> None:
    head = "study: s\nbase: {model: offline:smollm2-135m-instruct}\nevaluate: {tasks: [csq]}\n"
    text = head + "variants: {v: [prune: {method: depth, keep: 9}]}\n"
    told = problems(text, tmp_path, Changes(("variants.v.0.prune.keep=30", "evaluate.items=x")))
    assert [problem.partition(": ")[0] for problem in told] == ["--set evaluate.items=x", "3:20", "--set variants.v.0.prune.keep=30"]


@pytest.mark.parametrize("name", CASES)
def test_no_mistake_of_form_is_lost_and_nothing_is_made_up(name: str, tmp_path: Path) -> None:
    """The cases have one mistake each; what else is told is about values that stand in the file."""
    told = problems(CASES[name].text, tmp_path)
    with pytest.raises(RecipeError) as caught:
        load(tmp_path / "r.yaml")
    alone = [problem.removeprefix(f"{tmp_path / 'r.yaml'}:") for problem in caught.value.problems]
    assert set(alone) <= set(told)
    assert [problem for problem in told if problem not in alone and "no task is called a;" not in problem] == []


def test_only_brings_what_the_variant_needs_into_the_sound_part(tmp_path: Path) -> None:
    recipe = """\
study: s
base: {model: offline:smollm2-135m-instruct}
variants:
  a: [prune: {method: depth, keep: 20}]
  b: {from: a, steps: [quantize: {method: rtn, group_size: 7}]}
  c: [quantize: {method: rtn, group_size: 5}]
evaluate: {tasks: [arc_easy], items: some}
"""
    told = problems(recipe, tmp_path, Changes(only=("b",)))
    assert [text.partition(":")[0] for text in told] == ["5", "7"]  # and not c, which was not asked for
    assert "group_size: 7 does not divide" in told[0]
