"""docs/architecture.md agrees with the code: its list of files, its floors, and every place that it and the other pages name.

`python tests/test_architecture.py` writes the generated parts again.
"""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest
from pages import PAGES
from test_rooms import FLOORS, LIGHT_ROOMS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGE = ROOT / "compresslab"
# `path` alone, or `path` (`name`, `name`); a path is one from the repository's root.
PLACE = re.compile(r"`((?:compresslab|tools|tests|recipes|experiments|benchmarks|constraints)/[\w./-]*)`(?:\s\(((?:`[\w.]+`(?:,\s)?)+)\))?")
FIRST_QUESTIONS = [
    "how the bytes of NF4 (`bnb-nf4`, 4-bit NormalFloat) are counted",
    "what `plan` says about memory",
    "which engine answers gsm8k (a generation task)",
    "how the verdict is decided",
]


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def file_list() -> str:
    """Every module with the first line of its docstring, package by package."""
    lines = []
    for folder in sorted(init.parent for init in PACKAGE.rglob("__init__.py")):
        lines.append(f"- **`{folder.relative_to(ROOT)}/`** {summary(folder / '__init__.py')}")
        lines += [f"  - `{path.name}` {summary(path)}" for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]
    return "\n".join(lines) + "\n"


def floors() -> str:
    """The packages by floor, the highest first."""
    lines = ["| floor | packages and modules | light |", "|---|---|---|"]
    for floor in sorted(set(FLOORS.values()), reverse=True):
        names = [name for name, own in FLOORS.items() if own == floor]
        light = "yes" if all(name in LIGHT_ROOMS for name in names) else ", ".join(f"`{n}`" for n in names if n in LIGHT_ROOMS)
        lines.append(f"| {floor} | {', '.join(f'`{name}`' if name else '`compresslab` itself' for name in names)} | {light} |")
    return "\n".join(lines) + "\n"


def summary(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, f"{path} has no docstring"
    return docstring.split("\n\n")[0].replace("\n", " ")


def generated() -> str:
    """The page with its generated parts as they should be."""
    text = page()
    for name, content in (("floors", floors()), ("files", file_list())):
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        before, _, rest = text.partition(start)
        text = before + start + content + end + rest.partition(end)[2]
    return text


@functools.cache
def names(path: Path) -> frozenset[str]:
    """What a module defines at its top level, and the methods of its classes as `Class.method`."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return frozenset(found)


def problems(text: str) -> list[str]:
    """Places that a text names and that do not exist."""
    found = []
    for name, listed in PLACE.findall(text):
        path = ROOT / name
        if not (path.is_dir() if name.endswith("/") else path.is_file()):
            found.append(f"{name} does not exist")
        elif listed:
            found += [f"{name} has no {wanted}" for wanted in re.findall(r"`([\w.]+)`", listed) if wanted not in names(path)]
    return found


def rows() -> dict[str, str]:
    """The table of where to change what: the place by the question."""
    section = page().partition("## Where to change what\n")[2].partition("\n## ")[0]
    cells = [line.strip("| ").split(" | ", 1) for line in section.splitlines() if line.startswith("| ")]
    return dict(cells[1:])


def test_the_generated_parts_are_what_the_code_says() -> None:
    assert page() == generated(), "python tests/test_architecture.py writes them again"


# Its example is a method that does not exist.
@pytest.mark.parametrize("path", [path for path in PAGES if path.name != "add-a-method.md"], ids=lambda path: path.name)
def test_every_place_exists(path: Path) -> None:
    assert problems(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("question", rows())
def test_every_question_has_a_place(question: str) -> None:
    assert PLACE.search(rows()[question]), "a row names at least one file"


@pytest.mark.parametrize("question", FIRST_QUESTIONS)
def test_the_first_questions_have_functions_as_their_answer(question: str) -> None:
    assert [name for name, listed in PLACE.findall(rows()[question]) if listed and name.endswith(".py")]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("`compresslab/nothing.py`", "compresslab/nothing.py does not exist"),
        ("`compresslab/nothing/`", "compresslab/nothing/ does not exist"),
        ("`compresslab/methods/method.py` (`solver_cost`, `gone`)", "compresslab/methods/method.py has no gone"),
        ("`compresslab/methods/method.py` (`Method.gone`)", "compresslab/methods/method.py has no Method.gone"),
    ],
)
def test_the_check_sees_what_does_not_exist(text: str, problem: str) -> None:
    assert problems(text) == [problem]


def test_the_check_lets_what_exists_pass() -> None:
    assert problems("`compresslab/methods/method.py` (`solver_cost`, `Method.computes`), `compresslab/cli/`, `compresslab/errors.py`") == []


if __name__ == "__main__":
    PAGE.write_text(generated(), encoding="utf-8")
