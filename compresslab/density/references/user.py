"""A user's own reference, from a table of evaluated models."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd

from compresslab.density.references.build import RESAMPLES, ReferenceSpec, build
from compresslab.density.references.laws import D_UNIT, N_UNIT
from compresslab.errors import BadInput
from compresslab.inputs import read_regular, reason

REQUIRED_COLUMNS = ("run", "params", "tokens", "task")
VALUE_COLUMNS = ("bpb", "score")
LARGEST_TABLE = 64 * 2**20  # bytes of a CSV of evaluated models, which is read whole
MIN_PARAMETERS = 1e4
UNITS = ("bits per byte", "bits per word")


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV of models, with one row for each model (or checkpoint) and task.

    Columns: run, params (all but a pure input embedding), tokens (training tokens), task; bpb or score or both. Optional columns:
    size (models of one size are left out together; default params), chance (accuracy of a guess).

    Raises:
        BadInput: a missing column, or a value that is no number, with its line.
    """
    try:
        table = pd.read_csv(io.BytesIO(read_regular(path, LARGEST_TABLE)))
    except FileNotFoundError:
        raise BadInput(f"there is no table {path}") from None
    except OSError as error:
        raise BadInput(f"the table {path} cannot be read ({reason(error)})") from error
    except (ValueError, OverflowError) as error:
        raise BadInput(f"{path} is no CSV table: {error}") from error
    lacking = [name for name in REQUIRED_COLUMNS if name not in table.columns]
    if lacking or not set(VALUE_COLUMNS) & set(table.columns):
        missing = lacking or [" or ".join(VALUE_COLUMNS)]
        raise BadInput(f"{path} lacks {', '.join(missing)}; its columns are {', '.join(map(str, table.columns))}")
    for name in (*REQUIRED_COLUMNS[1:3], *VALUE_COLUMNS, "chance"):
        if name not in table.columns:
            table[name] = float("nan")
        numbers = pd.to_numeric(table[name], errors="coerce")
        bad = table[name].notna() & numbers.isna() if name in (*VALUE_COLUMNS, "chance") else numbers.isna()
        if bad.any():
            row = int(bad.to_numpy().argmax())
            raise BadInput(f"{path}, line {row + 2}: {name} is {table[name].iloc[row]!r}; it must be a number")
        table[name] = numbers
    for name in ("run", "task"):
        if table[name].isna().any():
            raise BadInput(f"{path}, line {int(table[name].isna().to_numpy().argmax()) + 2}: {name} is empty")
    if table.empty:
        raise BadInput(f"{path} has no rows")
    _check_values(table, path)
    if "size" not in table.columns:
        table["size"] = table["params"]
    return table


def _check_values(table: pd.DataFrame, path: Path) -> None:
    """Raise BadInput with the line for values outside the allowed range."""
    allowed = {
        "params": (MIN_PARAMETERS, float("inf"), f"at least {MIN_PARAMETERS:,.0f}, in parameters and not in billions"),
        "tokens": (1.0, float("inf"), "a number of tokens"),
        "bpb": (1e-9, float("inf"), "positive"),
        "score": (0.0, 1.0, "between 0 and 1"),
        "chance": (0.0, 0.999, "a share below 1"),
    }
    for name, (minimum, maximum, requirement) in allowed.items():
        values = table[name]
        bad = values.notna() & ~((values >= minimum) & (values <= maximum) & (values != float("inf")))
        if bad.any():
            row = int(bad.to_numpy().argmax())
            raise BadInput(f"{path}, line {row + 2}: {name} is {values.iloc[row]:g}; it must be {requirement}")
    unclear = table.groupby("task")["chance"].nunique()
    if (unclear > 1).any():
        raise BadInput(f"{path}: {unclear.idxmax()} has more than one chance")


def fit_table(table: pd.DataFrame, name: str, source: str, unit: str = UNITS[0], resamples: int = RESAMPLES) -> dict[str, Any]:
    """Fit a table in the form of `read_table` and return the content of the reference's file.

    Raises:
        BadInput: too few sizes, duplicate rows, or invalid losses or scores.
    """
    if unit not in UNITS:
        raise BadInput(f"the unit of a loss is {' or '.join(UNITS)}, not {unit!r}")
    rows = pd.DataFrame(
        {
            "task": table["task"].astype(str),
            "run": table["run"].astype(str),
            "size": table["size"].astype(str),
            "n": table["params"] / N_UNIT,
            "d": table["tokens"] / D_UNIT,
            "loss": table["bpb"],
            "score": table["score"],
        }
    )
    duplicated = rows.duplicated(["task", "run", "d"])
    if duplicated.any():
        first = rows[duplicated].iloc[0]
        raise BadInput(f"{first['run']} stands twice on {first['task']} with the same tokens")
    rows = rows.sort_values(["task", "n", "run", "d"]).reset_index(drop=True)
    chances = table.groupby(table["task"].astype(str))["chance"].first()
    chance = {task: None if pd.isna(chances[task]) else float(chances[task]) for task in rows["task"].unique()}
    return build(ReferenceSpec(name=name, source=source, unit=unit, chance=chance), rows, resamples=resamples)
