"""Scores, sizes and sources of models in a published table: one that ships with the package, or a user's `.csv` file."""

from __future__ import annotations

from pathlib import Path

from compresslab.catalog import published_scores as shipped
from compresslab.catalog.published_scores import Score
from compresslab.errors import BadInput
from compresslab.plan.user_tables.table import UserTable, read_table
from compresslab.records import Shape, Size
from compresslab.suggestions import suggest


def is_file(table: str) -> bool:
    """Whether a table's name is the path of a user's file."""
    return table.lower().endswith(".csv")


def _own(table: str) -> UserTable:
    return read_table(Path(table).expanduser())


def check_model(model: str, table: str) -> None:
    """Check that a table has a model, and that the model's size is known. Raises BadInput with similar names."""
    if not is_file(table):
        shipped.find_model(model)
        shipped.weights(model)
        return
    names = list(_own(table).scores)
    if model not in names:
        raise BadInput(f"{table} has no model {model[:200]!r};{suggest(model, names, 3)} (it has {', '.join(names[:20])})")


def tables_of(model: str, table: str) -> list[str]:
    """The tables with scores of a model, as far as they may be named beside `table`."""
    return [table] if is_file(table) else shipped.tables_of(model)


def find_table(table: str) -> str:
    """The name, if there is such a table. Raises BadInput."""
    return table if is_file(table) else shipped.find_table(table)


def known(table: str) -> bool:
    """Whether there is such a table."""
    return is_file(table) or table in shipped.tables()


def scores_of(model: str, table: str) -> dict[str, Score]:
    """A model's scores in a table by task, of all tasks that a reference reads."""
    if not is_file(table):
        return shipped.scores_of(model, table)
    return {score.task: score for score in _own(table).scores.get(model, ()) if score.task}


def unread(model: str, table: str) -> list[str]:
    """The scores of a model in a table whose setting no reference reads: benchmark and setting in words."""
    if not is_file(table):
        return shipped.unread(model, table)
    return [f"{score.benchmark} ({score.setting})" for score in _own(table).scores.get(model, ()) if not score.task]


def weights(model: str, table: str) -> tuple[Size, Shape]:
    """Size and shape of a model. Raises BadInput if they are not known."""
    return _own(table).sizes[model] if is_file(table) else shipped.weights(model)


def train_tokens(model: str, table: str) -> float | None:
    """The tokens that a model was trained on, where its table says so."""
    return _own(table).tokens.get(model) if is_file(table) else shipped.train_tokens(model)


def compression(model: str, table: str) -> tuple[str, str]:
    """A model's parent and its compression, as its table states them; two empty texts without them."""
    return ("", "") if is_file(table) else shipped.compression(model)


def source(table: str) -> tuple[str, str]:
    """Evaluator and source of a table."""
    return ("its user", f"sha256 {_own(table).digest[:16]}") if is_file(table) else shipped.tables()[table]


def one_evaluation(first: str, second: str) -> bool:
    """Whether scores of two tables compare as those of one do. Nothing says so of a user's file and another table."""
    return first == second or (not is_file(first) and not is_file(second) and shipped.one_evaluation(first, second))
