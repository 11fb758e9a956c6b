"""One version, and the files around the code say what the code does: CITATION.cff, CHANGELOG.md, the hooks, CI, the published pages.

`python tests/test_project_files.py` writes the list of pages in reports/README.md again.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from setuptools.config import expand

import compresslab
from compresslab.records import StudyRecord

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
REPOSITORY = PROJECT["project"]["urls"]["Repository"]
REPORTS = ROOT / "reports"
TABLE = "| study | made by | machine | date |\n|---|---|---|---|\n"
LARGEST_PAGE = 1_000_000  # bytes, the record beside it included
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:setuptools")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def from_yaml(name: str) -> Any:
    return yaml.safe_load(read(name))


# The version


def test_the_version_stands_in_one_place() -> None:
    assert "version" not in PROJECT["project"]
    assert PROJECT["project"]["dynamic"] == ["version"]
    attribute = PROJECT["tool"]["setuptools"]["dynamic"]["version"]["attr"]
    assert expand.read_attr(attribute, root_dir=ROOT) == compresslab.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", compresslab.__version__)


def test_the_changelog_tells_of_this_version_and_of_what_is_not_released() -> None:
    """https://keepachangelog.com: the newest first, each release with its date and its changes by kind."""
    headings = re.findall(r"^## (.+)$", read("CHANGELOG.md"), re.M)
    assert headings[0] == "[Unreleased]"
    assert headings[1].startswith(f"[{compresslab.__version__}] - ")
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading) for heading in headings[1:])
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", read("CHANGELOG.md"), re.M)) <= kinds
    defined = dict(re.findall(r"^\[(.+)\]: (.+)$", read("CHANGELOG.md"), re.M))
    assert set(defined) == {re.findall(r"\[(.+)\]", heading)[0] for heading in headings}
    assert all(link.startswith(REPOSITORY) for link in defined.values())


# python -m compresslab


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--version"], 0, f"{compresslab.__version__}\n"),
        (["validate", "missing.yaml"], 2, "error: 1 problem in the recipe:\nmissing.yaml: no such file; check the path\n"),
        (["export", "nothing", "base", "folder"], 2, "error: no report of a study 'nothing' in reports; there are: none\n"),
    ],
)
def test_the_module_is_the_command(arguments: list[str], code: int, said: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "compresslab", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout + done.stderr) == (code, said)


# What other tools read


def test_the_citation_is_valid_and_names_what_pyproject_names() -> None:
    """The fields that schema 1.2.0 asks for, and none that it does not know. The version is left out: it stands in one place."""
    cited = from_yaml("CITATION.cff")
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(cited)
    known = {"cff-version", "message", "type", "title", "abstract", "authors", "license", "repository-code", "keywords"}
    assert set(cited) <= known
    assert cited["type"] == "software"
    assert cited["authors"] == [{"name": "The compresslab authors"}]
    assert cited["license"] == PROJECT["project"]["license"]
    assert cited["repository-code"] == REPOSITORY


def test_the_hooks_are_the_commands_of_make_lint() -> None:
    lint = re.search(r"^lint:.*\n((?:\t.+\n)+)", read("Makefile"), re.M)
    assert lint
    commands = [line.strip().replace("$(BIN)", ".venv/bin") for line in lint[1].splitlines()]
    (repository,) = from_yaml(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    assert [hook["entry"] for hook in repository["hooks"]] == commands
    assert all(hook["language"] == "system" and hook["pass_filenames"] is False for hook in repository["hooks"])


def test_ci_runs_what_stands_in_ci_run() -> None:
    workflow = from_yaml(".github/workflows/ci.yml")
    steps = workflow["jobs"]["test"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    assert {"python-version": "3.11"}.items() <= next(step["with"] for step in steps if "setup-python" in step.get("uses", "")).items()
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in steps if "uses" in step)
    assert set(re.findall(r"https?://([^/\s]+)", read(".github/workflows/ci.yml"))) <= {"download.pytorch.org"}
    targets = [shlex.split(line)[1] for line in read(".ci/run").splitlines() if line.startswith("make ")]
    assert {"test", "lint"} <= set(targets)


# The pages that are part of the repository


def published_pages() -> list[str]:
    """The studies whose page is part of the repository."""
    return re.findall(r"^!reports/([\w.-]+)/$", read(".gitignore"), re.MULTILINE)


def committed(path: str) -> bytes:
    """A file as it was committed: a user's own run of the quickstart writes into the same folder, and must fail no test."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    return subprocess.run(["git", "-C", str(ROOT), "show", f"HEAD:{path}"], capture_output=True, check=True).stdout


def row_of_page(study: str, content: bytes) -> str:
    """A page's row, with what its record says of machine and date."""
    record = StudyRecord.model_validate_json(content)
    where = record.provenance
    machine = f"{where.machine}, {where.cores} cores, {where.compute['dtype']}"
    return f"| [{study}]({study}/index.html) | `compresslab run recipes/{where.recipe_path}` | {machine} | {where.finished[:10]} |\n"


def with_rows(text: str, rows: Iterable[str]) -> str:
    """reports/README.md with these rows."""
    before, _, rest = text.partition(TABLE)
    return before + TABLE + "".join(rows) + re.sub(r"^(\|.*\n)*", "", rest)


def test_the_list_of_pages_says_how_each_was_made() -> None:
    rows = [row_of_page(study, committed(f"reports/{study}/study.json")) for study in published_pages()]
    assert rows
    text = committed("reports/README.md").decode()
    assert text == with_rows(text, rows), "python tests/test_project_files.py writes it again"


@pytest.mark.parametrize("study", published_pages())
def test_a_page_is_small_and_of_this_version_and_recipe(study: str) -> None:
    content, page = (committed(f"reports/{study}/{name}") for name in ("study.json", "index.html"))
    record = StudyRecord.model_validate_json(content)
    assert len(content) + len(page) < LARGEST_PAGE
    assert record.recipe == committed(f"recipes/{record.provenance.recipe_path}").decode()
    assert record.study in page.decode()
    assert not any(variant.failures for variant in record.variants)


if __name__ == "__main__":
    made = [row_of_page(study, (REPORTS / study / "study.json").read_bytes()) for study in published_pages()]
    (REPORTS / "README.md").write_text(with_rows(read("reports/README.md"), made), encoding="utf-8")
