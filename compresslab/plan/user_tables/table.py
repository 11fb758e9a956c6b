"""A user's own table of published scores: a CSV file with one row for each model and benchmark.

Columns: `model`, `benchmark`, `shots`, `metric`, `score`, and of every model `params` (those that multiply activations) or `config` (its
config.json or its folder, from the table's folder on). Optional: `bits` (stored bits of a weight, 16 without it), `train_tokens`, `note`.
Scores are all shares or all percent.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from compresslab.catalog.published_scores import Score
from compresslab.catalog.published_settings import TASKS, task_of
from compresslab.errors import BadInput
from compresslab.inputs import Stamp, read_regular, reason
from compresslab.plan.user_tables.sizes import quantization_in_name, size_from_config, stated_size
from compresslab.records import Shape, Size
from compresslab.suggestions import MOST_PROBLEMS, suggest

REQUIRED = ("model", "benchmark", "shots", "metric", "score")
SIZES = ("params", "config")
OPTIONAL = (*SIZES, "bits", "train_tokens", "note")
LARGEST = 16 * 2**20  # bytes
Row = tuple[int, Mapping[str, str]]
"""A row with the line on which it begins."""


@dataclass(frozen=True)
class UserTable:
    """The content of a table.

    Attributes:
        digest: sha256 of the file. scores: by model. sizes: by model. tokens: training tokens, of the models that state them.
    """

    path: Path
    digest: str
    scores: Mapping[str, tuple[Score, ...]]
    sizes: Mapping[str, tuple[Size, Shape]]
    tokens: Mapping[str, float]


def read_table(path: Path) -> UserTable:
    """Read a table. It is read again where the file has changed.

    Raises:
        BadInput: everything that is wrong with it, each with its line.
    """
    try:
        stamp = Stamp.of(path.stat())
    except (OSError, ValueError) as error:
        raise BadInput(f"the table {path} cannot be read ({reason(error)}); check the path") from error
    return _read(path, stamp)


@functools.lru_cache(maxsize=16)
def _read(path: Path, _: Stamp) -> UserTable:
    try:
        content = read_regular(path, LARGEST)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text (byte {error.start + 1}); save it as CSV UTF-8") from error
    except (OSError, ValueError) as error:
        raise BadInput(f"the table {path} cannot be read ({reason(error)})") from error
    rows = list(_rows(path, text))
    problems = list(_problems(rows))
    sizes: dict[str, tuple[Size, Shape]] = {}
    if not problems:
        for model, own in _by_model(rows).items():
            try:
                sizes[model] = _size(path, own)
            except BadInput as error:
                problems.append((own[0][0], f"{model}: {error}"))
    if problems:
        shown = [f"{path}, line {line}: {problem}" for line, problem in sorted(problems)[:MOST_PROBLEMS]]
        more = [f"and {len(problems) - MOST_PROBLEMS} more"] if len(problems) > MOST_PROBLEMS else []
        raise BadInput("\n".join([*shown, *more]))
    divisor = 100.0 if any(float(row["score"]) > 1 for _, row in rows) else 1.0
    scores = {model: tuple(_score(path, row, divisor, sizes[model][0]) for _, row in own) for model, own in _by_model(rows).items()}
    tokens = {row["model"]: float(row["train_tokens"]) for _, row in rows if row["train_tokens"]}
    return UserTable(path, hashlib.sha256(content).hexdigest(), scores, sizes, tokens)


def _rows(path: Path, text: str) -> Iterator[Row]:
    """The rows with all columns, those that the table lacks as "". Empty lines are left out."""
    header = text.partition("\n")[0]
    if "," not in header:
        for sign, name in ((";", "semicolons"), ("\t", "tabs")):
            if sign in header:
                raise BadInput(f"{path}: its columns are separated by {name}; save it with commas between them and points in numbers")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        lacking = [name for name in REQUIRED if name not in names] or ([" or ".join(SIZES)] if not set(SIZES) & set(names) else [])
        if lacking:
            raise BadInput(
                f"{path}, line 1: the table lacks {', '.join(lacking)}; its columns are {', '.join(names) or 'none'}. It needs "
                f"{', '.join(REQUIRED)}, and params or config (docs/bring-your-own.md)"
            )
        known = (*REQUIRED, *OPTIONAL)
        for name in names:
            if name not in known or names.count(name) > 1:
                what = "stands there twice" if name in known else f"is no column of a table;{suggest(name, known)}".rstrip(";")
                raise BadInput(f"{path}, line 1: {name or 'an empty name'} {what} (there are {', '.join(known)})")
        line, found = reader.line_num + 1, False
        for cells in reader:
            if any(cell.strip() for cell in cells):
                if len(cells) != len(names):
                    raise BadInput(
                        f"{path}, line {line}: {len(cells)} cells, and the table has {len(names)} columns; put texts with commas in quotes"
                    )
                found = True
                yield line, {**dict.fromkeys(known, ""), **dict(zip(names, (cell.strip() for cell in cells), strict=True))}
            line = reader.line_num + 1
    except csv.Error as error:
        raise BadInput(f"{path}, line {reader.line_num}: no CSV ({error})") from error
    if not found:
        raise BadInput(f"{path} has no rows")


def _problems(rows: list[Row]) -> Iterator[tuple[int, str]]:
    """What is wrong with single rows, and between rows."""
    seen: dict[tuple[str, ...], int] = {}
    numbers: dict[int, float] = {}
    for line, row in rows:
        for name in REQUIRED:
            if not row[name]:
                yield line, f"{name} is empty; {_asked(name)}"
        for name, lowest, highest in (("score", 0.0, 100.0), ("train_tokens", 1.0, 1e16)):
            if row[name]:
                value = _number(row[name])
                if value is None or not lowest <= value <= highest:
                    yield (
                        line,
                        f"{name} is {row[name][:40]!r}; it must be a number from {lowest:g} to {highest:g}",
                    )
                elif name == "score":
                    numbers[line] = value
        if row["shots"] and not row["shots"][0].isdecimal():
            yield line, f"shots is {row['shots'][:40]!r}; write the number of examples before a question, such as 5"
        key = (row["model"], row["benchmark"], row["shots"], row["metric"])
        if key in seen:
            yield line, f"{row['model']} has {row['benchmark']} in this setting already, on line {seen[key]}; keep one"
        seen.setdefault(key, line)
    large = [line for line, value in numbers.items() if value > 1]
    small = [line for line, value in numbers.items() if 0 < value <= 1]
    if large and small:
        there = f"score is {numbers[small[0]]:g}, and {numbers[large[0]]:g} on line {large[0]}"
        yield small[0], f"{there}: shares and percent are mixed; write all as one of them"
    for model, own in _by_model(rows).items():
        for name in (*SIZES, "bits", "train_tokens"):
            stated = {row[name]: line for line, row in own if row[name]}
            if len(stated) > 1:
                yield max(stated.values()), f"two models under the name {model}: {name} is {' and '.join(stated)}; give one another name"
        if not any(row[name] for _, row in own for name in SIZES):
            yield own[0][0], f"the size of {model} is not known; give its params, or its config.json in config, in one of its rows"


def _asked(name: str) -> str:
    """What to write into an empty cell."""
    return {
        "shots": "write how many examples stood before a question, since scores of other shots are of another task",
        "metric": "write how answers were scored (acc, em, pass@1), since other metrics give other scores",
        "score": "leave the row out where there is no score",
    }.get(name, "every row names it")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value == value else None  # not NaN


def _by_model(rows: list[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row[1]["model"], []).append(row)
    return found


def _size(path: Path, rows: list[Row]) -> tuple[Size, Shape]:
    stated = {name: next((row[name] for _, row in rows if row[name]), "") for name in (*SIZES, "bits")}
    bits = _number(stated["bits"]) if stated["bits"] else None
    if stated["bits"] and bits is None:
        raise BadInput(f"bits is {stated['bits'][:40]!r}; it must be a number, such as 4.25")
    if bits is None and (said := quantization_in_name(rows[0][1]["model"])):
        raise BadInput(f"the name says that weights are quantized ({said}), and bits is empty; write the bits of a weight, 16 if it is not")
    if stated["config"]:
        config = path.parent / stated["config"]
        return size_from_config(config / "config.json" if config.is_dir() else config, bits)
    parameters = _number(stated["params"])
    if parameters is None:
        raise BadInput(f"params is {stated['params'][:40]!r}; it must be a number, such as 1.2e9")
    return stated_size(parameters, 16.0 if bits is None else bits)


def _score(path: Path, row: Mapping[str, str], divisor: float, size: Size) -> Score:
    task, setting = _task(row)
    return Score(
        table=str(path),
        model=row["model"],
        parent="",
        family="",
        params=float(size.parameters),
        active=float(size.active),
        released="",
        tokens=row["train_tokens"],
        kind="",
        compression="",
        benchmark=row["benchmark"],
        metric=row["metric"],
        shots=row["shots"],
        score=float(row["score"]) / divisor,
        note=row["note"],
        task=task,
        setting=setting,
    )


def _task(row: Mapping[str, str]) -> tuple[str, str]:
    """The task that a row's benchmark is in its setting, "" for none, and a note. A benchmark may be named as a task."""
    benchmark, shots = row["benchmark"], row["shots"]
    if benchmark not in TASKS or TASKS[benchmark].benchmark == benchmark:
        return task_of(benchmark, "", shots, row["metric"])
    own = TASKS[benchmark].setting
    return (benchmark, "") if own.startswith(f"{shots.partition(' ')[0]}-shot") else ("", f"{shots} shots, where {benchmark} is {own}")
