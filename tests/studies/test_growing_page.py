"""The page of a study while it runs."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from compresslab.plan.graph import Node
from compresslab.records import Failure
from compresslab.runner.watcher import Watcher
from compresslab.studies import growing_page
from compresslab.studies.growing_page import GrowingPage


def test_what_failed_in_this_run_is_told_as_failed_while_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing_page, "EVERY", 0.0)
    written: list[dict[str, Failure]] = []

    def write(failures: Mapping[str, Failure]) -> None:
        written.append(dict(failures))

    page = GrowingPage(Watcher(), write)
    step, after, again, scored = (
        Node(kind, name, name) for kind, name in zip(("model", "model", "model", "evaluate"), "abcd", strict=True)
    )
    page.ended(step, 1.0, "the optimizer diverged")
    page.lost(after, "not run, because “a” failed")
    page.ended(again, 1.0, "its result is damaged")
    page.again(again, "its result is damaged")
    page.ended(scored, 1.0, "")
    assert written == [
        {
            "a": Failure(node=step.label, cause="the optimizer diverged"),
            "b": Failure(node=after.label, cause="not run, because “a” failed"),
        }
    ]
