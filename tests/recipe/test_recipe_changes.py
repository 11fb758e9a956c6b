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


@pytest.mark.parametrize("path", ["[0]", ".0", ".steps[0]", ".steps.0"])
def test_an_entry_of_a_list_is_reached_in_each_way_to_write_it(path: str) -> None:
    assert read(f"variants.depth-0.8{path}.prune.keep=20").variants["depth-0.8"].steps[0].config.keep == 20  # type: ignore[union-attr]
    if "steps" in path:
        assert read(f"variants.healed{path}.distill.tokens=9").variants["healed"].steps[0].config.tokens == 9  # type: ignore[union-attr]
    assert read("evaluate.tasks.0=csqa").evaluate.tasks == ["csqa"]


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("evaluate.items=-1", "evaluate.items: -1 does not fit here"),
        ("evaluate.itmes=5", "evaluate.itmes: unknown key 'itmes'; did you mean 'items'?"),
        ("evaluat.items=5", "evaluat: unknown key 'evaluat'; did you mean 'evaluate'?"),
        ("variants.nf4[0].quantize={method: rtn, bits: 5}", "variants.nf4[0].quantize.bits: 5 does not fit here"),
        ("variants.nf4=[{quantize: {method: rtn, bit: 4}}]", "variants.nf4[0].quantize.bit: unknown key 'bit'; did you mean 'bits'?"),
        ("variants.healed.from=depth", "variants.healed.from: no variant is named 'depth'"),
    ],
)
def test_a_mistake_in_a_setting_is_blamed_on_the_setting(setting: str, complaint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read(setting)
    (problem,) = caught.value.problems
    assert problem.startswith(f"--set {setting}: {complaint}")


def test_a_value_that_a_setting_puts_into_a_sweep_is_blamed_on_it() -> None:
    sweep = 'sweeps:\n  d-{k}: {grid: {k: [3]}, steps: [prune: {method: depth, keep: "{k}"}]}\n'
    with pytest.raises(RecipeError) as caught:
        loads_located(TEXT + sweep, "r.yaml", Changes(("sweeps.d-{k}.grid.k=[0]",)))
    assert caught.value.problems[0].startswith("--set sweeps.d-{k}.grid.k=[0]: sweeps.d-{k}.steps[0].prune.keep: 0 does not fit here")


def test_mistakes_of_settings_and_of_the_file_are_told_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        loads_located(TEXT.replace("keep: 24", "kep: 24"), "r.yaml", Changes(("evaluate.items", "nowhere.to=3", "study.name=x")))
    assert [problem.partition(": ")[0] for problem in caught.value.problems] == [
        "--set evaluate.items",
        "--set study.name=x",
        "--set nowhere.to=3",
        "r.yaml:4:38",
    ]


def test_only_keeps_a_variant_and_what_it_needs() -> None:
    assert list(read(only=("nf4",)).variants) == ["nf4"]
    assert list(read(only=("self",)).variants) == ["depth-0.8", "healed", "self"]
    assert list(read(only=("base",)).variants) == []
    with pytest.raises(RecipeError, match="--only nf5: the recipe has no such variant; did you mean 'nf4'"):
        read(only=("nf5",))


def test_changes_are_told_above_the_recipe() -> None:
    assert Changes(("evaluate.items=5",), ("nf4",)).described() == "# --set evaluate.items=5\n# --only nf4\n"
    assert Changes().described() == ""
