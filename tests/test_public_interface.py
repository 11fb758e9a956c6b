"""What `compresslab` exports is what its types say, is documented, and works in a few lines."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import pytest

import compresslab

FUNCTIONS = (FunctionType, property, classmethod, staticmethod)
STUB = Path(compresslab.__file__).with_suffix(".pyi")


def test_the_types_name_what_the_module_exports() -> None:
    tree = ast.parse(STUB.read_text(encoding="utf-8"))
    named = [alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(named) == compresslab.__all__
    listed = next(ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign))
    assert listed == compresslab.__all__
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                home = __import__(str(node.module), fromlist=[alias.name])
                found = getattr(compresslab, alias.asname or alias.name)
                assert found is getattr(home, alias.name, None) or inspect.ismodule(found)


@pytest.mark.parametrize("name", compresslab.__all__)
def test_every_name_is_documented(name: str) -> None:
    found = getattr(compresslab, name)
    text = inspect.getdoc(found) or ""
    assert len(text) > 20, name
    if inspect.isfunction(found):
        assert "Raises:" in text or name in ("write_report", "assess", "compare"), name


@pytest.mark.parametrize("name", [name for name in compresslab.__all__ if inspect.isclass(getattr(compresslab, name))])
def test_every_public_method_of_a_class_is_documented(name: str) -> None:
    """The linter does not ask for it, so that trivial methods elsewhere need no line."""
    own = {attribute: found for attribute, found in vars(getattr(compresslab, name)).items() if not attribute.startswith("_")}
    methods = {attribute: getattr(found, "__func__", found) for attribute, found in own.items() if isinstance(found, FUNCTIONS)}
    assert [attribute for attribute, method in methods.items() if not inspect.getdoc(method)] == []


def test_importing_the_package_imports_nothing_heavy() -> None:
    looks = "import compresslab, sys; compresslab.BadInput; compresslab.load_recipe; compresslab.read_study"
    code = f"{looks}; print([name for name in ('torch', 'pandas', 'numpy') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = compresslab.nothing  # type: ignore[attr-defined]
