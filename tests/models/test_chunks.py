"""Chunks of positions."""

from __future__ import annotations

import pytest

from compresslab.models import chunks
from models.tiny import VOCABULARY, make_model


@pytest.mark.parametrize(("positions", "most"), [(20, 7), (21, 7), (3, 7), (5, 1), (0, 7)])
def test_chunks_cover_every_position_once_and_hold_no_more_logits_than_allowed(monkeypatch: pytest.MonkeyPatch, positions: int, most: int):
    monkeypatch.setattr(chunks, "LOGITS_A_CHUNK", most * VOCABULARY + 1)
    parts = list(chunks.chunks(positions, make_model("llama")))
    assert [place for part in parts for place in range(part.start, part.stop)] == list(range(positions))
    assert all(part.stop - part.start <= most for part in parts)
    assert len(parts) == -(-positions // most)
