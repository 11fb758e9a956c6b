"""What is counted of a stored matrix is what a naive count of the whole one gives, however small the parts are that it is read in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from compresslab.methods.method import Zeros
from compresslab.models.counting import stored_model
from compresslab.models.counting.stored_model import StoredModel
from compresslab.recipe.stored_weights import Location
from compresslab.steps.outcome.matrices import matrix


def stored(folder: Path, weight: torch.Tensor) -> StoredModel:
    folder.mkdir()
    save_file({"w": weight.contiguous()}, folder / "model.safetensors")
    return StoredModel(folder, "")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("case", range(4))
def test_a_matrix_is_counted_as_a_naive_count_has_it(share: float, case: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_model, "PART_BYTES", 200)
    torch.manual_seed(case)
    before = torch.randn(24, 16).bfloat16()
    after = before.masked_fill(torch.rand(24, 16) < share, 0)
    if case == 1:
        after[:, 3] = 0
    if case == 2:
        before[torch.rand(24, 16) < 0.2] = 0
    if case == 3:
        after.view(24, 4, 4)[..., :2] = 0
    model, parent = stored(tmp_path / "after", after), stored(tmp_path / "before", before)
    place = Location(None, "w")
    found = matrix(model, model.tensors[place], (parent, parent.tensors[place]), (4, 8))
    zero, was_zero = after == 0, before == 0
    most = {of: int((~zero).view(-1, of).sum(1).max()) for of in (4, 8)}
    counts = (
        int(zero.sum()),
        int(zero.sum(1).min()),
        int(zero.all(0).sum()) * 24,
        int(was_zero.sum()),
        int((was_zero & ~zero).sum()),
        int(((after != before) & ~zero).sum()),
    )
    assert found[1:] == (torch.equal(after, before), *counts, most, None)


@pytest.mark.parametrize("asked", [Zeros(0.5, "row"), Zeros(0.5, "matrix", masks=True), Zeros(0.5, "matrix"), Zeros(0.5, "matrix", (2, 4))])
def test_zeros_of_the_parent_count_for_those_that_are_asked(asked: Zeros, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_model, "PART_BYTES", 200)
    torch.manual_seed(0)
    before = torch.randn(24, 256).bfloat16().masked_fill(torch.rand(24, 256) < 0.45, 0)
    before[:3], before[:, 128:160] = 0, 0
    model, parent = stored(tmp_path / "after", before * 0), stored(tmp_path / "before", before)
    place = Location(None, "w")
    found = matrix(model, model.tensors[place], (parent, parent.tensors[place]), (4, 8), asked)
    parts = {"row": list(before), "matrix": [before] if asked.masks else list(before.split(128, dim=1))}[asked.within]
    if asked.pattern:
        parts = list(before.reshape(-1, 4))
    assert found.due == sum(max(part.numel() // 2, int((part == 0).sum())) for part in parts)
