"""`report.md`: short, whole, and safe whatever the names are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from compresslab.errors import BadInput
from compresslab.report.markdown.short_report import short_report
from compresslab.report.overwriting import check_page
from report import studies

from .test_html import HOSTILE, hostile


def test_it_has_the_answer_what_it_rests_on_the_table_and_the_command():
    text = short_report(studies.with_failure())
    assert "Rests on 800 items of 4 tasks" in text.replace("\\", "")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows] == [
        "| variant", "| base", "| bnb-nf4", "| depth-24", "| depth-24-healed", "| depth-24-healed-nf4", "| width-75", "| gptq"
    ]  # fmt: skip
    assert "| failed |" in text
    assert "lowered by parameters" in text
    assert text.endswith("```console\ncompresslab run recipes/quickstart.yaml\n```\n")
    assert len(text) < 4000


def test_a_column_without_any_value_is_not_there():
    bare = [one.model_copy(update={"scores": [], "density": None, "comparisons": []}) for one in studies.quickstart().variants]
    header = next(line for line in short_report(studies.study(bare)).splitlines() if line.startswith("| "))
    assert header == "| variant | parent | stored | memory |"


def test_the_command_has_the_changes_of_the_run():
    changed = studies.quickstart(recipe="# --set evaluate.items=60\n# --only a b\nform: another\n")
    assert "\ncompresslab run recipes/quickstart.yaml --set evaluate.items=60 --only 'a b'\n```" in short_report(changed)


def test_names_are_text_and_no_markup():
    text = short_report(hostile())
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) == len(HOSTILE) + 1
    bare = [re.sub(r"\\[\W_]", "", line) for line in lines]
    assert len({line.count("|") for line in bare}) == 1
    assert not any("<" in line or "`" in line for line in bare)


def test_a_report_of_the_user_stays(tmp_path: Path):
    (tmp_path / "report.md").write_text("# mine")
    with pytest.raises(BadInput, match=r"report\.md is there already, and compresslab did not write it"):
        check_page(tmp_path, "s")
