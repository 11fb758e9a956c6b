"""`compresslab ls` and `show`: studies of the store and of the reports, for people and for programs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from calling import Call

from compresslab.records import RunNote, StudyNote, StudyRecord, read_record
from compresslab.report.words import record_json
from compresslab.store.store import Store

REPORTS = Path(__file__).parents[2] / "reports"
LONG = "a-variant-with-a-rather-long-name-that-somebody-will-copy-into-a-command-of-compresslab-some-day"
FINISHED = "2026-11-02T09:00:00+00:00"


def noted(folder: Path, study: str, variants: dict[str, dict[str, str]], finished: str = FINISHED) -> None:
    """A study in a store's notes, as a run leaves it."""
    run = RunNote(recipe=f"{study}.yaml", compute={}, machine="", facts={}, keys=[])
    Store(folder).remember(
        study, StudyNote(recipe=f"{study}.yaml", finished=finished, variants=variants, runs={"1": run}, last="1", keys=[])
    )


@pytest.fixture
def own(call: Call, tmp_path: Path) -> Call:
    """The command line in a folder with a noted study and the quickstart's report."""
    noted(tmp_path / ".compresslab", "mine", {"base": {"model": "0" * 64}, LONG: {}})
    shutil.copytree(REPORTS / "smollm2-quickstart", tmp_path / "reports" / "smollm2-quickstart")
    return call


def test_ls_of_a_study_names_its_variants_whole_and_the_day_in_iso(own: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in ("40", "100"):
        monkeypatch.setenv("COLUMNS", columns)
        out = own("ls").out
        assert f"mine: 2 variants, last run {FINISHED}" in out
        (line,) = [line for line in out.splitlines() if LONG in line]
        assert line.rstrip().endswith("not made")


def test_ls_for_programs_has_every_variant(own: Call) -> None:
    rows = json.loads(own("ls", "--json").out)
    assert [row["variant"] for row in rows if row["study"] == "mine"] == ["base", LONG]
    assert {row["study"] for row in rows} == {"mine"}  # the quickstart ran, and the store of another folder knows its models
    assert all((row["model"], row["problem"], row["finished"], row["published"]) == (None, "", FINISHED, False) for row in rows)


def imported(folder: Path, study: str) -> None:
    """The quickstart's record as one whose models were evaluated elsewhere."""
    record = read_record(REPORTS / "smollm2-quickstart" / "study.json", StudyRecord, "")
    step = record.variants[0].steps[-1].model_copy(update={"details": {"evaluated": "results.json"}})
    variants = [record.variants[0].model_copy(update={"steps": [step], "keys": {}})]
    (folder / study).mkdir(parents=True)
    (folder / study / "study.json").write_text(record_json(record.model_copy(update={"study": study, "variants": variants})))


def test_ls_lists_imported_studies_and_no_pages_of_compare(call: Call, tmp_path: Path) -> None:
    imported(tmp_path / "reports", "theirs")
    imported(tmp_path / "reports", "theirs + mine")
    out = call("ls").out
    assert "theirs: 1 variant, last run 20" in out
    assert "134.5 M" in out
    assert "imported scores; no model" in out
    assert " + " not in out
    (row,) = json.loads(call("ls", "--json").out)
    assert (row["published"], row["imported"]) == (False, True)
    exported = call("export", "theirs", "base", "out")
    assert (exported.code, exported.err) == (
        2,
        "error: theirs was imported from lm-eval's files: no model was run here, so there is none to export\n",
    )


def test_ls_of_a_study_that_has_not_finished(own: Call, tmp_path: Path) -> None:
    noted(tmp_path / ".compresslab", "begun", {"base": {}}, finished="")
    assert "begun: 1 variant, last run not finished" in own("ls").out


def test_ls_goes_on_beside_a_note_and_a_record_that_are_damaged(own: Call, tmp_path: Path) -> None:
    (tmp_path / ".compresslab" / "studies" / "broken.json").write_text("{")
    (tmp_path / "reports" / "damaged").mkdir()
    (tmp_path / "reports" / "damaged" / "study.json").write_text("{")
    told = own("ls")
    assert told.code == 0
    assert "mine: 2 variants" in told.out
    assert [line.partition(":")[0] for line in told.err.splitlines()] == ["warning", "warning"]
    assert "broken.json" in told.err
    assert "damaged" in told.err


def test_show_has_the_verdicts_of_a_study_in_lines_that_are_whole(own: Call) -> None:
    told = own("show", "smollm2-quickstart")
    record = json.loads(own("show", "smollm2-quickstart", "--json").out)
    assert told.code == 0
    lines = [line.split() for line in told.out.splitlines() if line.strip()]
    for variant in record["variants"]:
        (own_line,) = [line for line in lines if line[0] == variant["name"]]
        parent = next((one for one in variant["comparisons"] if one["relation"] == "parent"), None)
        if parent is not None:
            assert {"lowered", "raised", "inconclusive"} & set(own_line)


def test_show_of_a_variant_prints_what_the_record_has(own: Call) -> None:
    out = own("show", "smollm2-quickstart", "nf4").out
    record = json.loads(own("show", "smollm2-quickstart", "nf4", "--json").out)
    assert out.startswith("nf4 of smollm2-quickstart: ")
    for score in record["scores"]:
        assert f"{100 * score['accuracy']:.1f} %" in out


def test_show_names_the_studies_and_variants_that_there_are(own: Call) -> None:
    told = own("show", "smollm2-quikstart")
    assert (told.code, told.out) == (2, "")
    assert "there are: smollm2-quickstart; did you mean 'smollm2-quickstart'?" in told.err
    told = own("show", "smollm2-quickstart", "nf5")
    assert told.code == 2
    assert "smollm2-quickstart has no variant 'nf5'" in told.err
    assert "did you mean 'nf4'?" in told.err
    assert "no report of a study 'x' in nowhere; there are: none" in own("show", "x", "--reports", "nowhere").err
