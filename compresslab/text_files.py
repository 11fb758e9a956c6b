"""Text files by their form: plain text, JSON Lines or a JSON list. What is of another form is refused by name, also by the plan."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compresslab.errors import BadInput
from compresslab.inputs import LARGEST_TEXT, open_regular, parse_json, read_regular, reason

JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
# Tables, by their suffixes: as plain text, their separators and headers would be read, too.
TABLES = (".csv", ".tsv", ".parquet", ".arrow", ".feather", ".xlsx")
# How files of other forms begin.
SIGNATURES = {
    b"\x1f\x8b": "compressed by gzip",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "a Parquet table",
    b"ARROW1": "an Arrow table",
    b"%PDF": "a PDF",
    b"{\\rtf": "RTF",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself, which `git lfs pull` fetches",
    b"\xff\xfe\0\0": "UTF-32 text",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
BOM = "\ufeff"
# Separators of tables, what their columns are called, and how many characters of a file tell whether it is one.
SEPARATORS, COLUMN, TABLE_START = ",\t;", re.compile(r'"?[A-Za-z_][\w.-]*"?'), 2**16
# Of a larger file, the plan looks at this many bytes.
CHECKED_BYTES = 32 * 2**20
ADVICE = 'give a .txt file in UTF-8, with two blank lines between documents, or a .jsonl file with an object {"text": …} in each line'


def text_documents(path: Path) -> list[str]:
    """The documents of a text file that are not blank, in its order.

    Plain text is divided at two blank lines. A file of JSON has a row in each line, or is one list of rows. A row is an object with a
    `text`, or a string of a list.

    Raises:
        BadInput: it cannot be read, is of another form or no UTF-8, a row has no text, or all documents are blank.
    """
    return _documents(path, _read(path, LARGEST_TEXT))


def check_text_file(path: Path) -> None:
    """Refuse what `text_documents` refuses. Of a large file, only the beginning is looked at. Raises BadInput."""
    try:
        with open_regular(path) as file:
            start, whole = file.read(CHECKED_BYTES), not file.read(1)
    except OSError as error:
        raise BadInput(f"the text {path} cannot be read ({reason(error)})") from error
    if whole:
        _documents(path, start)
        return
    text = _decoded(path, start[: start.rfind(b"\n") + 1])  # the last line may be cut within a character
    if text.strip() and not _is_list(text):
        _documents(path, text.encode())


def text_amount(path: Path) -> tuple[int, int] | None:
    """The number of documents of a sound text file and their bytes in UTF-8; `None` for a file that the plan does not read whole."""
    if path.stat().st_size > CHECKED_BYTES:
        return None
    found = text_documents(path)
    return len(found), sum(len(document.encode()) for document in found)


def _read(path: Path, limit: int) -> bytes:
    try:
        return read_regular(path, limit)
    except FileNotFoundError:
        raise BadInput(f"no text file at {path}") from None
    except OSError as error:
        raise BadInput(f"the text {path} cannot be read ({reason(error)})") from error


def _documents(path: Path, content: bytes) -> list[str]:
    text, suffix = _decoded(path, content), path.suffix.lower()
    if suffix in TABLES:
        raise BadInput(f"{path} is a table by its suffix; {ADVICE}")
    if suffix in JSON_SUFFIXES:
        documents = list(_list_rows(path, text) if _is_list(text) else _line_rows(path, text))
    elif _looks_like_json(text):
        raise BadInput(f"{path} has JSON in it, and its suffix is {path.suffix or 'none'!r}; rename it to .jsonl, or {ADVICE}")
    elif _looks_like_table(text):
        raise BadInput(f"{path} is a table by its content: a line of names, and as many cells in each line; {ADVICE}")
    else:
        documents = text.split("\n\n\n")
    found = [document for document in documents if _is_visible(document)]
    if not found:
        raise BadInput(f"the text {path} is empty" + (f": none of its {len(documents):,} documents has text" if text.strip() else ""))
    return found


def _decoded(path: Path, content: bytes) -> str:
    if kind := next((kind for start, kind in SIGNATURES.items() if content.startswith(start)), ""):
        raise BadInput(f"{path} is {kind}; {ADVICE}")
    if b"\0" in content:
        raise BadInput(f"{path} has null bytes, so it is binary or UTF-16; {ADVICE}")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 text: {error}; save it as UTF-8") from error
    # `Path.read_text` gives these line ends, too, and the digests of texts that were read so far must stay.
    return text.removeprefix(BOM).replace("\r\n", "\n").replace("\r", "\n")


def _is_list(text: str) -> bool:
    return text.lstrip().startswith("[")


def _looks_like_json(text: str) -> bool:
    """Whether plain text is rows of JSON: its first line is an object, or all of it an object or a list of objects or strings."""
    whole = text.strip()
    if whole[:1] not in ("{", "["):
        return False
    for part, kinds in ((whole.partition("\n")[0], dict), (whole, dict | str)):
        with contextlib.suppress(ValueError):
            value = parse_json(part)
            if isinstance(value[0] if isinstance(value, list) and value else value, kinds):
                return True
    return False


def _looks_like_table(text: str) -> bool:
    """Whether plain text is a table: its first line is names, and each of two lines or more after it has as many cells."""
    start = text[:TABLE_START]
    for separator in SEPARATORS:
        names = start.partition("\n")[0].split(separator)
        if len(names) < 2 or len(set(names)) < len(names) or not all(COLUMN.fullmatch(name.strip()) for name in names):
            continue
        with contextlib.suppress(csv.Error):
            rows = list(csv.reader(io.StringIO(start), delimiter=separator))
            rows = [row for row in (rows if len(start) == len(text) else rows[:-1]) if row]  # the last may be cut
            if len(rows) > 2 and all(len(row) == len(names) for row in rows):
                return True
    return False


def _is_visible(text: str) -> bool:
    """Whether a text has a character that is seen. Spaces without width and byte order marks are none, and `strip` leaves them."""
    return any(character.isprintable() and not character.isspace() for character in text)


def _line_rows(path: Path, text: str) -> Iterator[str]:
    # `splitlines` would also split at other separators, such as U+2028, which JSON strings may contain.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = parse_json(line)
            except ValueError as error:
                raise BadInput(f'{path}:{number}: the line is no JSON ({reason(error)}); each line is an object with a "text"') from error
            yield _text(f"{path}:{number}", row)


def _list_rows(path: Path, text: str) -> Iterator[str]:
    try:
        rows = parse_json(text)
    except ValueError as error:
        raise BadInput(f"{path} begins as a list of JSON and is none ({reason(error)}); {ADVICE}") from error
    for number, row in enumerate(rows, 1):
        yield _text(f"{path}, row {number}", {"text": row} if isinstance(row, str) else row)


def _text(place: str, row: Any) -> str:
    if not isinstance(row, dict):
        raise BadInput(f'{place}: each row of a text is an object with a "text", not {json.dumps(row)[:60]}')
    if "text" not in row:
        keys = ", ".join(repr(key)[:40] for key in list(row)[:5]) or "no key"
        raise BadInput(f'{place}: the row has {keys} and no "text"; write what the model is to read as "text"')
    if not isinstance(row["text"], str):
        raise BadInput(f'{place}: the "text" of a row is a string, not {json.dumps(row["text"])[:60]}')
    text = str(row["text"])
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can spell half of a pair alone, which is no character
        raise BadInput(f"{place}: the text has \\u{ord(text[error.start]):04x} without the other half of its surrogate pair") from None
    return text
