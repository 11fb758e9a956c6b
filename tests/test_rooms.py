"""The rooms of the package: imports point only to lower floors, heavy libraries stay where they belong."""

from __future__ import annotations

import ast
import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

import compresslab

PACKAGE = Path(compresslab.__file__).parent
# A module right under the package is a room of its own. Modules of the ground floor may import one another; rooms of another floor may not.
GROUND = ("", "children", "errors", "files", "inputs", "printable", "suggestions", "records", "pins", "lock", "text_files", "versions")
FLOORS = {
    **dict.fromkeys(GROUND, 0),
    "methods": 1,
    **dict.fromkeys(("recipe", "catalog", "machine"), 2),
    "density": 3,
    "plan": 4,
    **dict.fromkeys(("algorithms", "store"), 5),
    "models": 6,
    **dict.fromkeys(("steps", "evaluation", "report"), 7),
    "runner": 8,
    "studies": 9,
    **dict.fromkeys(("export", "tracking"), 10),
    **dict.fromkeys(("export", "tracking"), 10),
    "cli": 11,
    "__main__": 12,
}
LIGHT_ROOMS = (*GROUND, "methods", "recipe", "catalog", "machine", "density", "plan", "store", "report")
LONGEST_FILE = 400  # lines
LARGEST_ROOM = 16  # files, those of its own folder
# One method a file, and one subcommand a file: these grow with what the package can do.
LISTS = ("compresslab.algorithms", "compresslab.cli", "compresslab.methods")
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


def home(name: str, modules: Mapping[str, str]) -> str:
    """The module that an imported name comes from; empty if it is none of these."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def circles(modules: Mapping[str, str]) -> list[list[str]]:
    """Modules that import one another in a circle, wherever in a module the import stands."""
    arrows = {module: {home(name, modules) for _, name in imports(module, source)} - {module, ""} for module, source in modules.items()}
    reach = {module: _reach(module, arrows) for module in modules}
    found = {tuple(sorted({module, *(other for other in reach[module] if module in reach[other])})) for module in modules}
    return sorted(list(circle) for circle in found if len(circle) > 1)


def _reach(module: str, arrows: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [module]
    while waiting:
        new = arrows[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def too_long(modules: Mapping[str, str]) -> list[str]:
    """Files of more lines than one reads at once."""
    return [f"{module}: {lines} lines" for module, source in modules.items() if (lines := source.count("\n")) > LONGEST_FILE]


def too_many(files: Iterable[Path]) -> list[str]:
    """Folders with more files than one looks through."""
    folders = Counter(".".join(path.parts[:-1]) for path in files)
    return [f"{folder}: {count} files" for folder, count in folders.items() if count > LARGEST_ROOM and folder not in LISTS]


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


def test_no_modules_import_one_another_in_a_circle() -> None:
    assert circles(sources()) == []


def test_no_file_is_two_files() -> None:
    assert too_long(sources()) == []


def test_no_room_is_two_rooms() -> None:
    assert too_many(path.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*.py")) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("from compresslab.a.two import f", "from compresslab.a.one import g"),
        ("from compresslab.a import two", "def late():\n    import compresslab.a.one"),
        ("from . import two", "if TYPE_CHECKING:\n    from compresslab.a.one import G"),
    ],
)
def test_the_check_sees_a_circle(one: str, other: str) -> None:
    made_up = {"compresslab": "", "compresslab.a": "", "compresslab.a.one": one, "compresslab.a.two": other}
    assert circles(made_up) == [["compresslab.a.one", "compresslab.a.two"]]


def test_the_check_sees_a_circle_over_three_modules_and_none_in_a_fork() -> None:
    fork = {"p.a": "import p.b\nimport p.c", "p.b": "import p.d", "p.c": "import p.d", "p.d": ""}
    assert circles(fork) == []
    assert circles({**fork, "p.d": "from p.a import f"}) == [["p.a", "p.b", "p.c", "p.d"]]


def test_the_check_sees_a_file_that_is_too_long() -> None:
    assert too_long({"a": "x\n" * LONGEST_FILE, "b": "x\n" * (LONGEST_FILE + 1)}) == ["b: 401 lines"]


def test_the_check_sees_a_room_that_is_too_large() -> None:
    def files(folder: str) -> list[Path]:
        return [Path("compresslab", *folder.split("/"), f"{number}.py") for number in range(LARGEST_ROOM)]

    assert too_many([*files("models"), *files("models/formats")]) == []
    assert too_many([*files("models/formats"), Path("compresslab/models/formats/more.py")]) == ["compresslab.models.formats: 17 files"]
    assert too_many([*files("cli"), Path("compresslab/cli/more.py")]) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("compresslab.plan.new", "def late():\n    from compresslab.steps import contract\n"),
        ("compresslab.recipe.new", "import compresslab.plan.graph"),
        ("compresslab.recipe.new", "from compresslab import plan"),
        ("compresslab.steps.new", "from compresslab.evaluation.scores import write_items"),
        ("compresslab.report.new", "from compresslab.evaluation import scores"),
        ("compresslab.density.new", "from compresslab.plan.graph import Plan"),
        ("compresslab.runner.new", "from compresslab.studies.assemble import assemble"),
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
