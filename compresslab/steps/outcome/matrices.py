"""What the files hold of the weights of a linear layer, in one pass over them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from compresslab.methods.method import Zeros
from compresslab.models.counting.stored_model import Stored, StoredModel, same_bits

# SparseGPT drops the share in blocks of so many columns, and rounds it down in each.
BLOCK = 128


class Matrix(NamedTuple):
    """Plain weights of a linear layer.

    Attributes:
        equal: whether they are the parent's bit for bit; `None` without a parent.
        zeros: weights that are zero. lowest: the fewest of them in a row. idle: weights in columns of zeros alone.
        zeros_before: weights of the parent that are zero. refilled: those of them that are not zero any more.
        altered: weights that are not zero and are not the parent's.
        most: by a number of neighbours in a row, the most of so many that are not zero.
        due: zeros of a step that drops what is asked of it, those of the parent first; `None` without a parent of this shape, or if
            nothing is asked.
    """

    stored: Stored
    equal: bool | None
    zeros: int
    lowest: int
    idle: int
    zeros_before: int
    refilled: int
    altered: int
    most: dict[int, int]
    due: int | None = None


def matrix(
    model: StoredModel,
    stored: Stored,
    parent: tuple[StoredModel, Stored] | None,
    neighbours: Iterable[int],
    asked: Zeros | None = None,
) -> Matrix:
    """Count a matrix (rows, columns), whose values can be read.

    Args:
        parent: the model before the step and the same matrix in it, of any size and dtype.
        neighbours: numbers of neighbours, for `most`; those that do not divide the columns are left out.
        asked: the zeros of the step's settings, for `due`.
    """
    columns = stored.shape[1]
    counted = {of: 0 for of in neighbours if columns % of == 0}
    before = None
    if parent is not None and parent[1].shape == stored.shape and parent[0].readable(parent[1]):
        before = parent[0].parts(parent[1]._replace(bytes=stored.bytes))  # in parts of as many rows
    equal = None if parent is None else before is not None and parent[1].dtype == stored.dtype
    zeros = zeros_before = refilled = altered = 0
    lowest, used = columns, torch.zeros(columns, dtype=torch.bool)
    due, were_zero = 0, torch.zeros(columns, dtype=torch.int64)
    for part in model.parts(stored):
        zero = part == 0
        count, rows = int(torch.count_nonzero(zero)), len(part)
        zeros += count
        # So few zeros leave a row, every column and some neighbours without one.
        lowest = 0 if count < rows else min(lowest, int(torch.count_nonzero(zero, 1).min()))
        used |= True if count < rows else ~zero.all(0)
        for of in counted:
            full = counted[of] == of or count < zero.numel() // of
            counted[of] = of if full else max(counted[of], _most(zero, of))
        if before is None:
            continue
        old = next(before)
        equal = bool(equal) and same_bits(part, old)
        was_zero = zero if equal else old == 0
        if asked is not None:
            due += _due(was_zero, asked)
            were_zero += was_zero.sum(0)
        if equal:
            zeros_before += count
        else:
            zeros_before += int(torch.count_nonzero(was_zero))
            refilled += int(torch.count_nonzero(was_zero & ~zero))
            altered += int(torch.count_nonzero((part != old) & ~zero))
    if asked is not None and asked.pattern is None and asked.within == "matrix":
        due = _due_of_columns(were_zero, stored.shape[0], asked)
    idle, known = int((~used).sum()) * stored.shape[0], asked is not None and before is not None
    return Matrix(stored, equal, zeros, lowest, idle, zeros_before, refilled, altered, counted, due if known else None)


def _due(was_zero: Tensor, asked: Zeros) -> int:
    """The zeros of rows in which each group of neighbours, or else each row, has what is asked, and those that it had if they are more."""
    keep, of = asked.pattern or (was_zero.shape[1] - int(asked.share * was_zero.shape[1]), was_zero.shape[1])
    if was_zero.shape[1] % of:
        return was_zero.numel()  # another check tells that the pattern does not divide the columns
    return int(was_zero.reshape(-1, of).sum(1).clamp(min=of - keep).sum())


def _due_of_columns(were_zero: Tensor, rows: int, asked: Zeros) -> int:
    """The same of a matrix, from the zeros (columns,) that its columns had: of all of it, or of blocks of columns if values change."""
    blocks = torch.split(were_zero, len(were_zero) if asked.masks else BLOCK)
    return sum(max(int(asked.share * rows * len(block)), int(block.sum())) for block in blocks)


def _most(zero: Tensor, of: int) -> int:
    """The most weights that are not zero among each `of` neighbours in a row."""
    groups = zero.reshape(-1, of)
    return of - int(groups.sum(1, dtype=torch.uint8).min())
