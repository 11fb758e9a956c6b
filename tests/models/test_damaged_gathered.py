"""Damaged gathered data gives a message of one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from compresslab.errors import RunFailed
from compresslab.models.calibration import removals, statistics, stored_logits

READERS = {
    statistics.SUMMARY: statistics.Statistics,
    removals.FILE: removals.read_removals,
    stored_logits.SUMMARY: stored_logits.StoredLogits,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("left", [None, "", '{"tokens": 3', "[]", "3", '{"tokens": 3}', "[" * 100_000])
def test_a_summary_that_is_not_whole_is_told(name: str, left: str | None, tmp_path: Path) -> None:
    if left is not None:
        (tmp_path / name).write_text(left)
    read: Callable[[Path], object] = READERS[name]
    with pytest.raises(RunFailed) as caught:
        read(tmp_path)
    assert f"{name} is missing or damaged" in str(caught.value)
    assert "`compresslab verify RECIPE --repair`" in str(caught.value)
    assert "\n" not in str(caught.value)
