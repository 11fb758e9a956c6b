"""`compresslab compare`: which runs it takes, and what it says of those it does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from calling import Call
from report import studies

from compresslab.report.html import write

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    write(studies.quickstart(study="one"), folder / "reports/one")
    write(studies.quickstart(study="two", question="Two?"), folder / "reports/two")
    write(studies.quickstart(study="one", recipe="items: 3\n"), folder / "quick/one")
    return folder


@pytest.fixture(autouse=True)
def reported(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test in a copy of its own."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def test_two_studies_by_name_are_one_page_and_stand_in_the_index(call: Call) -> None:
    result = call("compare", "one", "two")
    assert result.code == 0, result.err
    assert "Report: reports/one+two/index.html" in result.out
    page = Path("reports/one+two/index.html").read_text()
    assert "two/depth-24" in page
    assert "one+two" in Path("reports/index.html").read_text() or "one%2Btwo" in Path("reports/index.html").read_text()


@pytest.mark.parametrize("run", ["quick/one", "quick/one/study.json"])
def test_two_runs_of_one_study_get_numbers_and_the_diff_of_their_recipes(call: Call, run: str) -> None:
    result = call("compare", "one", run, "--out", "both")
    assert result.code == 0, result.err
    page = Path("both/index.html").read_text()
    assert "one (2)/depth-24" in page
    assert "+items: 3" in page


def test_one_run_named_twice_is_refused_however_it_is_named(call: Call) -> None:
    result = call("compare", "one", "reports/one", "two")
    assert (result.code, result.out) == (2, "")
    assert "error: one is named twice, as one and the same run" in result.err


def test_studies_at_different_d0_are_named_with_their_own_on_the_terminal_too(call: Call) -> None:
    study = studies.quickstart(study="long")
    variants = []
    for one in study.variants:
        assert one.density is not None
        variants.append(one.model_copy(update={"density": one.density.model_copy(update={"tokens": 5e12})}))
    write(study.model_copy(update={"variants": variants}), Path("reports/long"))
    result = call("compare", "one", "long")
    assert "different rulers (one: olmo-ladder, D0 = 1 T tokens; long: olmo-ladder, D0 = 5 T tokens)" in result.out
    assert "different rulers" not in call("compare", "one", "two").out


def test_the_joint_record_can_be_had_as_json(call: Call) -> None:
    record = json.loads(call("compare", "one", "two", "--json").out)
    assert record["study"] == "one + two"
    assert not Path("reports/one+two").exists()


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        (["one"], "1 of at least two studies to compare"),
        ([], "0 of at least two studies to compare"),
        (["one", "three"], "no report of a study 'three' in reports; there are: one, two"),
        (["one", "--across", "r.yaml"], "r.yaml: no report of a study 'nobody' in reports"),
    ],
)
def test_what_cannot_be_compared_is_told(call: Call, arguments: list[str], result: str) -> None:
    Path("r.yaml").write_text("study: nobody\nbase: {model: offline:smollm2-135m-instruct}\nevaluate: {tasks: [csqa]}\n")
    refused = call("compare", *arguments)
    assert refused.code == 2
    assert result in refused.err


def test_recipes_name_their_studies(call: Call) -> None:
    for name in ("one", "two"):
        Path(f"{name}.yaml").write_text(f"study: {name}\nbase: {{model: offline:smollm2-135m-instruct}}\nevaluate: {{tasks: [csqa]}}\n")
    assert call("compare", "--across", "one.yaml", "--across", "two.yaml").code == 0
    assert Path("reports/one+two/study.json").exists()
