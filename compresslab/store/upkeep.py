"""Keeping a store in order: what no study uses, and what is no longer what was written."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from compresslab.errors import RunFailed
from compresslab.inputs import LARGEST_RECORD, read_json
from compresslab.plan.graph import Plan
from compresslab.plan.keys import KEY_LENGTH, content_key
from compresslab.records import RunNote, StoredRecord, StudyNote
from compresslab.records.compute import Compute
from compresslab.store.digests import DamagedDigests
from compresslab.store.store import WHOLE_STORE, Store

ENCODINGS_DAYS = 30


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
    compute dtype, on another device or on another machine, and so does another recipe of the same study: the results of the one do not
    take the place of those of the other. `compresslab gc --gone` frees what only recipes used that are no longer there.
    """
    with store.leases.waited(WHOLE_STORE):  # two runs of one study must not lose each other's notes
        store.remember(plan.recipe.study, _noted(plan, store, finished))


def _noted(plan: Plan, store: Store, finished: str) -> StudyNote:
    before = store.notes().get(plan.recipe.study)
    recipe = str(plan.file.path.resolve())
    own = _run_key(recipe, plan.compute, plan.machine_facts, plan.trust_code)
    keys = {key for node in plan.nodes for key in (node.key, *node.tasks.values())}
    variants = {variant.name: variant.keys for variant in plan.variants}
    runs = dict(before.runs) if before else _readable_runs(store.note(plan.recipe.study))
    if plan.changes and before:
        variants = {**before.variants, **variants}
        keys |= set(runs[own].keys) if own in runs else set()
    facts, trusted = plan.machine_facts, plan.trust_code
    runs[own] = RunNote(recipe=recipe, compute=plan.compute, machine=plan.machine, facts=facts, keys=sorted(keys), trust_code=trusted)
    used = {key for run in runs.values() for key in run.keys}
    known = True
    if plan.changes and store.note(plan.recipe.study).exists():
        # What the recipe as it stands uses may not be known, and must not look as if it were.
        known = before is not None and before.keys is not None
        used |= set(before.keys or ()) if before else set()
    return StudyNote(
        recipe=str(plan.file.path),
        finished=finished or (before.finished if before else ""),
        variants=variants,
        runs=runs,
        last=own,
        keys=sorted(used) if known else None,
    )


def _readable_runs(note: Path) -> dict[str, RunNote]:
    """Of a note that is damaged or of another version every run that can be read: other machines' results are in use, too."""
    found: dict[str, RunNote] = {}
    try:
        runs = read_json(note, LARGEST_RECORD)["runs"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    for key, run in runs:
        with contextlib.suppress(ValidationError):
            found[key] = RunNote.model_validate_json(json.dumps(run))
    return found


def unused(store: Store, *, gone: bool = False) -> list[Unused]:
    """What no study uses, the largest first, without what a run has a lease of.

    Args:
        gone: whether recipes count as removed whose files are not there. They may be where only another machine can see them.

    Raises:
        RunFailed: a study's note does not say what it uses.
    """
    used = _used(store, gone)
    found = [(path, "a result that no study uses") for path in _entries(store.objects) if path.name not in used]
    for path in _entries(store.root / "checkpoints"):
        if path.name not in used:
            found.append((path, "how far an unused step had come"))
        elif store.has(path.name):
            found.append((path, "how far a step had come that is done"))
    found += [(path, "what a dead run left") for path in _entries(store.studies) if path.name.startswith(".")]
    found += [(path, "what a dead run left") for path in _entries(store.staging) if not _is_leased(path, store)]
    # Logs that are named otherwise are those of studies and of the workers as a whole.
    logs = (path for path in _entries(store.logs) if re.fullmatch(f"[0-9a-f]{{{KEY_LENGTH}}}", path.stem) and path.stem not in used)
    found += [(path, "the log of an unused result") for path in logs]
    found += _unused_encodings(store)
    return sorted((Unused(path, why, _size(path)) for path, why in found), key=lambda one: (-one.size, str(one.path)))


def _unused_encodings(store: Store) -> Iterator[tuple[Path, str]]:
    """Token ids belong to a tokenizer and a task, not to a study: what counts is when they were last read."""
    studies, long_ago = store.notes(), time.time() - ENCODINGS_DAYS * 86_400
    for path in _entries(store.encodings):
        if path.name.startswith("."):
            yield path, "what a dead run left"
        elif not studies:
            yield path, "token ids of tasks, and there is no study"
        elif path.stat().st_mtime < long_ago:
            yield path, f"token ids of tasks that were not read for {ENCODINGS_DAYS} days"


def remove(found: list[Unused], store: Store, *, gone: bool = False) -> int:
    """Remove what is still unused; the bytes freed.

    It is decided under the lease of the whole store, since a study may have begun to use some of it after it was listed.

    Args:
        gone: as in `unused`.
    """
    freed = 0
    with store.leases.waited(WHOLE_STORE):
        still = {one.path for one in unused(store, gone=gone)}
        for one in found:
            if one.path in still and _remove(one.path, store):
                freed += one.size
    return freed


def _remove(path: Path, store: Store) -> bool:
    """Remove a file or a folder of the store; whether it was removed, which it is not while a run has the lease of its key."""
    with store.leases.held(_key(path)) as lease:
        if lease is None:
            return False
        if path.parent == store.objects:
            store.discard(path.name)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return True


def _is_leased(path: Path, store: Store) -> bool:
    with store.leases.held(_key(path)) as lease:
        return lease is None


def _key(path: Path) -> str:
    """The key that a file or a folder of the store belongs to."""
    return re.split(r"[-.]", path.name.lstrip("."))[0]


def damages(store: Store, results: Mapping[str, type[StoredRecord] | None]) -> list[Damage]:
    """The results that are not as they were written, by size and SHA-256, or whose records this version does not read.

    Args:
        results: by key, the kind of each result's record, if it has one. Those that are not there are passed over.
    """
    there = {key: tuple(_problems(store, key, kind)) for key, kind in results.items() if store.occupied(key)}
    return [Damage(key, problems) for key, problems in there.items() if problems]


def _problems(store: Store, key: str, kind: type[StoredRecord] | None) -> Iterator[str]:
    # A cost that cannot be read makes a result no worse, and is no reason to make it again.
    changed = list(store.digests.changes(store.folder(key), every_byte=True))
    yield from changed
    if changed:
        return
    if problem := store.problem(key, kind):
        yield problem
    with contextlib.suppress(DamagedDigests):  # a run has removed it meanwhile
        yield from (f"{name} was not written by a run" for name in store.unwritten(key))


def repair(store: Store, damaged: Iterable[Damage], results: Mapping[str, type[StoredRecord] | None]) -> None:
    """Remove results that are damaged, so that a run makes them again. One that a run has made again meanwhile stays.

    Args:
        results: as in `damages`.
    """
    for key in (damage.key for damage in damaged):
        with store.leases.waited(key):
            if damages(store, {key: results[key]}):
                store.discard(key)


def _used(store: Store, gone: bool) -> set[str]:
    used: set[str] = set()
    notes = store.notes()
    if broken := store.broken_notes():
        raise RunFailed(f"{broken[0]}. Until then nothing can be freed, since the note does not say which results its study uses")
    for study, noted in notes.items():
        if noted.keys is None:
            raise RunFailed(
                f"{store.note(study)} does not say which results its study uses, so nothing can be freed; "
                f"run the recipe of {study} once more, or remove this file if the study may go"
            )
        left = {key for run in noted.runs.values() if gone and _is_gone(run) for key in run.keys}
        kept = {key for run in noted.runs.values() if not (gone and _is_gone(run)) for key in run.keys}
        used |= set(noted.keys) - (left - kept)
    return used


def _is_gone(run: RunNote) -> bool:
    return bool(run.recipe) and not Path(run.recipe).exists()


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _size(path: Path) -> int:
    """Bytes of a file or a folder, without what a run removes meanwhile."""
    size = 0
    with contextlib.suppress(FileNotFoundError):
        for file in path.rglob("*") if path.is_dir() else [path]:
            size += 0 if file.is_dir() else file.lstat().st_size
    return size


def _run_key(recipe: str, compute: Compute, facts: Mapping[str, Any], trust_code: bool) -> str:
    """What runs of a study are told apart by in a store's note."""
    return content_key("run note", recipe=recipe, compute=compute.decides(), machine=dict(facts), trust_code=trust_code)
