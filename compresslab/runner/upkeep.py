"""Keeping a store in order: what no study uses, and what is no longer what was written."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from compresslab.errors import RunFailed
from compresslab.plan.graph import Plan
from compresslab.plan.keys import KEY_LENGTH, content_key
from compresslab.recipe.source import file_sha256
from compresslab.records.compute import Compute
from compresslab.runner.store import DIGESTS, Store


class Unused(NamedTuple):
    """Something that may go: a folder or file of the store, why nothing needs it, and its bytes on disk."""

    path: Path
    why: str
    size: int


class Damage(NamedTuple):
    """A result that is not as it was written: its key, and what is wrong with which of its files."""

    key: str
    problems: tuple[str, ...]


def note(plan: Plan, store: Store, finished: str = "") -> None:
    """Note what the study uses: before it runs, so that `unused` spares what a run that was stopped has made; and again when it ends.

    A run with `--only` or other changes adds to what was noted, since the recipe as it stands still uses that. So does a run in another
    compute dtype, on another device or on another machine: its results do not take the place of theirs.
    """
    before = store.remembered().get(plan.recipe.study, {})
    own = _machine_key(plan.compute, plan.machine_facts)
    keys = {key for node in plan.nodes for key in (node.key, *node.tasks.values())}
    variants = {variant.name: variant.keys for variant in plan.variants}
    runs = _noted_runs(before)
    if plan.changes:
        variants = {**before.get("variants", {}), **variants}
        keys |= set(runs.get(own, {}).get("keys", ()))
    runs[own] = {"compute": list(plan.compute), "machine": plan.machine, "facts": plan.machine_facts, "keys": sorted(keys)}
    facts: dict[str, Any] = {
        "recipe": str(plan.file.path),
        "finished": finished or before.get("finished", ""),
        "variants": variants,
        "runs": runs,
        "last": own,
        "keys": sorted({key for run in runs.values() for key in run["keys"]}),
    }
    if plan.changes and store.note(plan.recipe.study).exists():
        if isinstance(before.get("keys"), list):
            facts["keys"] = sorted({*before["keys"], *facts["keys"]})
        else:  # What the recipe as it stands uses is not known, and must not look as if it were.
            del facts["keys"]
    store.remember(plan.recipe.study, facts)


def _noted_runs(facts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a note says of runs by machine and compute dtype, without entries that cannot be read."""
    runs = facts.get("runs")
    found = runs.items() if isinstance(runs, dict) else ()
    return {key: run for key, run in found if isinstance(run, dict) and isinstance(run.get("keys"), list)}


def unused(store: Store) -> list[Unused]:
    """What no study uses, the largest first.

    Raises:
        RunFailed: a run is going on here, whose results no study has noted yet; or a study's note does not say what it uses.
    """
    if running := sorted(_running(store)):
        raise RunFailed(f"process {running[0]} is running a study in {store.root}; wait for it, since what it has made is not noted yet")
    used = _used(store)
    found = [(path, "a result that no study uses") for path in _entries(store.objects) if path.name not in used]
    for path in _entries(store.root / "checkpoints"):
        if path.name not in used:
            found.append((path, "how far an unused step had come"))
        elif store.has(path.name):
            found.append((path, "how far a step had come that is done"))
    found += [(path, "what a dead run left") for path in _entries(store.staging)]
    # Logs that are named otherwise are those of studies and of the workers as a whole.
    logs = (path for path in _entries(store.logs) if re.fullmatch(f"[0-9a-f]{{{KEY_LENGTH}}}", path.stem) and path.stem not in used)
    found += [(path, "the log of an unused result") for path in logs]
    return sorted((Unused(path, why, _size(path)) for path, why in found), key=lambda one: (-one.size, str(one.path)))


def remove(found: list[Unused]) -> int:
    """Remove them; the bytes freed."""
    for one in found:
        if one.path.is_dir() and not one.path.is_symlink():
            shutil.rmtree(one.path)
        else:
            one.path.unlink(missing_ok=True)
    return sum(one.size for one in found)


def damages(store: Store, keys: list[str]) -> list[Damage]:
    """The results among `keys` whose files are not those that were written, by size and SHA-256."""
    return [Damage(key, problems) for key in keys if store.has(key) and (problems := tuple(_problems(store.folder(key))))]


def _problems(folder: Path) -> Iterator[str]:
    try:
        written: dict[str, tuple[int, str]] = json.loads((folder / DIGESTS).read_text())
    except (OSError, ValueError):
        yield f"{DIGESTS} is missing or unreadable, so nothing can be said of the files"
        return
    there = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    for name, (size, digest) in sorted(written.items()):
        if name not in there:
            yield f"{name} is missing"
        elif there[name].stat().st_size != size:
            yield f"{name} has {there[name].stat().st_size} bytes and was written with {size}"
        elif file_sha256(there[name]) != digest:
            yield f"{name} has other bytes than were written"
    for name in sorted(set(there) - set(written) - {DIGESTS, "cost.json"}):
        yield f"{name} was not written by a run"


def _used(store: Store) -> set[str]:
    used: set[str] = set()
    for path in sorted(store.studies.glob("*.json")):
        facts = store.remembered().get(path.stem, {})
        if not isinstance(facts.get("keys"), list):
            raise RunFailed(
                f"{path} does not say which results its study uses (damaged, or of an older version), so nothing can be freed; "
                f"run the recipe of {path.stem} once more, or remove this file if the study may go"
            )
        used |= set(facts["keys"])
    return used


def _running(store: Store) -> Iterator[int]:
    for path in _entries(store.staging):
        owner = path.name.split("-")[0]
        if owner.isdigit() and int(owner) != os.getpid() and psutil.pid_exists(int(owner)):
            yield int(owner)


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())


def _machine_key(compute: Compute, facts: Mapping[str, Any]) -> str:
    """What runs of a study are told apart by in a store's note: results of two such keys share what the weights alone decide."""
    return content_key("machine note", compute=compute.decides(), machine=dict(facts))
