"""Text files by their form: read as what they are, or refused in one sentence, also by the plan."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from plan.plan_helpers import HEAD, plan_of

import compresslab.text_files as text_file
from compresslab.errors import BadInput
from compresslab.text_files import check_text_file, text_documents

TEXTS = ["one\n\nstill one", "two, with \u2028 and é"]
ROWS = [{"text": text, "id": 1} for text in TEXTS]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
READ = {
    "lines.jsonl": LINES,
    "UPPER.JSONL": LINES,
    "lines.json": LINES,
    "lines.ndjson": LINES,
    "list.json": json.dumps(ROWS, indent=1),
    "list.jsonl": json.dumps(ROWS),
    "strings.json": json.dumps(TEXTS),
    "marked.jsonl": "\ufeff" + LINES,
    "marked.txt": "\ufeff" + "\n\n\n".join(TEXTS),
    "line-ends.jsonl": LINES.replace("\n", "\r\n"),
    "plain.txt": "\n\n\n".join(TEXTS),
    "PLAIN.TXT": "\n\n\n".join(TEXTS),
    "code.txt": '["a", "b"]\nprint(1)\n\n\n' + TEXTS[1],
    "no-suffix": "\n\n\n".join(TEXTS),
    "blank-rows.jsonl": '{"text": ""}\n' + LINES + '{"text": " \\n"}\n',
}
REFUSED = {
    "table.csv": ("text\none\n", "is a table by its suffix; give a .txt file in UTF-8"),
    "TABLE.TSV": ("text\none\n", "is a table by its suffix"),
    "table.txt": ('id,text,label\n0,"one, two",1\n1,three,0\n', "is a table by its content: a line of names, and as many cells in each"),
    "tabs.txt": ("text\tlabel\none\t1\ntwo\t0\n", "is a table by its content"),
    "semicolons": ('"text";"label"\n"one\nand more";1\ntwo;0', "is a table by its content"),
    "pointer.txt": ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS, not the file itself"),
    "document.txt": (r"{\rtf1\ansi one}", "is RTF"),
    "unseen.txt": ("\u200b \ufeff\n", "is empty"),
    "rows.parquet": (b"PAR1 and so on", "is a Parquet table"),
    "rows.jsonl.gz": (gzip.compress(LINES.encode()), "is compressed by gzip"),
    "compressed.jsonl": (gzip.compress(LINES.encode()), "is compressed by gzip"),
    "utf16.txt": ("one two".encode("utf-16"), "is UTF-16 text"),
    "utf16-without-mark.txt": ("one two".encode("utf-16-le"), "has null bytes, so it is binary or UTF-16"),
    "latin.txt": ("caf\xe9".encode("latin-1"), r"is not UTF-8 text: .*position 3.*; save it as UTF-8"),
    "lines.txt": (LINES, r"has JSON in it, and its suffix is '\.txt'; rename it to \.jsonl"),
    "list.txt": (json.dumps(ROWS, indent=1), "has JSON in it"),
    "strings.txt": (json.dumps(TEXTS, indent=1), "has JSON in it"),
    "object.json": (json.dumps({"text": "one"}, indent=1), r"object\.json:1: the line is no JSON"),
    "half-a-list.json": (json.dumps(ROWS)[:-1], "begins as a list of JSON and is none"),
    "chat.jsonl": ('{"messages": []}\n', r"chat\.jsonl:1: the row has 'messages' and no \"text\""),
    "titles.json": ('[{"title": "a"}]', r"titles\.json, row 1: the row has 'title' and no \"text\""),
    "numbers.json": ("[1]", r"row 1: each row of a text is an object with a \"text\", not 1"),
    "null.jsonl": (LINES + '{"text": null}\n', r"null\.jsonl:3: the \"text\" of a row is a string, not null"),
    "cut.jsonl": (LINES + '{"text": "cut of', r"cut\.jsonl:3: the line is no JSON"),
    "half-a-character.jsonl": (
        LINES + '{"text": "a \\ud800"}\n',
        r"half-a-character\.jsonl:3: the text has \\ud800 without the other half",
    ),
    "half-a-character.json": ('["a \\udc00 b"]', r"half-a-character\.json, row 1: the text has \\udc00 without the other half"),
    "no-bytes.txt": ("", "is empty$"),
    "blank.txt": (" \n\n\n\n", "is empty$"),
    "blank.jsonl": ('{"text": ""}\n' * 20, "is empty: none of its 20 documents has text"),
    "none.json": ("[]", "is empty: none of its 0 documents has text"),
}


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("name", READ)
def test_a_text_is_read_by_its_form(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, READ[name])
    check_text_file(path)
    assert text_documents(path)[-1] == TEXTS[1]
    assert name == "code.txt" or text_documents(path) == TEXTS


@pytest.mark.parametrize("name", REFUSED)
def test_a_text_of_another_form_is_refused(tmp_path: Path, name: str) -> None:
    content, reason = REFUSED[name]
    path = written(tmp_path, name, content)
    for read in (text_documents, check_text_file):
        with pytest.raises(BadInput, match=reason):
            read(path)


@pytest.mark.parametrize(
    "text",
    [
        "[1] A reference\nand more",
        "{ braces } in prose",
        "[link](target)",
        "[1]\nA list of references",
        "Alice, Bob\nBob, Alice\nBob, Carol, Alice\n",
    ],
)
def test_prose_that_begins_like_another_form_is_prose(tmp_path: Path, text: str) -> None:
    assert text_documents(written(tmp_path, "a.txt", text)) == [text]


@pytest.mark.parametrize("name", ["table.csv", "blank.jsonl", "chat.jsonl"])
def test_the_plan_refuses_it(tmp_path: Path, name: str) -> None:
    content, reason = REFUSED[name]
    path = written(tmp_path, name, content)
    with pytest.raises(BadInput, match=rf"text\.calibration\.source: .*{reason}"):
        plan_of(f"text: {{calibration: {{source: {path}}}}}\n", head=HEAD)


def test_of_a_large_text_the_plan_looks_at_the_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_file, "CHECKED_BYTES", len(LINES.encode()) + 3)
    path = written(tmp_path, "a.jsonl", LINES + LINES + '{"text": null}\n')
    check_text_file(path)
    with pytest.raises(BadInput, match=r"a\.jsonl:5"):
        text_documents(path)
    for name, content in (("a.json", json.dumps(ROWS + ROWS)), ("long-line.txt", "é" * 1000)):
        check_text_file(written(tmp_path, name, content))
    with pytest.raises(BadInput, match=r"chat\.jsonl:1"):
        check_text_file(written(tmp_path, "chat.jsonl", '{"messages": []}\n' * 50))
