"""`compresslab recipes` and `init --from`: the recipes that come with the package."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from calling import Call

from compresslab.catalog.recipes import SCHEMA_LINE, known_minutes, recipe_path, recipe_paths, schema_path
from compresslab.errors import BadInput
from compresslab.recipe.load import load

RECIPES = Path(__file__).parents[2] / "recipes"


def test_every_recipe_of_the_repository_ships_and_names_are_unique() -> None:
    files = sorted(path.resolve() for path in RECIPES.rglob("*.yaml"))
    assert sorted(path.resolve() for path in recipe_paths().values()) == files
    assert next(iter(recipe_paths())) == "quickstart"


def test_minutes_are_those_that_the_recipes_say() -> None:
    assert set(known_minutes()) <= set(recipe_paths())
    for name, path in recipe_paths().items():
        if said := re.search(r"Some (\d+) minutes on two cores", path.read_text(encoding="utf-8").replace("\n# ", " ")):
            assert known_minutes()[name] == int(said[1])


def test_a_recipe_is_found_with_and_without_its_folder() -> None:
    for name in ("healing", "smollm2/healing", "recipes/smollm2/healing.yaml"):
        assert recipe_path(name) == recipe_paths()["healing"]
    for name in ("published/healing", "heal", "", "../healing", "smollm2"):
        with pytest.raises(BadInput, match="no recipe of the package is called"):
            recipe_path(name)


def test_the_list_has_one_line_a_recipe(call: Call) -> None:
    lines = call("recipes").out.splitlines()
    for row in json.loads(call("recipes", "--json").out):
        (line,) = [line for line in lines if line.split()[:1] == [row["recipe"]]]
        assert row["question"] in line
        assert ("seconds" in line) != row["runs"]
        assert row["parameters"]
    assert re.search(r"quickstart +smollm2-135m-instruct +134\.5 M +6 +8 min", "\n".join(lines))


def test_one_recipe_is_printed_as_it_stands(call: Call) -> None:
    assert call("recipes", "gemma-2").out == (RECIPES / "published" / "gemma-2.yaml").read_text()
    assert call("recipes", "gema-2").err == (
        "error: no recipe of the package is called 'gema-2'; did you mean 'gemma-2'? `compresslab recipes` lists them\n"
    )


def test_the_path_of_the_schema_is_printed(call: Call) -> None:
    assert call("recipes", "--schema").out == f"{schema_path()}\n"
    assert call("recipes", "gemma-2", "--schema").code == 2


@pytest.mark.parametrize("name", list(recipe_paths()))
def test_init_writes_every_recipe_with_the_line_for_editors(name: str, call: Call) -> None:
    result = call("init", "--from", name)
    assert result.code == 0, result.err
    written = Path(f"{name}.yaml")
    assert written.read_text().splitlines()[0] == SCHEMA_LINE
    assert load(written) == load(recipe_paths()[name])
    assert f"compresslab run {name}.yaml" in result.out


def test_commands_in_the_comments_name_the_file(call: Call) -> None:
    assert call("init", "--from", "quickstart", "my study.yaml").code == 0
    text = Path("my study.yaml").read_text()
    assert "compresslab run      'my study.yaml'" in text
    assert "recipes/quickstart" not in text


def test_a_recipe_is_written_as_it_is_and_never_over_a_file(call: Call) -> None:
    assert "--from writes a recipe as it is" in call("init", "--from", "gemma-2", "--items", "3").err
    assert not list(Path().iterdir())
    Path("gemma-2.yaml").write_text("mine")
    assert call("init", "--from", "gemma-2") == (
        2,
        "",
        "error: gemma-2.yaml exists already and is left as it is; give a file that does not\n",
    )


def test_a_first_recipe_has_the_line_for_editors(call: Call) -> None:
    assert call("init", "r.yaml", "--yes").code == 0
    assert Path("r.yaml").read_text().startswith(f"{SCHEMA_LINE}\n")
