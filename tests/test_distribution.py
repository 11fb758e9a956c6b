"""The wheel and the sdist hold the whole package, and what is installed from them works in an empty folder, without the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def build(what: str, source: Path, out: Path) -> Path:
    """Call the build backend as pip does, without a network and without an environment of its own."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, what, str(out)], cwd=source, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what git tracks, because building writes into the source."""
    folder = tmp_path_factory.mktemp("distribution")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).exists() or (ROOT / name).is_symlink():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / "source" / name, follow_symlinks=False)
    return build("build_sdist", folder / "source", folder)


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, which therefore lacks nothing."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return build("build_wheel", folder / sdist.name.removesuffix(".tar.gz"), folder)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel alone; its dependencies are those of this interpreter."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder), str(wheel)]
    subprocess.run(command, check=True, timeout=300)
    return folder


def files_of_the_package() -> set[str]:
    """Every file that the package needs, by its path in a wheel. A link to a folder stands for the files in it."""
    tracked = subprocess.run(["git", "ls-files", "-z", "compresslab"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = set()
    for name in filter(None, tracked.split("\0")):
        folder = ROOT / name
        found |= {f"{name}/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*.yaml")} if folder.is_dir() else {name}
    return found


def test_the_wheel_is_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == files_of_the_package()
    assert {"compresslab/data/recipes/published/gemma-2.yaml", "compresslab/data/recipe.schema.json"} <= names


def test_the_recipes_stand_once_in_the_sdist(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        found = [member.name for member in archive.getmembers() if member.name.endswith("/quickstart.yaml")]
    assert [name.partition("/")[2] for name in found] == ["compresslab/data/recipes/quickstart.yaml"]


def test_what_is_installed_works_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}

    def call(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert str(ROOT) not in done.stdout
        return done.stdout

    def compresslab(*arguments: str) -> str:
        return call(sys.executable, str(installed / "bin" / "compresslab"), *arguments)

    assert call(sys.executable, "-c", "import compresslab; print(compresslab.__file__)") == f"{installed / 'compresslab' / '__init__.py'}\n"
    assert "init" in compresslab("--help")
    for command in ("run", "plan", "validate", "report", "verify"):
        assert "recipes/" not in compresslab(command, "-h"), "that folder is in the repository alone"
    assert "gemma-2" in compresslab("recipes")
    assert Path(compresslab("recipes", "--schema").strip()).is_relative_to(installed)
    compresslab("init", "--from", "gemma-2")
    assert "raised by parameters" in compresslab("run", "gemma-2.yaml")
    page = tmp_path / "reports" / "gemma-2" / "index.html"
    page.unlink()
    assert compresslab("report", "gemma-2.yaml") == "reports/gemma-2/index.html\n"
    assert page.stat().st_size > 100_000
    assert json.loads(compresslab("show", "gemma-2", "--json"))["study"] == "gemma-2"
