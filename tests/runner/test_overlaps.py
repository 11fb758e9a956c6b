"""The text of a study's steps, compared with the items of its tasks."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest
from report.studies import base, study

from compresslab import run_study
from compresslab.errors import BadInput
from compresslab.evaluation import olmes_requests
from compresslab.models.text import documents
from compresslab.records import StudyRecord, TextOverlap
from compresslab.report.contamination import sentences
from compresslab.report.html import render
from compresslab.store.store import Store
from compresslab.studies.answers import overlaps
from compresslab.studies.answers.overlaps import caveats, documents_read
from compresslab.studies.run_study import plan_study, report_study

PLANTED = 3


def digest(documents: list[str]) -> str:
    return hashlib.sha256(b"".join(document.encode() + b"\0" for document in documents)).hexdigest()


def test_only_the_documents_that_a_step_read_are_compared(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("\n\n\n".join(f"document {number}" for number in range(9)))
    everything = list(documents(str(path), 3))
    assert list(documents_read(str(path), 3, digest(everything))) == everything
    assert list(documents_read(str(path), 3, digest(everything[:4]))) == everything[:4]


def test_a_text_that_has_changed_since_is_told(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("another text")
    with pytest.raises(BadInput, match=r"text\.txt does not hold the documents any more that the steps read"):
        list(documents_read(str(path), 0, digest(["the text"])))


def test_a_text_without_items_gives_no_caveat() -> None:
    assert list(caveats([TextOverlap(role="training", source="a.txt", sha256="0", variants=["child"], reason="it is gone")])) == []


@pytest.mark.slow
def test_a_planted_text_is_found_told_and_looked_for_once(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [item.requests[item.gold] for item in olmes_requests.load("openbookqa")[:PLANTED]]
    planted = [prompt[prompt.rindex("Question:") :] + answer for prompt, answer in asked]
    leaked = tmp_path / "leaked.txt"
    # Another text each time, which the user's cache does not know.
    other = [f"Paragraph {n} of something else. " * 9 for n in range(90)]
    leaked.write_text("\n\n\n".join([*planted, f"{tmp_path} {time.time()}", *other]))
    text = recipe.read_text().replace("tokens: 512", "tokens: 20_000")
    calibration, _, training = text.partition("  training: {source: ")
    source, _, rest = training.partition(", length: 32}")
    recipe.write_text(f"{calibration}  training: {{source: {leaked}, length: 32, tokens: 20_000}}{rest}")
    assert Path(source).is_file()
    record = run_study(recipe, store=tmp_path / "store")
    assert [failure for variant in record.variants for failure in variant.failures] == []
    check(record, planted)
    monkeypatch.setattr(overlaps, "overlapping", None)  # what was found is in the cache
    again = report_study(plan_study(recipe), Store(tmp_path / "store"))
    assert again.overlaps == record.overlaps


def check(record: StudyRecord, planted: list[str]) -> None:
    assert record.overlaps is not None
    by_role = {text.role: text for text in record.overlaps}
    training, calibration = by_role["training"], by_role["calibration"]
    found = {task.task: task for task in training.tasks}
    assert training.variants == ["healed", "packed"]
    assert calibration.variants == ["pruned", "healed", "packed"]
    assert "Predators eat" in planted[2]
    assert (found["openbookqa"].words_13, found["openbookqa"].too_few_words[0]) == (["0", "1"], "2")
    assert found["csqa"].words_13 == []
    assert [task.words_13 for task in calibration.tasks] == [[], []]
    [caveat] = [caveat for caveat in record.caveats if "share 13 words" in caveat]
    assert "2 of 12 items of openbookqa" in caveat
    page = render(record)
    assert "Are the tasks' items in the text?" in page
    assert "2 of 12 items of openbookqa" in page


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("hub:owner/texts", "it was streamed from the hub, and this machine does not keep it"),
        ("gone.txt", "no text file at gone.txt"),
        ("changed.txt", "changed.txt does not hold the documents any more that the steps read"),
    ],
)
def test_a_text_that_cannot_be_compared_is_told_with_the_reason(
    source: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("changed.txt").write_text("another text")
    text = overlaps.ReadText("training", source, 0, "0" * 64, ["child"])
    found = overlaps.compared(text, {}, {}, Store(tmp_path))
    assert (found.reason, found.tasks, found.variants) == (reason, [], ["child"])
    [sentence] = sentences(study([base()], overlaps=[found]))
    assert sentence == f"The training text {source} (000000000000; behind child) was not compared: {reason}."
