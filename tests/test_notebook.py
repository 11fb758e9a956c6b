"""docs/notebook.ipynb runs, and its stored outputs are what its cells show. `python tests/test_notebook.py` runs it and writes them again.

The cells are run here in one namespace, without Jupyter: what is printed is a stream, and the value of a cell's last expression is shown
as its repr and, if it has one, its HTML. That is IPython's rule for the objects of this notebook, none of which has another form (no cell
has a magic, an await or a `display` of its own, which a test holds).
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
LARGEST = 300_000  # bytes
RECORD = "reports/smollm2-quickstart/study.json"
OTHER_FORMS = ("_ipython_display_", "_repr_mimebundle_", "_repr_pretty_", "_repr_png_", "_repr_svg_", "_repr_markdown_")
NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?")
IMAGE = re.compile(r"(?<=base64,)[^\"]+")


def lines(text: str) -> list[str]:
    """A text as a notebook stores it."""
    return text.splitlines(keepends=True)


def shown(source: str, names: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Run a cell in a namespace; its outputs as a notebook stores them."""
    *body, last = ast.parse(source).body
    value, stream = None, io.StringIO()
    with contextlib.redirect_stdout(stream):
        if not isinstance(last, ast.Expr):
            body, last = [*body, last], ast.Expr(ast.Constant(None))
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if text := stream.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": lines(text)})
    if value is not None:
        assert not any(hasattr(value, form) for form in OTHER_FORMS), f"{type(value)} has a form that is not looked at here"
        data = {"text/plain": lines(repr(value))}
        if hasattr(value, "_repr_html_"):
            data = {"text/html": lines(value._repr_html_()), **data}
        outputs.append({"data": data, "execution_count": number, "metadata": {}, "output_type": "execute_result"})
    return outputs


def executed(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs of its cells, run in the working directory. Frames have the width that pandas gives them in Jupyter."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, number = [], 0
    with pd.option_context("display.max_columns", 20, "display.width", 80):
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                number += 1
                cell = {**cell, "execution_count": number, "outputs": shown("".join(cell["source"]), names, number)}
            cells.append(cell)
    return {**notebook, "cells": cells}


def stored() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return found


def committed(path: str) -> bytes:
    """A file as it was committed: a user's own run of the quickstart writes into the same folder, and must fail no test."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    return subprocess.run(["git", "-C", str(ROOT), "show", f"HEAD:{path}"], capture_output=True, check=True).stdout


def same(one: str, other: str) -> bool:
    """Whether two outputs have the same words and the same numbers to 2%. How a chart is drawn depends on the fonts of the machine."""
    one, other = IMAGE.sub("", one), IMAGE.sub("", other)
    numbers = [[float(found.replace(",", "")) for found in NUMBER.findall(text)] for text in (one, other)]
    return NUMBER.sub("#", one) == NUMBER.sub("#", other) and numbers[0] == pytest.approx(numbers[1], rel=0.02)


@pytest.mark.slow
def test_the_stored_outputs_are_those_of_the_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / RECORD).parent.mkdir(parents=True)
    (tmp_path / RECORD).write_bytes(committed(RECORD))
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path / "docs")
    notebook = stored()
    for cell, now in zip(notebook["cells"], executed(notebook)["cells"], strict=True):
        if cell["cell_type"] == "code":
            assert same(json.dumps(cell["outputs"]), json.dumps(now["outputs"])), "python tests/test_notebook.py writes it again"
    assert list((tmp_path / "docs").iterdir()) == [], "the notebook leaves files"


def test_the_notebook_is_small_and_has_its_outputs() -> None:
    assert NOTEBOOK.stat().st_size < LARGEST
    code = [cell for cell in stored()["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(cell["outputs"] for cell in code)


def test_the_notebook_is_plain_python_without_paths_of_a_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not re.findall(r"/(?:home|root|work|tmp|Users)/", text)
    for cell in stored()["cells"]:
        if cell["cell_type"] == "code":
            tree = ast.parse("".join(cell["source"]))
            assert not any(isinstance(node, ast.Await) or (isinstance(node, ast.Name) and node.id == "display") for node in ast.walk(tree))


def test_the_check_sees_another_value_and_another_word() -> None:
    assert same("r = 1.50 raised", "r = 1.51 raised")
    assert not same("r = 1.50 raised", "r = 1.60 raised")
    assert not same("r = 1.50 raised", "r = 1.50 lowered")


if __name__ == "__main__":
    content = stored()
    os.chdir(NOTEBOOK.parent)
    NOTEBOOK.write_text(json.dumps(executed(content), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
