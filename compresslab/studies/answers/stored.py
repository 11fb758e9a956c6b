"""Reads what a study stores of every answer beside its score, column by column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compresslab.density.references.laws import Array

if TYPE_CHECKING:
    import pyarrow as pa

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Lists:
    """A list of numbers for each item, which may be empty.

    Attributes:
        values: the numbers of all items. starts: (items + 1,) the place of each item's first number, and the end.
    """

    values: Array
    starts: Rows

    @property
    def lengths(self) -> Rows:
        """(items,) how many numbers each item has."""
        return np.diff(self.starts)

    def at(self, rows: Rows, places: Rows) -> Array:
        """(rows,) one number of each of the given items."""
        found: Array = self.values[self.starts[rows] + places]
        return found

    def table(self, rows: Rows, width: int) -> Array:
        """(rows, width) the numbers of items that have `width` each."""
        return self.values[self.starts[rows][:, None] + np.arange(width)]


@dataclass(frozen=True, eq=False)
class Answers:
    """The stored answers to a task, in the order of its items. A column that a file does not have is `None`.

    Attributes:
        logprobs: log P(option | prompt) of each option in nats; no number for a generated answer.
        tokens: of each option, or of the generated answer; no number where nobody counted them.
        generated: each text; `None` for an item that has options.
        cut: (items,) 1 for a generated answer that ended at its limit of tokens, 0 for one that ended before, NaN where nobody noted it.
    """

    logprobs: Lists | None
    tokens: Lists | None
    generated: Sequence[str | None] | None
    cut: Array | None

    def tokens_of(self, options: Sequence[int]) -> Array | None:
        """(items,) tokens of one option of each item; `None` unless all are known."""
        places = np.asarray(options, dtype=np.int64)
        if self.tokens is None or len(places) != len(self.tokens.lengths) or not np.all((places >= 0) & (places < self.tokens.lengths)):
            return None
        return self.tokens.at(np.arange(len(places)), places)


NOTHING = Answers(None, None, None, None)
Read = Callable[[Path], Answers]


def read_answers(path: Path) -> Answers:
    """The answers of a file of `evaluation.scores.write_items`, in the file's order, without the prompts.

    A column that the file lacks is missing, as all are if it cannot be read: the scores, which were read before, stand without it.
    """
    from pyarrow.parquet import read_schema, read_table

    try:
        stored = set(read_schema(path).names)
        table = read_table(path, columns=[name for name in ("logprobs", "tokens", "generated", "cut") if name in stored])
        columns = {name: table.column(name).combine_chunks() for name in table.column_names}
        return Answers(
            logprobs=_lists(columns["logprobs"]) if "logprobs" in columns else None,
            tokens=_lists(columns["tokens"]) if "tokens" in columns else None,
            generated=columns["generated"].to_pylist() if "generated" in columns else None,
            cut=np.array(columns["cut"].to_pylist(), dtype=np.float64) if "cut" in columns else None,  # of `None` it makes NaN
        )
    except (OSError, KeyError, TypeError, ValueError):  # of pyarrow, all its own are among these
        return NOTHING


def _lists(column: pa.Array[Any]) -> Lists:
    import pyarrow as pa

    lists = column.cast(pa.list_(pa.float64()))
    lengths = np.asarray(lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False), dtype=np.int64)
    return Lists(lists.flatten().to_numpy(zero_copy_only=False), np.concatenate([[0], np.cumsum(lengths)]))
