"""Identifiers are the field's terms: names that the package gave up do not come back."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Old name -> the term that replaced it.
IDENTIFIERS = {
    "Masters": "MasterWeights",
    "Room": "PreallocatedLayer",
    "Wish": "GatherRequest",
    "Lesson": "Batch",
    "Teaching": "LossFn",
    "Ran": "RunResult",
    "telling_attention": "the name of the attention function",
    "energy": "sum_of_squares",
    "mood": "verdict",
    "moody": "verdict",
    "Bench": "StudyDraws",
    "Dot": "ScatterPoint",
    "Fall": "WaterfallStep",
    "Placed": "CurvePoint",
    "Judged": "a ratio with its verdict",
    "Healed": "HealingPoint",
    "Spent": "StudyCost",
    "strays": "with_scatter",
    "_meant": "_suggestion",
    "_told_apart": "_numbered",
}
PARAMETERS = {"most": "maximum", "least": "minimum"}
CODE_SPAN = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)


def identifiers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of everything that a module defines, imports or uses."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        for field in ("id", "attr", "arg", "name", "asname"):
            if isinstance(name := getattr(node, field, None), str):
                yield line, name.rpartition(".")[2]


def parameters(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every parameter of a function and of every keyword argument."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.keyword) and node.arg:
            yield node.lineno, node.arg


def problems_of_code(source: str) -> list[str]:
    """Old names among the identifiers of a module and in the code spans of its comments and docstrings."""
    tree = ast.parse(source)
    found = [f"line {line}: {name} is {IDENTIFIERS[name]}" for line, name in identifiers(tree) if name in IDENTIFIERS]
    found += [f"line {line}: parameter {name} is {PARAMETERS[name]}" for line, name in parameters(tree) if name in PARAMETERS]
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    comments = re.findall(r"#.*", source)
    return found + [problem for text in (*texts, *comments) for problem in problems_of_text(text)]


def problems_of_text(text: str) -> list[str]:
    """Old names in the code spans and code blocks of a text."""
    words = (word for span in CODE_SPAN.findall(text) for word in re.findall(r"[A-Za-z_]\w*", span))
    return [f"`{word}` is {IDENTIFIERS[word]}" for word in words if word in IDENTIFIERS]


@pytest.mark.parametrize("folder", ["compresslab", "tools"])
def test_no_module_holds_an_old_name(folder: str) -> None:
    found = {
        str(path.relative_to(ROOT)): problems
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (problems := problems_of_code(path.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_no_page_holds_an_old_name() -> None:
    pages = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    found = {path.name: problems for path in pages if (problems := problems_of_text(path.read_text(encoding="utf-8")))}
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "class Room:\n    pass",
        "class Run:\n    mood: str = ''",
        "energy = 1",
        "def generate(ids, most): ...",
        "def generate(ids, *, most=3): ...",
        "generate([1], most=3)",
        "from compresslab.steps.training import Masters",
        "import compresslab.steps.Teaching as teaching",
        "step(x.energy)",
        "# The batch is a `Lesson`.",
        '"""Returns a `Wish`."""',
    ],
)
def test_an_old_name_in_code_is_found(source: str) -> None:
    assert problems_of_code(source)


@pytest.mark.parametrize("source", ["most = 3", "class Energy: ...", "# The most of the energy.", '"""Ran out of room."""', "room = 1"])
def test_plain_words_are_not_old_names(source: str) -> None:
    assert problems_of_code(source) == []


def test_an_old_name_in_a_page_is_found() -> None:
    assert problems_of_text("The optimizer keeps `Masters` in float32.") == ["`Masters` is MasterWeights"]
    assert problems_of_text("```python\ntelling_attention(model)\n```")
    assert problems_of_text("Masters of the craft ran.") == []
