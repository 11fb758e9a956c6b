"""The lock: it agrees with pyproject.toml, it is complete, and what differs from it is told."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from compresslab import lock
from compresslab.cli import doctor
from compresslab.plan.prepare import prepare
from compresslab.runner import provenance as origins

ROOT = Path(__file__).parents[1]
LOCKS = ("cpu", "gpu")
PYTHONS = ("3.11", "3.12", "3.13")
CUDA = re.compile(r"nvidia-|cuda-|triton$")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# Those that a user has, in the version that they have. The tests of each are skipped without it.
TRACKERS = ("mlflow", "tensorboard", "trackio", "wandb")
DIRECT = [
    Requirement(line)
    for group in (
        PROJECT["build-system"]["requires"],
        PROJECT["project"]["dependencies"],
        *(lines for extra, lines in PROJECT["project"]["optional-dependencies"].items() if extra not in TRACKERS),
    )
    for line in group
    if not line.startswith("compresslab[")
]


def text(name: str) -> str:
    return (ROOT / "constraints" / f"{name}.txt").read_text(encoding="utf-8")


def pins(name: str) -> list[str]:
    """The lock's lines without their hashes."""
    return re.findall(r"^([a-z0-9].*?) *\\?$", text(name), re.MULTILINE)


def on(python: str, lines: list[str], platform: str = "linux") -> dict[str, Requirement]:
    """What the lines pin for a version of Python, by name."""
    place = {**default_environment(), "python_version": python, "python_full_version": f"{python}.1", "sys_platform": platform}
    found = [pin for pin in map(Requirement, lines) if pin.marker is None or pin.marker.evaluate(place)]
    named = {pin.name: pin for pin in found}
    assert len(named) == len(found), "a package is pinned twice for one Python"
    return named


# Lock and pyproject


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", LOCKS)
def test_lock_holds_every_direct_dependency_within_its_bounds(name: str, python: str) -> None:
    locked = on(python, pins(name))
    wrong = [
        f"{need} is locked as {locked.get(canonicalize_name(need.name), 'nothing')}"
        for need in DIRECT
        if (pin := locked.get(canonicalize_name(need.name))) is None or not need.specifier.contains(version(pin))
    ]
    assert not wrong, f"`make lock` brings constraints/{name}.txt up to date with pyproject.toml"


def version(pin: Requirement) -> str:
    (exact,) = pin.specifier
    assert exact.operator == "=="
    return exact.version


def test_every_direct_dependency_has_a_lower_and_an_upper_bound() -> None:
    loose = [str(need) for need in DIRECT if not {">=", "<"} <= {part.operator for part in need.specifier} and "==" not in str(need)]
    assert loose == ["setuptools>=77"]  # what builds the package is the builder's choice


def test_locks_hold_the_torch_that_latest_holds() -> None:
    assert [line for line in text("torch").splitlines() if not line.startswith("#")] == [
        line for line in pins("cpu") if line.startswith("torch==")
    ]


# Locks among themselves


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_version_has_hashes_and_no_registry(name: str) -> None:
    whole = text(name)
    assert "://" not in whole
    assert not re.findall(r"^-", whole, re.MULTILINE)
    blocks = re.split(r"\n(?=[a-z0-9])", whole)[1:]
    assert len(blocks) == len(pins(name))
    assert [block for block in blocks if "--hash=sha256:" not in block] == []


def test_cpu_lock_is_the_gpu_lock_without_cuda() -> None:
    cpu, gpu = pins("cpu"), pins("gpu")
    assert not [line for line in cpu if CUDA.match(Requirement(line).name)]
    assert [line for line in gpu if not CUDA.match(Requirement(line).name)] == cpu


def test_packaged_lock_is_the_gpu_lock_without_hashes() -> None:
    assert (ROOT / "compresslab" / "data" / "locked.txt").read_text(encoding="utf-8").splitlines() == pins("gpu")


# What is installed


def closure(locked: dict[str, Requirement]) -> Iterator[tuple[str, Requirement]]:
    """Each requirement that an installation has, from pyproject down, by the installed packages' own word: (who asks, what)."""
    waiting = [("compresslab", need) for need in DIRECT]
    seen = set()
    while waiting:
        who, need = waiting.pop()
        yield who, need
        name = canonicalize_name(need.name)
        if name not in locked or (name, *need.extras) in seen:
            continue
        seen.add((name, *need.extras))
        asked = [Requirement(line) for line in metadata.requires(name) or []]
        extras = ["", *need.extras]
        waiting += [
            (name, part) for part in asked if part.marker is None or any(part.marker.evaluate({"extra": extra}) for extra in extras)
        ]


def test_lock_is_complete_and_names_nothing_else() -> None:
    if lock.differing():
        pytest.skip("other versions than the lock's are installed")
    left_out = {line for line in text("not-on-cpu").splitlines() if not line.startswith("#")}
    locked = {name: pin for name, pin in lock.locked().items() if not CUDA.match(name)}
    needed = [(who, need) for who, need in closure(locked) if canonicalize_name(need.name) not in left_out]
    wrong = [
        f"{who} needs {need}"
        for who, need in needed
        if (pin := locked.get(canonicalize_name(need.name))) is None or not need.specifier.contains(version(pin), prereleases=True)
    ]
    assert wrong == []
    assert {canonicalize_name(need.name) for _, need in needed} == set(locked)


# What differs


@pytest.fixture
def other_versions(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets packages be installed in the versions given, and all others as locked (torch as a CPU build)."""

    def install(**versions: str | None) -> None:
        def installed(name: str) -> str:
            if name in versions:
                if (given := versions[name]) is None:
                    raise metadata.PackageNotFoundError(name)
                return given
            pin = lock.locked().get(canonicalize_name(name))
            return version(pin) + ("+cpu" if name == "torch" else "") if pin else "0"

        monkeypatch.setattr(lock.metadata, "version", installed)

    return install


def test_a_build_and_a_missing_package_do_not_differ(other_versions: Callable[..., None]) -> None:
    other_versions(gptqmodel=None)
    assert lock.differing() == {}


def test_packages_that_differ_are_told_with_both_versions(other_versions: Callable[..., None]) -> None:
    locked = version(lock.locked()["pytest"])
    other_versions(pytest="1.2rc1")
    assert lock.differing() == {"pytest": (locked, "1.2rc1")}
    assert doctor._lock() == doctor.Finding("lock", None, f"1 packages differ (locked -> installed): pytest {locked} -> 1.2rc1")
    recipe = ROOT / "recipes" / "published" / "gemma-2.yaml"
    origins._differing.cache_clear()  # read once a process
    try:
        written = origins.provenance(prepare(recipe)).model_dump_json()
    finally:
        origins._differing.cache_clear()
    assert json.loads(written)["differing"] == {"pytest": [locked, "1.2rc1"]}
