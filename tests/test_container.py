"""The Dockerfile copies what exists, installs what pyproject.toml and the lock name, and docs/container.md runs it as it is.

There is no Docker daemon where the tests run, so nothing is built. Its shell commands are checked by a shell.
"""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from pages import ROOT, blocks

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PAGE = ROOT / "docs" / "container.md"
KNOWN = {"ARG", "FROM", "RUN", "WORKDIR", "ENV", "COPY", "USER", "VOLUME", "ENTRYPOINT", "CMD"}
TAKES_A_VALUE = {"-v", "--user", "--gpus", "-e"}


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with their arguments, continued lines joined and comments left out."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", kept)
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


DOCKERFILE = instructions((ROOT / "Dockerfile").read_text(encoding="utf-8"))


def of(word: str) -> list[str]:
    return [rest for name, rest in DOCKERFILE if name == word]


def defaults() -> dict[str, str]:
    return {name: value for name, _, value in (rest.partition("=") for rest in of("ARG"))}


def environment() -> dict[str, str]:
    return dict(part.split("=", 1) for rest in of("ENV") for part in shlex.split(rest))


def test_every_instruction_is_one() -> None:
    assert {name for name, _ in DOCKERFILE} == KNOWN


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    copied = [name for rest in of("COPY") if not rest.startswith("--from") for name in rest.split()[:-1]]
    assert {"pyproject.toml", "compresslab", "recipes"} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists(), name
        assert f"!{name}" in ignored, name
    needed = [PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]]
    assert set(needed) <= set(copied), "the build backend reads them"
    links = [path for path in (ROOT / "compresslab").rglob("*") if path.is_symlink()]
    assert all(path.resolve().relative_to(ROOT).parts[0] in copied for path in links), "what the package links to is copied, too"
    assert not any(fnmatch.fnmatch(name, line) for name in copied for line in ignored if line.startswith("**"))


def test_python_is_the_one_that_ci_tests() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    tested = next(step["with"]["python-version"] for step in workflow["jobs"]["test"]["steps"] if "setup-python" in step.get("uses", ""))
    assert defaults()["PYTHON"] == tested
    assert all(re.match(r"python:\$\{PYTHON\}-slim-\w+( AS build)?$", image) for image in of("FROM"))
    assert f"Python {tested}" in PAGE.read_text(encoding="utf-8")


def test_what_is_installed_is_locked_and_every_extra_exists() -> None:
    installs = re.findall(r"pip install ([^&]+)", " ".join(of("RUN")))
    assert installs
    for arguments in installs:
        words = arguments.split()
        assert (ROOT / words[words.index("--constraint") + 1]).is_file()
        assert words[words.index("--constraint") + 1] == "compresslab/data/locked.txt"
    assert set(defaults()["EXTRAS"].split(",")) <= set(PROJECT["project"]["optional-dependencies"])
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert defaults()["CPU_WHEELS"] == workflow["jobs"]["test"]["env"]["PIP_EXTRA_INDEX_URL"]


@pytest.mark.parametrize("command", of("RUN"))
def test_a_shell_reads_the_commands(command: str) -> None:
    done = subprocess.run(["sh", "-n", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("variant", "index", "code"), [("cpu", "wheels", 0), ("cuda", "", 0), ("gpu", "", 2)])
def test_the_variant_decides_where_torch_comes_from(variant: str, index: str, code: int, tmp_path: Path) -> None:
    """The command is run with a `pip` that writes down what it was asked for."""
    (command,) = [command for command in of("RUN") if "VARIANT" in command]
    (tmp_path / "pip").write_text('#!/bin/sh\necho "$PIP_EXTRA_INDEX_URL|$*" >> "$ASKED"\n')
    (tmp_path / "pip").chmod(0o755)
    asked = tmp_path / "asked"
    given = {"PATH": f"{tmp_path}:/usr/bin:/bin", "VARIANT": variant, "CPU_WHEELS": "wheels", "EXTRAS": "ray", "ASKED": str(asked)}
    done = subprocess.run(["sh", "-c", command], env=given, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    calls = asked.read_text().splitlines() if asked.exists() else []
    assert [line.partition("|")[0] for line in calls] == ([index] * 3 if code == 0 else [])
    assert (" .[ray]" in calls[1]) if code == 0 else ("VARIANT is cpu or cuda, not 'gpu'" in done.stderr)


def test_the_user_is_not_root_and_owns_what_is_mounted() -> None:
    (number,) = of("USER")
    made = " ".join(of("RUN"))
    added = re.search(r"useradd --create-home --uid (\d+) (\w+)", made)
    assert added
    assert int(number) > 0
    assert number == added[1]
    (volumes,) = of("VOLUME")
    owned = re.search(rf"install --directory --owner={added[2]} --group={added[2]} (.+)$", made)
    assert owned
    assert {*json.loads(volumes), of("WORKDIR")[-1]} == set(owned[1].split())
    names = [name for name, _ in DOCKERFILE]
    assert names.index("USER") > max(place for place, name in enumerate(names) if name == "RUN")


def test_store_and_cache_are_the_volumes(monkeypatch: pytest.MonkeyPatch) -> None:
    from compresslab import pins
    from compresslab.cli.default_store import default_store

    monkeypatch.delenv("COMPRESSLAB_CACHE", raising=False)
    for name, value in environment().items():
        if name != "PATH":
            monkeypatch.setenv(name, value)
    assert str(default_store()) == "/store"
    assert pins.cache_folder().is_relative_to("/cache")


def test_the_page_names_arguments_and_volumes_that_exist() -> None:
    for line in [line for block in blocks(PAGE, "bash") for line in block.splitlines()]:
        program, what, *words = shlex.split(line, comments=True)
        assert program == "docker"
        if what == "build":
            given = [words[place + 1] for place, word in enumerate(words) if word == "--build-arg"]
            assert all(name in defaults() for name, _, _ in (one.partition("=") for one in given))
            continue
        assert what == "run"
        mounts = [words[place + 1].rpartition(":")[2] for place, word in enumerate(words) if word == "-v"]
        assert set(mounts) <= {"/work", "/cache", "/store"}
    table = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(table) == set(defaults())
