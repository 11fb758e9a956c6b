"""Every malformed recipe ends in one clear line with its place; nothing of pydantic or Python shows through."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from malformed_recipes import CASES, HEAD

from compresslab.errors import BadInput, RecipeError
from compresslab.recipe.load import load, loads

JARGON = re.compile(
    r"Input should|pydantic|Traceback|validation error|type=|Located|Variant\b|"
    r"NoneType|Value error|Extra inputs|union|dict\b|string|\bstr\b|\bint\b"
)


# This one leaves more than one thing to correct.
SEVERAL = {"step-outdented"}


def test_there_are_enough() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize("name", CASES)
def test_malformed(name: str) -> None:
    text, line, fragment = CASES[name]
    with pytest.raises(RecipeError) as caught:
        loads(text, "r.yaml")
    problems = caught.value.problems
    hits = [problem for problem in problems if fragment in problem]
    assert hits, problems
    assert re.match(rf"r\.yaml:{line}:\d+: ", hits[0]), problems
    assert isinstance(caught.value, BadInput)
    for problem in problems:
        assert "\n" not in problem
        assert len(problem) < 450
        assert not JARGON.search(problem), problem
        assert re.search("[;?]", problem), f"does not say what to do: {problem}"


@pytest.mark.parametrize("name", sorted(set(CASES) - SEVERAL))
def test_one_mistake_gives_one_problem(name: str) -> None:
    with pytest.raises(RecipeError) as caught:
        loads(CASES[name].text, "r.yaml")
    assert len(caught.value.problems) == 1, caught.value.problems


def test_all_problems_at_once_in_the_files_order() -> None:
    text = """\
study: my study
bse: {model: m}
text: {calibration: {samples: 0}}
variants:
  a: [prun: {method: depth}]
  b: {from: c, steps: [quantize: {method: rtn, bits: 5}]}
  c: {from: b, steps: [quantize: {method: rtn, bits: 5, bits: 4}]}
  d: [distill: {teacher: nobody}]
sweeps:
  e-{k}: {grid: {k: []}, steps: [prune: {method: depth, keep: "{k}"}]}
evaluate: {tasks: [x, x], items: none}
"""
    with pytest.raises(RecipeError) as caught:
        loads(text, "r.yaml")
    places = [tuple(map(int, problem.split(":")[1:3])) for problem in caught.value.problems]
    assert places == sorted(places)
    assert [line for line, _ in places] == [1, 2, 3, 5, 6, 6, 7, 7, 8, 8, 10, 11, 11]
    assert str(caught.value).startswith("13 problems in the recipe:\n")


def test_the_points_of_a_sweep_complain_once() -> None:
    text = HEAD + 'sweeps:\n  d-{k}: {grid: {k: [1, 2, 3]}, steps: [prune: {method: dept, keep: "{k}"}]}\n'
    with pytest.raises(RecipeError) as caught:
        loads(text, "r.yaml")
    assert len(caught.value.problems) == 1
    assert "sweeps.d-{k}.steps[0].prune.method: unknown method 'dept'" in caught.value.problems[0]


def test_a_broken_sweep_does_not_make_its_variants_unknown() -> None:
    text = (
        HEAD + "variants:\n  w: {from: d-3, steps: [quantize: {method: rtn}]}\n"
        "sweeps:\n  d-{k}: {grid: {k: []}, steps: [prune: {method: depth, keep: 3}]}\n"
    )
    with pytest.raises(RecipeError) as caught:
        loads(text, "r.yaml")
    assert len(caught.value.problems) == 1, caught.value.problems


def test_an_error_behind_an_alias_points_at_the_anchor() -> None:
    text = HEAD + "variants:\n  a: [distill: &d {tokens: 0}]\n  b: [distill: *d]\n"
    with pytest.raises(RecipeError) as caught:
        loads(text, "r.yaml")
    assert [problem.split(": ")[:2] for problem in caught.value.problems] == [
        ["r.yaml:5:28", "variants.a[0].distill.tokens"],
        ["r.yaml:5:28", "variants.b[0].distill.tokens"],
    ]


def test_a_bad_list_of_variants_is_told_beside_sound_sweeps() -> None:
    text = HEAD + 'variants: [v]\nsweeps:\n  d-{k}: {grid: {k: [3]}, steps: [prune: {method: depth, keep: "{k}"}]}\n'
    with pytest.raises(RecipeError, match=r"r\.yaml:4:11: variants: a list does not fit here"):
        loads(text, "r.yaml")


def test_bombs_are_refused_quickly() -> None:
    values = list(range(1, 23))
    one = (
        f'{{grid: {{a: {values}, b: {values}}}, steps: [prune: {{method: depth, keep: "{{a}}"}}, prune: {{method: depth, keep: "{{b}}"}}]}}'
    )
    sweeps = HEAD + "sweeps:\n" + "".join(f"  d{i}-{{a}}-{{b}}: {one}\n" for i in range(50))
    texts = HEAD + f"question: &q {'x' * 900_000}\nvariants: {{a: *q, b: *q, c: *q}}\n"
    started = time.process_time()
    for text, fragment in [(sweeps, "the sweeps so far give more than 100000 values"), (texts, "more than 20000 values")]:
        with pytest.raises(RecipeError, match=fragment):
            loads(text, "r.yaml")
    assert time.process_time() - started < 10


def refused(path: Path) -> str:
    with pytest.raises(RecipeError) as caught:
        load(path)
    assert len(caught.value.problems) == 1
    return caught.value.problems[0]


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text("")
    assert "no such file; check the path; did you mean 'quickstart.yaml'?" in refused(tmp_path / "quikstart.yaml")
    assert "no such file; check the path" in refused(tmp_path / "nowhere" / "r.yaml")
    assert "this is a folder; give the recipe file in it; there: quickstart.yaml" in refused(tmp_path)
    assert "cannot be read" in refused(tmp_path / "quickstart.yaml" / "r.yaml")
    assert "cannot be read" in refused(tmp_path / "a\0b")
    (tmp_path / "latin.yaml").write_bytes("study: s\nquestion: größer?\n".encode("latin-1"))
    assert "latin.yaml:2:13: not UTF-8" in refused(tmp_path / "latin.yaml")
    (tmp_path / "utf16.yaml").write_bytes("study: s\n".encode("utf-16"))
    assert "not UTF-8" in refused(tmp_path / "utf16.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * 1_000_001)
    assert "larger than 1,000,000 bytes" in refused(tmp_path / "large.yaml")
