"""A recipe keeps its places, so that what the plan finds wrong is told with line and column."""

from __future__ import annotations

from malformed_recipes import HEAD

from compresslab.recipe.load import loads_located
from compresslab.recipe.places import Complaint, Places, refusal

TEXT = (
    HEAD
    + """variants:
  short: [{prune: {method: depth, keep: 4}}]
  long: {from: short, steps: [{prune: {method: depth, keep: 3}}]}
sweeps:
  d-{k}: {grid: {k: [1, 2]}, steps: [{prune: {method: depth, keep: "{k}"}}]}
"""
)


def keep(name: str) -> Complaint:
    return Complaint(("variants", name, "steps", 0, "prune", "keep"), "no")


def found(places: Places, complaint: Complaint) -> tuple[str, str, str]:
    """What stands at the complaint's place, with its path and message."""
    problem = places.problem(complaint)
    return TEXT.splitlines()[problem.line - 1][problem.column - 1 :].split("}")[0].strip('"{'), problem.path, problem.message


def test_values_are_found_wherever_they_stand() -> None:
    recipe, places, _ = loads_located(TEXT, "r.yaml")
    assert list(recipe.variants) == ["short", "long", "d-1", "d-2"]
    assert found(places, keep("short")) == ("4", "variants.short[0].prune.keep", "no")
    assert found(places, keep("long")) == ("3", "variants.long.steps[0].prune.keep", "no")
    assert found(places, keep("d-2")) == ("k", "sweeps.d-{k}.steps[0].prune.keep", "d-2: no")


def test_what_the_file_leaves_out_is_told_where_it_would_stand() -> None:
    places = loads_located(TEXT, "r.yaml").places
    whole = places.problem(Complaint(("density", "reference"), "no"))
    assert (whole.line, whole.column, whole.path) == (1, 1, "density.reference")
    step = places.problem(Complaint(("variants", "short", "steps", 0, "prune", "seed"), "no"))
    assert (TEXT.splitlines()[step.line - 1][step.column - 1 :][:14], step.path) == ("{method: depth", "variants.short[0].prune.seed")


def test_a_refusal_lists_all_in_the_order_of_the_file_and_each_once() -> None:
    places = loads_located(TEXT, "r.yaml").places
    complaints = [keep("d-2"), keep("long"), keep("d-1"), keep("long"), keep("short")]
    told = refusal(complaints, places).problems
    assert [line.split(": ", 1)[1] for line in told] == [
        "variants.short[0].prune.keep: no",
        "variants.long.steps[0].prune.keep: no",
        "sweeps.d-{k}.steps[0].prune.keep: d-1: no",
        "sweeps.d-{k}.steps[0].prune.keep: d-2: no",
    ]
    assert all(line.startswith("r.yaml:") for line in told)
    bare = refusal(complaints, None).problems
    assert bare[0] == "variants.d-2.steps[0].prune.keep: no"
    assert len(bare) == 4
