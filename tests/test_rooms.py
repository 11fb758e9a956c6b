"""The rooms of the package: imports point only to lower floors, heavy libraries stay where they belong."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import compresslab

PACKAGE = Path(compresslab.__file__).parent
FLOORS = {
    **dict.fromkeys(("", "errors", "records", "registry", "pins", "lock"), 0),
    "recipe": 1,
    "plan": 2,
    "algorithms": 3,
    "models": 4,
    **dict.fromkeys(("steps", "evaluation", "density", "report"), 5),
    "runner": 6,
    "cli": 7,
}
LIGHT_ROOMS = ("", "errors", "records", "registry", "pins", "lock", "recipe", "plan", "density", "report")
HEAVY = ("torch", "transformers", "lm_eval")


def sources() -> dict[str, str]:
    """Every module of the package by name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path.read_text(encoding="utf-8")
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@functools.cache
def imports(module: str, source: str) -> tuple[tuple[int, str], ...]:
    """Line and full name of everything that a module imports, also inside functions and for type checking only."""
    return tuple(_imports(module, source))


def _imports(module: str, source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            home = ".".join(module.split(".")[: -node.level]) if node.level else ""
            start = f"{home}.{node.module or ''}".strip(".")
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)


def arrows_upwards(modules: Mapping[str, str]) -> list[str]:
    """Imports between rooms that do not point to a lower floor; modules of the ground floor may import one another."""
    found = []
    for module, source in modules.items():
        ours = room(module)
        if ours not in FLOORS:
            found.append(f"{module}: the room {ours!r} has no floor in this test")
            continue
        for line, name in imports(module, source):
            if name.split(".")[0] != "compresslab":
                continue
            theirs = room(name) if room(name) in FLOORS else ""
            if (theirs != ours and FLOORS[theirs] >= FLOORS[ours] > 0) or FLOORS[theirs] > FLOORS[ours]:
                found.append(f"{module}:{line}: {ours} (floor {FLOORS[ours]}) imports {name} (floor {FLOORS[theirs]})")
    return found


def reached(module: str, modules: Mapping[str, str]) -> set[str]:
    """The modules of the package that a module's imports lead to, itself included."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in modules:
            name = name.rpartition(".")[0]  # a name from a module
        while name in modules and name not in found:
            found.add(name)
            waiting += [imported for _, imported in imports(name, modules[name]) if imported.startswith("compresslab")]
            name = name.rpartition(".")[0]  # importing a module runs its packages
    return found


def heavy_imports(modules: Mapping[str, str]) -> list[str]:
    """Where the light rooms reach a heavy library, and where lm_eval is imported outside evaluation."""
    found = set()
    for module in modules:
        if room(module) in LIGHT_ROOMS:
            for other in reached(module, modules):
                for line, name in imports(other, modules[other]):
                    if name.split(".")[0] in HEAVY:
                        found.add(f"{module} must stay light, and {other}:{line} imports {name}")
        if room(module) != "evaluation":
            for line, name in imports(module, modules[module]):
                if name.split(".")[0] == "lm_eval":
                    found.add(f"{module}:{line}: lm_eval outside evaluation")
    return sorted(found)


class EnvironmentReads(ast.NodeVisitor):
    """Reads of the environment that happen as a module is imported: not in functions, but in their defaults and decorators."""

    def __init__(self) -> None:
        self.lines: list[int] = []

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for part in [*node.decorator_list, *node.args.defaults, *(default for default in node.args.kw_defaults if default)]:
            self.visit(part)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for part in node.args.defaults:
            self.visit(part)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in ("environ", "getenv", "environb"):
            self.lines.append(node.lineno)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in ("environ", "getenv"):
            self.lines.append(node.lineno)


def environment_reads(modules: Mapping[str, str]) -> list[str]:
    found = []
    for module, source in modules.items():
        visitor = EnvironmentReads()
        visitor.visit(ast.parse(source))
        found += [f"{module}:{line}: the environment is read at import" for line in visitor.lines]
    return found


def test_no_arrow_points_upwards() -> None:
    assert arrows_upwards(sources()) == []


def test_light_rooms_reach_no_heavy_library() -> None:
    assert heavy_imports(sources()) == []


def test_nothing_reads_the_environment_at_import() -> None:
    assert environment_reads(sources()) == []


def test_every_room_of_the_design_is_looked_at() -> None:
    assert {room(module) for module in sources()} == set(FLOORS)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("compresslab.plan.new", "def late():\n    from compresslab.steps import contract\n"),
        ("compresslab.recipe.new", "import compresslab.plan.graph"),
        ("compresslab.recipe.new", "from compresslab import plan"),
        ("compresslab.steps.new", "from compresslab.evaluation.scores import write_items"),
        ("compresslab.report.new", "from compresslab.density import assess"),
        ("compresslab.density.new", "if True:\n    from ..report import html"),
        ("compresslab.errors", "from compresslab.recipe import schema"),
        ("compresslab.runner.new", "from compresslab.cli.options import size"),
        ("compresslab.attic.new", ""),
    ],
)
def test_the_check_sees_an_arrow_upwards(module: str, source: str) -> None:
    assert len(arrows_upwards({module: source})) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("compresslab.steps.new", "from compresslab.models.load import load\nfrom . import contract\nimport torch"),
        ("compresslab.records", "from compresslab.errors import BadInput"),
        ("compresslab.cli.new", "from compresslab import __version__\nfrom compresslab.report.html import write"),
        ("compresslab.runner.new", "from compresslab.evaluation import olmes"),
    ],
)
def test_the_check_lets_arrows_downwards_pass(module: str, source: str) -> None:
    assert arrows_upwards({module: source}) == []


def test_the_check_sees_heavy_imports_at_any_distance() -> None:
    made_up = {
        "compresslab": "",
        "compresslab.models": "",
        "compresslab.models.load": "def load():\n    import torch.nn",
        "compresslab.density": "",
        "compresslab.density.near": "from lm_eval import tasks",
        "compresslab.density.far": "from compresslab.models.load import load",
    }
    assert heavy_imports(made_up) == [
        "compresslab.density.far must stay light, and compresslab.models.load:2 imports torch.nn",
        "compresslab.density.near must stay light, and compresslab.density.near:1 imports lm_eval.tasks",
        "compresslab.density.near:1: lm_eval outside evaluation",
    ]


@pytest.mark.parametrize(
    "source",
    [
        "import os\nHOME = os.environ.get('HOME')",
        "import os\nclass A:\n    home: str = os.getenv('HOME') or ''",
        "from os import environ\ndef f(home=environ['HOME']): ...",
        "import os\nf = lambda x=os.environ: x",
    ],
)
def test_the_check_sees_settings_read_at_import(source: str) -> None:
    assert environment_reads({"compresslab.made_up": source})


def test_the_check_lets_settings_read_at_call_pass() -> None:
    assert (
        environment_reads({"compresslab.made_up": "import os\ndef f():\n    return os.environ['HOME']\ng = lambda: os.getenv('A')"}) == []
    )
