"""The README tells the truth: its list of files, its commands, its recipe.

`python tests/test_readme.py` writes the list of files again.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
START, END = "<!-- files -->\n", "<!-- end of files -->\n"


def file_list() -> str:
    """Every module with the first line of its docstring, room by room."""
    lines = []
    package = ROOT / "compresslab"
    rooms = sorted(init.parent for init in package.rglob("__init__.py"))
    for room in rooms:
        summary = _summary(room / "__init__.py")
        lines.append(f"- **`{room.relative_to(ROOT)}/`** {summary}")
        for path in sorted(room.glob("*.py")):
            if path.name != "__init__.py":
                lines.append(f"  - `{path.name}` {_summary(path)}")
    return "\n".join(lines) + "\n"


def _summary(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, f"{path} has no docstring"
    return docstring.split("\n\n")[0].replace("\n", " ")


def test_every_file_has_its_line() -> None:
    written = README.read_text(encoding="utf-8").partition(START)[2].partition(END)[0]
    assert written == file_list(), "python tests/test_readme.py writes it again"


def test_the_recipes_in_the_readme_load(tmp_path: Path) -> None:
    from compresslab.plan.prepare import prepare
    from compresslab.recipe.load import loads

    run, published = re.findall(r"```yaml\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    assert "width-0.75" in loads(run, "README.md").variants
    (tmp_path / "r.yaml").write_text(published)
    assert [variant.name for variant in prepare(tmp_path / "r.yaml").variants] == ["base", "gemma-2-9b"]


@pytest.mark.parametrize("page", [README, ROOT / "docs" / "first-study.md"], ids=lambda page: page.name)
def test_the_library_examples_use_what_is_exported(page: Path) -> None:
    import compresslab

    (text,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    used = {
        node.attr
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "compresslab"
    }
    assert used
    assert used <= set(compresslab.__all__)


def test_every_subcommand_is_told() -> None:
    from compresslab.cli.main import COMMANDS

    text = README.read_text(encoding="utf-8")
    assert all(f"compresslab {name}" in text for name in COMMANDS)


if __name__ == "__main__":
    content = README.read_text(encoding="utf-8")
    before, _, rest = content.partition(START)
    README.write_text(before + START + file_list() + END + rest.partition(END)[2], encoding="utf-8")
