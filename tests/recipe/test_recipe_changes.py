"""What a command line changes in a recipe: by path, before anything is checked, and told in the study's record."""

from __future__ import annotations

import re

import pytest

from compresslab.errors import RecipeError
from compresslab.recipe.changes import Changes
from compresslab.recipe.load import loads_located
from compresslab.recipe.schema import Recipe

TEXT = """study: s
base: {model: offline:smollm2-135m-instruct}
variants:
  depth-0.8: [prune: {method: depth, keep: 24}]
  healed: {from: depth-0.8, steps: [distill: {teacher: base, tokens: 1000}]}
  self: {from: base, steps: [distill: {teacher: healed, tokens: 1000}]}
  nf4: [quantize: {method: bnb-nf4}]
evaluate: {tasks: [arc_easy]}
"""


def read(*settings: str, only: tuple[str, ...] = ()) -> Recipe:
    return loads_located(TEXT, "r.yaml", Changes(settings, only)).recipe


def test_a_setting_is_changed_by_the_path_that_complaints_show() -> None:
    recipe = read(
        "evaluate.items=50",
        "variants.depth-0.8[0].prune.keep=20",
        "evaluate.tasks=[csqa, piqa]",
        "variants.healed.steps[0].distill.tokens=2_000",
    )
    assert (recipe.evaluate.items, recipe.evaluate.tasks) == (50, ["csqa", "piqa"])
    assert recipe.variants["depth-0.8"].steps[0].config.keep == 20  # type: ignore[union-attr]
    assert recipe.variants["healed"].steps[0].config.tokens == 2000  # type: ignore[union-attr]


def test_a_setting_that_the_recipe_leaves_at_its_default_is_added() -> None:
    assert read("density.tokens=2e12", "evaluate.seed=3").density.tokens == 2e12
    assert read("variants.rtn=[quantize: {method: rtn}]").variants["rtn"].steps


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("evaluate.items", "give a path and a value"),
        ("evaluate.items=", "give a path and a value"),
        ("evaluate.items={", "give a path and a value"),
        ("=3", "give a path and a value"),
        ("variants.nf4[1].quantize.method=rtn", "variants.nf4 is a list of 1; name an entry, such as variants.nf4[0]"),
        ("study.name=x", "study is a single value"),
        ("variants[0]=3", "variants is a mapping; name one of depth-0.8, healed, self, nf4"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(setting: str, why: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(why)) as caught:
        read(setting)
    assert str(caught.value.problems[0]).startswith(f"--set {setting}: ")


def test_values_are_checked_as_if_they_stood_in_the_file() -> None:
    with pytest.raises(RecipeError, match=r"r\.yaml:8:\d+: evaluate\.items: .*"):
        read("evaluate.items=-1")
    with pytest.raises(RecipeError, match=r"evaluate\.itmes.*did you mean 'items'"):
        read("evaluate.itmes=5")


def test_only_keeps_a_variant_and_what_it_needs() -> None:
    assert list(read(only=("nf4",)).variants) == ["nf4"]
    assert list(read(only=("self",)).variants) == ["depth-0.8", "healed", "self"]
    assert list(read(only=("base",)).variants) == []
    with pytest.raises(RecipeError, match="--only nf5: the recipe has no such variant; did you mean 'nf4'"):
        read(only=("nf5",))


def test_changes_are_told_above_the_recipe() -> None:
    assert Changes(("evaluate.items=5",), ("nf4",)).described() == "# --set evaluate.items=5\n# --only nf4\n"
    assert Changes().described() == ""
