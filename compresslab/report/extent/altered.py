"""What the command line changed of a recipe before its run: `--set`, `--limit`, `--compute` and `--only`, read from the study's record."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from compresslab.errors import BadInput
from compresslab.recipe.changes import Changes
from compresslab.recipe.load import loads, loads_located
from compresslab.records import StudyRecord

# The comments above a recipe's text in a record (`recipe.changes.Changes.described`).
_COMMENT = re.compile(r"# --(set|only) (.*)\n")
# Characters of a folder's name that every file system and shell takes as they are.
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_NAME = 60
_LONGEST_VALUE = 60
_ABSENT = object()


class Alteration(NamedTuple):
    """One setting of a run that is not the recipe's.

    Attributes:
        path: of the setting, as in messages about recipes, without `evaluate.`. ran: its value in the run. recipe: its value in the recipe,
            "" where it is not known.
    """

    path: str
    ran: str
    recipe: str

    def __str__(self) -> str:
        ran, recipe = (text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…" for text in (self.ran, self.recipe))
        return f"{self.path}: {ran} (recipe: {recipe})" if recipe else f"{self.path}: {ran}"


class Altered(NamedTuple):
    """How a run differs from its recipe as it is written.

    Attributes:
        settings: the settings with other values. only: the variants that were asked for, empty for all.
        left_out, variants: how many of the recipe's variants did not run, and how many there are; 0 where that is not known.
    """

    settings: tuple[Alteration, ...] = ()
    only: tuple[str, ...] = ()
    left_out: int = 0
    variants: int = 0

    def __bool__(self) -> bool:
        return bool(self.settings or self.left_out or (self.only and not self.variants))

    @property
    def sentence(self) -> str:
        """`items: 60 (recipe: 200), 2 of 6 variants left out`; empty for a run of the recipe as it is."""
        parts = [str(setting) for setting in self.settings]
        if self.left_out:
            parts.append(f"{self.left_out} of {self.variants} variants left out")
        elif self.only and not self.variants:
            parts.append(f"only {', '.join(self.only)}")
        return ", ".join(parts)

    @property
    def name(self) -> str:
        """A name for the run that a folder can have: `items-60`, `only-nf4`. Runs that differ have different names."""
        texts = [f"{setting.path}-{setting.ran}" for setting in self.settings]
        texts += [f"only-{'-'.join(self.only)}"] if self.left_out or (self.only and not self.variants) else []
        whole = "_".join(texts)
        safe = _UNSAFE.sub("-", whole).strip("-.")
        if safe == whole and len(safe) <= _LONGEST_NAME:
            return safe
        return f"{safe[:_LONGEST_NAME].rstrip('-.')}-{zlib.crc32(whole.encode()):08x}"


def altered(study: StudyRecord) -> Altered:
    """How the run of a study's record differs from its recipe."""
    return altered_recipe(study.recipe, study.provenance.recipe_sha256)


def altered_recipe(recorded: str, sha256: str) -> Altered:
    """How a run differs from its recipe.

    Args:
        recorded: a recipe's text below comments with the changes, as a record holds it. sha256: of the recipe's file.
    """
    changes, text = changes_of(recorded, sha256)
    if not (changes.settings or changes.only):
        return Altered()
    try:
        before, after = loads(text, "recipe"), loads_located(text, "recipe", changes).recipe
    except BadInput:  # the record is from a version with another form of recipes
        pairs = [setting.partition("=") for setting in changes.settings]
        return Altered(tuple(Alteration(_shown_path(path.strip()), value.strip(), "") for path, _, value in pairs), changes.only)
    ours, theirs = (json.loads(recipe.model_dump_json()) for recipe in (after, before))
    kept = set(ours.get("variants", {}))
    theirs_kept = {**theirs, "variants": {name: value for name, value in theirs.get("variants", {}).items() if name in kept}}
    settings = tuple(
        Alteration(_shown_path(path), _shown(ran), _shown(recipe) if recipe is not _ABSENT else "not there")
        for path, ran, recipe in _differences(ours, theirs_kept)
    )
    return Altered(settings, changes.only, len(before.variants) - len(kept), len(before.variants))


def page_name(study: str, recorded: str, sha256: str) -> str:
    """The name of the folder of a study's page. A changed run has its own, beside that of the recipe as it is."""
    changed = altered_recipe(recorded, sha256)
    return f"{study}~{changed.name}" if changed else study


def changes_of(recorded: str, sha256: str) -> tuple[Changes, str]:
    """The changes above a recipe's text in a record, and the text.

    A recipe may itself begin with such a comment; its digest tells them apart.
    """
    given: dict[str, list[str]] = {"set": [], "only": []}
    text = recorded
    while hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest() != sha256 and (found := _COMMENT.match(text)):
        given[found[1]].append(found[2])
        text = text[found.end() :]
    return Changes(tuple(given["set"]), tuple(given["only"])), text


def _differences(ours: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The path, our value and theirs of all values that differ. Lists of equal length are looked into if they hold mappings."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in [*theirs, *(key for key in ours if key not in theirs)]:
            yield from _differences(ours.get(key, _ABSENT), theirs.get(key, _ABSENT), f"{path}.{key}" if path else str(key))
    elif _looked_into(ours) and _looked_into(theirs) and len(ours) == len(theirs):
        for place, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from _differences(one, other, f"{path}[{place}]")
    elif ours != theirs:
        yield path, ours, theirs


def _looked_into(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _shown_path(path: str) -> str:
    return path.removeprefix("evaluate.")


def _shown(value: Any) -> str:
    if value is _ABSENT or value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
