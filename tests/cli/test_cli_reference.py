"""The commands around the ruler: `reference`, `trend`, and `run` of published studies."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from calling import Call, Said

from compresslab.density import Reference

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[2] / "recipes" / "published"
NAMES = ["llama-1-2", "olmo-ladder", "pythia", "qwen2.5"]


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit of seconds: its resamples are not what is looked at here."""
    monkeypatch.setattr("compresslab.density.references.user.fit_table.__defaults__", ("bits per byte", 3))


def csv(path: Path, sizes: tuple[float, ...] = (1e8, 2e8, 4e8, 8e8, 1.6e9)) -> Path:
    rows = ["run,params,tokens,task,bpb,score,chance"]
    for n in sizes:
        for d in (1e10, 1e11, 1e12):
            loss = 0.4 + 0.2 * (n / 1e9) ** -0.35 + 0.1 * (d / 1e11) ** -0.3
            rows.append(f"m{n:g}-{d:g},{n:.0f},{d:.0f},mine,{loss:.5f},{0.25 + 0.75 / (1 + math.exp(6 * (loss - 0.8))):.4f},0.25")
    path.write_text("\n".join(rows) + "\n")
    return path


def refused(result: Said, message: str) -> None:
    """Exit code 2, one line that says what is wrong, and no traceback."""
    assert result.code == 2
    assert message in result.err
    assert len(result.err.strip().splitlines()) == 1, result.err
    assert "Traceback" not in result.out + result.err


def test_ls_lists_the_references(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    result = call("reference", "ls")
    assert (result.code, result.err) == (0, "")
    assert all(name in result.out for name in NAMES)
    assert "bits per byte" in result.out


def test_ls_as_json_has_what_each_rests_on(call: Call) -> None:
    found = json.loads(call("reference", "ls", "--json").out)
    assert [one["name"] for one in found] == NAMES
    for one in found:
        assert one["runs"] >= 7
        assert one["resamples"] == 200
        assert one["tasks"]
        assert one["form"]["chosen"]
        assert one["source"]


@pytest.mark.parametrize("name", NAMES)
def test_show_says_how_a_reference_was_fitted(name: str, call: Call) -> None:
    result = call("reference", "show", name)
    reference = Reference.load(name)
    assert result.code == 0
    assert reference.source[:40] in result.out
    assert f"form: chosen: {reference.form['chosen']}" in result.out
    assert "200 resampled fits" in result.out
    found = json.loads(call("reference", "show", name, "--json").out)
    assert set(found["diagnostics"]) == set(found["tasks"]) == set(reference.tasks)
    for task, one in found["diagnostics"].items():
        assert one["r2_score"] == reference.tasks[task].r2_score


def test_show_reads_a_loss_or_a_score_off_the_ruler(call: Call) -> None:
    expected = Reference.load("olmo-ladder").effective_params(task="arc_easy", bpb=0.93)
    result = call("reference", "show", "olmo-ladder", "--task", "arc_easy", "--bpb", "0.93")
    assert result.code == 0
    assert re.match(r"N_hat = [\d.]+ M \([\d.]+ M to [\d.]+ M, the ruler's own 95%\); D0 = 200 tokens a parameter$", result.out)
    found = json.loads(call("reference", "show", "olmo-ladder", "--task", "arc_easy", "--bpb", "0.93", "--json").out)
    assert found == json.loads(expected.model_dump_json())
    more = json.loads(call("reference", "show", "olmo-ladder", "--task", "arc_easy", "--bpb", "0.93", "--tokens", "5e12", "--json").out)
    assert more["value"] < found["value"], "against a reference trained for longer it is worth less"
    assert (found["extrapolated"], more["extrapolated"]) == (False, True)
    fewer = call("reference", "show", "olmo-ladder", "--task", "arc_easy", "--bpb", "0.93", "--tokens-per-parameter", "20")
    assert fewer.out.endswith("D0 = 20 tokens a parameter\n")
    one = call("reference", "show", "olmo-ladder", "--task", "arc_easy", "--bpb", "0.93", "--tokens", "1e12").out
    assert re.search(r"95%\), extrapolated; D0 = 1T tokens$", one)
    by_score = call("reference", "show", "qwen2.5", "--task", "MMLU", "--score", "0.7")
    assert "N_hat = " in by_score.out
    assert "N_hat = >" in call("reference", "show", "qwen2.5", "--task", "MMLU", "--score", "1").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "olmo"], "there is no reference 'olmo'"),
        (["show", "none.json"], "there is no reference file none.json"),
        (["show", "olmo-ladder", "--bpb", "1"], "of which task? give --task, one of: arc_easy"),
        (["show", "olmo-ladder", "--task", "MMLU", "--bpb", "1"], "has no task 'MMLU'"),
        (["show", "olmo-ladder", "--task", "arc_easy"], "give exactly one of bpb and score"),
        (["show", "olmo-ladder", "--task", "arc_easy", "--bpb", "1", "--score", "0.5"], "give exactly one of bpb and score"),
        (["show", "olmo-ladder", "--task", "arc_easy", "--bpb", "nan"], "bpb of arc_easy is nan"),
        (["show", "olmo-ladder", "--task", "arc_easy", "--bpb=-1"], "bpb of arc_easy is -1"),
        (["show", "olmo-ladder", "--task", "arc_easy", "--score", "1.5"], "a score lies in [0, 1]"),
        (["show", "olmo-ladder", "--task", "arc_easy", "--bpb", "1", "--tokens", "0"], "D0 is 0; it must be positive and finite"),
        (["plot", "olmo-ladder", "--tokens", "nan"], "D0 is nan; it must be positive and finite"),
        (["plot", "olmo-ladder", "--tokens-per-parameter=-1"], "D0 is -1; it must be positive and finite"),
        (
            ["show", "olmo-ladder", "--task", "arc_easy", "--bpb", "1", "--tokens", "1e12", "--tokens-per-parameter", "20"],
            "give D0 either as a number of tokens or as tokens a parameter",
        ),
        (["show", "qwen2.5", "--task", "MMLU", "--bpb", "1"], "reads MMLU by score only"),
        (["plot", "olmo"], "there is no reference 'olmo'"),
        (["fit", "none.csv"], "there is no table none.csv"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], message: str, call: Call) -> None:
    refused(call("reference", *arguments), message)


@pytest.mark.parametrize("name", NAMES)
def test_plot_draws_every_task(name: str, call: Call, tmp_path: Path) -> None:
    result = call("reference", "plot", name, "--out", tmp_path / "picture.svg")
    assert result.code == 0, result.err
    picture = (tmp_path / "picture.svg").read_text(encoding="utf-8")
    assert picture.startswith("<svg")
    assert all(task in picture for task in Reference.load(name).tasks)
    assert "NaN" not in picture


@pytest.mark.usefixtures("few_resamples")
def test_fit_writes_a_reference_that_show_and_a_recipe_take(call: Call, tmp_path: Path) -> None:
    result = call("reference", "fit", csv(tmp_path / "models.csv"), "--name", "mine", "--source", "made up")
    assert result.code == 0, result.err
    assert "density: {reference: mine.json}" in result.out
    reference = Reference.load(str(tmp_path / "mine.json"))
    assert (reference.name, reference.source, reference.runs) == ("mine", "made up", 15)
    loss, _ = reference.predict("mine", 5e8, 1e11)
    assert loss == pytest.approx(0.4 + 0.2 * 0.5**-0.35 + 0.1, rel=0.02)
    shown = json.loads(call("reference", "show", "mine.json", "--task", "mine", "--bpb", f"{loss}", "--tokens", "1e11", "--json").out)
    assert shown["value"] == pytest.approx(5e8, rel=0.01)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "study: s\nbase: {model: offline:smollm2-135m}\nvariants: {d: [{prune: {method: depth, keep: 24}}]}\n"
        "evaluate: {tasks: [arc_easy], items: 10}\ndensity: {reference: ./mine.json}\n"
    )
    assert "no reference" not in call("validate", recipe).err


@pytest.mark.usefixtures("few_resamples")
def test_fit_is_called_by_its_table_if_nothing_else_is_said(call: Call, tmp_path: Path) -> None:
    assert call("reference", "fit", csv(tmp_path / "models.csv")).code == 0
    assert Reference.load(str(tmp_path / "models.json")).name == "models"


def test_fit_refuses_bad_tables_in_one_line(call: Call, tmp_path: Path) -> None:
    refused(
        call("reference", "fit", csv(tmp_path / "few.csv", (1e8, 2e8, 4e8))),
        "mine has losses of 3 model sizes; a reference needs at least 4",
    )
    table = csv(tmp_path / "t.csv")
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:3], lines[3].replace(",mine,", ",mine,x"), *lines[4:]]))
    refused(call("reference", "fit", table), "line 4: bpb is 'x")
    table.write_text("\n".join([*lines, lines[1]]))
    refused(call("reference", "fit", table), "stands twice on mine")
    refused(call("reference", "fit", csv(tmp_path / "t.csv"), "--unit", "nats"), "not 'nats'")
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.usefixtures("few_resamples")
@pytest.mark.parametrize("out", ["none/mine.json", "mine.txt"])
def test_fit_refuses_a_place_that_it_cannot_write_to_or_read_from(out: str, call: Call, tmp_path: Path) -> None:
    refused(call("reference", "fit", csv(tmp_path / "models.csv"), "--out", out), out)
    assert not (tmp_path / out).exists()


def test_build_wants_models_that_are_run_and_their_tokens(call: Call) -> None:
    assert "none.yaml: no such file" in call("reference", "build", "none.yaml").err
    refused(call("reference", "build", FOLDER / "gemma-2.yaml"), "a reference is built from models that are run")


def test_trend_says_the_growth_and_the_papers(call: Call) -> None:
    result = call("trend")
    assert result.code == 0, result.err
    growth = float(re.search(r"all, censored likelihood: A = ([\d.]+) per day", result.out)[1])
    assert 0.003 <= growth <= 0.008
    assert "A = 0.007 per day" in result.out
    assert "all, record setters (always rising)" in result.out
    assert "note: " in result.out
    assert "Qwen2.5-" in result.out


def test_trend_of_mmlu_alone_has_both_periods(call: Call) -> None:
    out = call("trend", "--mmlu").out
    assert "before ChatGPT, censored likelihood" in out
    assert "after ChatGPT, censored likelihood" in out


def test_corollaries_name_their_sources(call: Call) -> None:
    out = call("trend", "--corollaries").out
    assert "87.7 days" in out
    assert "halves every 76 days" in out
    assert out.count("source: ") == 3
    assert "GPT-3-175B" in out
    found = json.loads(call("trend", "--corollaries", "--json").out)
    assert len(found["passed"]) > 100


def test_trend_as_json_and_as_a_picture(call: Call, tmp_path: Path) -> None:
    result = call("trend", "--json", "--plot", tmp_path / "trend.svg")
    found = json.loads(result.out)
    assert found["reference"] == "qwen2.5"
    assert np.log(2) / found["whole"]["growth"]["value"] / 30.4375 == pytest.approx(found["whole"]["doubling_months"]["value"])
    assert sum(point["frontier"] for point in found["points"]) == len(found["whole"]["frontier"])
    assert (tmp_path / "trend.svg").read_text(encoding="utf-8").startswith("<svg")


def test_trend_with_all_lists_more_models_than_without(call: Call) -> None:
    every, records = call("trend", "--all").out, call("trend").out
    assert len(every.splitlines()) > len(records.splitlines()) + 30
    assert "(record)" in every


def test_trend_refuses_a_reference_without_the_benchmarks(call: Call) -> None:
    refused(call("trend", "--reference", "olmo-ladder"), "the trend needs MMLU, BBH, MATH, HumanEval, MBPP")
    refused(call("trend", "--reference", "qwen"), "there is no reference 'qwen'")


def test_run_takes_several_published_recipes_at_once(call: Call, tmp_path: Path) -> None:
    names = ("gemma-2", "minitron-4b")
    result = call("run", *(FOLDER / f"{name}.yaml" for name in names), "--reports", tmp_path / "reports")
    assert result.code == 0, result.err
    for name in names:
        assert (tmp_path / "reports" / name / "index.html").is_file()
        record = json.loads((tmp_path / "reports" / name / "study.json").read_text())
        assert record["study"] == name
        assert record["variants"][1]["comparisons"][0]["robustness"]
    assert result.out.count("published scores, ") == 2
    assert "raised" in result.out
    assert not (tmp_path / "compresslab-store").exists(), "nothing was run, so nothing is kept"


def test_one_bad_recipe_among_several_stops_all_of_them(call: Call, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text((FOLDER / "gemma-2.yaml").read_text().replace("published:Gemma-2-9B", "published:Gemma-2-9"))
    result = call("run", FOLDER / "minitron-4b.yaml", bad, "--reports", tmp_path / "reports")
    assert result.code == 2
    assert "did you mean 'Gemma-2-9B" in result.err
    assert not (tmp_path / "reports").exists()


def test_validate_and_plan_take_a_published_recipe(call: Call) -> None:
    result = call("validate", FOLDER / "gemma-2.yaml")
    assert result.code == 0
    assert "valid; 2 variants of published:Gemma-2-27B" in result.out
    assert call("plan", FOLDER / "gemma-2.yaml").code == 0
