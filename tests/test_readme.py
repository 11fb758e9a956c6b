"""The README and the other pages tell the truth: their commands, their recipes, their links.

`tests/runner/test_examples.py` runs the commands and the library examples of the README and of docs/first-study.md.
"""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer
from pages import FIRST_STUDY, PAGES, README, ROOT, blocks, commands, headings, links, of_compresslab
from typer.testing import CliRunner

from compresslab.cli import reference
from compresslab.cli.main import COMMANDS

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MEASUREMENTS = ROOT / "docs" / "measurements.md"
# What a console block may begin with beside the commands that are checked one by one below.
SHELL = {"cd", "export"}
# What writes to the files of the user when it is parsed, and fails in a shell without completion. tests/cli/test_completion.py holds it.
NOT_PARSED = {"--install-completion"}
CHECKED = {"git", "make", "pip", "python", "compresslab", ".venv/bin/compresslab"}


def parsing() -> typer.Typer:
    """The command line with commands that do nothing."""

    def idle(command: functools.partial[None] | object) -> object:
        @functools.wraps(command)  # type: ignore[arg-type]
        def nothing(*_: object, **__: object) -> None: ...

        return nothing

    app, group = typer.Typer(), typer.Typer()
    for name, command in COMMANDS.items():
        app.command(name)(idle(command))  # type: ignore[type-var]
    for info in reference.app.registered_commands:
        group.command(info.name)(idle(info.callback))  # type: ignore[type-var]
    app.add_typer(group, name="reference")
    return app


def test_the_readme_is_short() -> None:
    assert 10_000 <= README.stat().st_size <= 13_000


def test_the_recipes_in_the_readme_load(tmp_path: Path) -> None:
    from compresslab.plan.prepare import prepare
    from compresslab.recipe.load import loads

    run, published = blocks(README, "yaml")
    assert "width-0.75" in loads(run, "README.md").variants
    (tmp_path / "r.yaml").write_text(published)
    assert [variant.name for variant in prepare(tmp_path / "r.yaml").variants] == ["base", "gemma-2-9b"]


@pytest.mark.parametrize("page", [README, FIRST_STUDY], ids=lambda page: page.name)
def test_the_library_examples_use_what_is_exported(page: Path) -> None:
    import compresslab

    (text,) = blocks(page, "python")
    used = {
        node.attr
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "compresslab"
    }
    assert used
    assert used <= set(compresslab.__all__)


def test_every_subcommand_is_told() -> None:
    assert {arguments[0] for arguments in of_compresslab(README)} == {*COMMANDS, "reference"}


def test_the_first_block_clones_the_repository_and_runs_two_targets() -> None:
    assert [line.partition("#")[0].split() for line in blocks(README, "console")[0].splitlines()] == [
        ["git", "clone", PROJECT["urls"]["Repository"]],
        ["cd", PROJECT["name"]],
        ["make", "quickstart"],
        ["make", "test"],
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_console_blocks_have_no_command_that_nobody_checks(page: Path) -> None:
    assert {words[0] for words in commands(page)} <= SHELL | CHECKED


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_command_line_takes_every_command(page: Path) -> None:
    for arguments in of_compresslab(page):
        if arguments[0] in NOT_PARSED:
            continue
        done = CliRunner().invoke(parsing(), arguments)
        assert done.exit_code == 0, f"compresslab {' '.join(arguments)}: {done.output}"


def test_the_check_sees_an_option_that_is_none() -> None:
    assert CliRunner().invoke(parsing(), ["gc", "--dry-run"]).exit_code == 2
    assert CliRunner().invoke(parsing(), ["runn"]).exit_code == 2
    assert CliRunner().invoke(parsing(), ["reference", "plot", "olmo-ladder", "--as", "x"]).exit_code == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_can_be_resolved(page: Path, tmp_path: Path) -> None:
    """In an empty checkout, so that what is installed here decides nothing."""
    targets = {tuple(words[1:]) for words in commands(page) if words[0] == "make"}
    for name in ("Makefile", "pyproject.toml", "constraints"):
        (tmp_path / name).symlink_to(ROOT / name)
    for target in targets:
        done = subprocess.run(["make", "--dry-run", *target], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_extras_scripts_and_addresses_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    extras = {extra for listed in re.findall(r"compresslab\[([\w,]+)\]", text) for extra in listed.split(",")}
    assert extras <= set(PROJECT["optional-dependencies"])
    assert [name for name in re.findall(r"python (?:-m pytest )?(?:--\w+ )*([\w/.-]+\.py)", text) if not (ROOT / name).is_file()] == []
    assert {words[2] for words in commands(page) if words[:2] == ["git", "clone"]} <= {PROJECT["urls"]["Repository"]}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


def test_every_measurement_has_its_date() -> None:
    _, *sections = re.split(r"^## (?=.)", MEASUREMENTS.read_text(encoding="utf-8"), flags=re.M)
    assert len(sections) > 3
    assert [section.splitlines()[0] for section in sections if not re.search(r"\b20\d\d-\d\d-\d\d\b", section)] == []


def test_the_number_of_published_recipes() -> None:
    assert f"# {len(list((ROOT / 'recipes' / 'published').glob('*.yaml')))} studies" in README.read_text(encoding="utf-8")
