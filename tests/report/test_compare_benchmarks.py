"""Studies on one page that rest on different benchmarks are not ranked unless asked."""

from __future__ import annotations

import pytest

from compresslab.records import StudyRecord
from compresslab.report import html, words
from compresslab.report.answer import answer
from compresslab.report.figures import Figures
from compresslab.report.html import render
from compresslab.report.merge import differences, merged

from . import studies


@pytest.fixture(autouse=True)
def _no_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing charts is what takes time."""
    monkeypatch.setattr(html, "figures", lambda _: Figures())


def on(tasks: list[str], name: str) -> StudyRecord:
    """The quickstart's variants, whose verdicts rest on these tasks."""
    return studies.resting_on(tasks, studies.quickstart(study=name))


def test_different_benchmarks_are_not_ranked_unless_asked():
    pair = [on(["MMLU"], "one"), on(["MMLU", "GSM8K", "BBH", "ARC", "PIQA"], "five")]
    joint = merged(pair)
    assert "rest on different benchmarks (1 task and 5 tasks) and are not ranked" in answer(joint).headline
    assert "highest" not in " ".join(answer(joint).details)
    assert any(caveat.startswith("⚠ The verdicts rest on different benchmarks (1 task (MMLU): one; 5 tasks (") for caveat in joint.caveats)
    page = render(joint, differences(pair))
    assert '<span class="badge">1 task</span>' in page
    assert '<span class="badge">5 tasks</span>' in page
    assert '"ranked":false' in page
    asked = answer(merged(pair, rank=True))
    assert "not ranked" not in asked.headline
    assert "least costly is" in asked.headline or "best is" in asked.headline or "most of all" in asked.headline


def test_equal_benchmarks_are_ranked():
    joint = merged([on(["MMLU"], "one"), on(["MMLU"], "other")])
    assert joint.ranked
    assert "not ranked" not in answer(joint).headline


def test_names_are_cut_in_their_middle():
    assert words.truncate("a-long-study/depth-24-healed", 21) == "a-long-stu…-24-healed"
    assert len(words.truncate("x" * 100, 22)) == 22
    assert words.truncate("short", 5) == "short"
