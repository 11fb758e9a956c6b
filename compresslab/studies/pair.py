"""The recipe of one model against the model that it was made from, with defaults for everything else."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import yaml

from compresslab.errors import BadInput
from compresslab.files import atomic_write
from compresslab.inputs import reason
from compresslab.recipe.model_config import read_config
from compresslab.recipe.schema import NAME_FORM
from compresslab.recipe.source import parse_source
from compresslab.records.compute import Dtype

TASKS = ("arc_easy", "arc_challenge", "hellaswag", "piqa", "csqa", "socialiqa", "openbookqa")
"""The tasks that the default reference reads. Their questions come with `compresslab fetch`."""

ITEMS = 200
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
RECIPE = "recipe.yaml"


class Pair(NamedTuple):
    """What to assess: a model and its parent, each a folder, a Hub id, a .gguf file or `offline:<name>`; and how.

    Attributes:
        how: in words, how the child was made. copy: whether it has the parent's weights, pruned or quantized and not trained.
        study: its name; "" for one made of the models' names. items: of each task, `None` for all.
    """

    child: str
    parent: str
    how: str = ""
    copy: bool = False
    study: str = ""
    tasks: Sequence[str] = TASKS
    items: int | None = ITEMS
    reference: str | None = None


def recipe_of(pair: Pair) -> tuple[str, str]:
    """The study's name and the text of its recipe. Local models are named by their whole paths, so that it can be run from anywhere.

    Raises:
        BadInput: a model that is none, the same model twice, or an invalid name of the study.
    """
    child, parent = _located(pair.child, "CHILD"), _located(pair.parent, "--against")
    if child == parent:
        raise BadInput(f"{pair.child} and {pair.parent} are one model; name the one that it was made from with --against")
    name = _short(pair.child)
    study = pair.study or f"{name}-against-{_short(pair.parent)}"[:100]
    if not NAME.fullmatch(study):
        raise BadInput(f"--study {study!r} is no name: write {NAME_FORM}")
    adopt = {"model": child, **({"how": pair.how} if pair.how else {}), **({"trained": False} if pair.copy else {})}
    base = {"model": parent, **_dtype(parent)}
    density = f"density: {{reference: {json.dumps(pair.reference)}}}\n" if pair.reference else ""
    text = (
        "# One model against the model that it was made from, as `compresslab assess` wrote it.\n"
        f"# Change it and run it again: compresslab run {RECIPE}. docs/recipe.md has every field.\n"
        f"study: {study}\n"
        f"question: {json.dumps(f'Is {name} denser than {_short(pair.parent)}, or only smaller?')}\n\n"
        f"base: {_flow(base)}\n\n"
        "# `how` says in words how it was made. `trained: false` if it is a copy of the weights, pruned or quantized.\n"
        f"variants:\n  {'child' if name.lower() == 'base' else name}:\n    - adopt: {_flow(adopt)}\n\n"
        "# More items make r surer; `all` is every one.\n"
        f"evaluate: {_flow({'tasks': list(pair.tasks), 'items': pair.items or 'all'})}\n{density}"
    )
    return study, text


def write_recipe(pair: Pair, reports: Path) -> tuple[Path, bool]:
    """Write a pair's recipe into the folder of its page; returns its path, and whether it is new.

    Raises:
        BadInput: as `recipe_of`, or another recipe or the page of another study is there, or the folder cannot be written into.
    """
    study, text = recipe_of(pair)
    path = reports / study / RECIPE
    try:
        new = not path.exists()
        if new and (path.parent / "study.json").exists():
            raise BadInput(
                f"{path.parent} has the page of another study of this name; name this study with --study, or another folder with --reports"
            )
        if path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
            raise BadInput(
                f"{path} is there already and is another recipe; run it with `compresslab run {path}`, or name this study with --study"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, text)
    except OSError as error:
        raise BadInput(f"{path} cannot be written ({reason(error)}); name another folder with --reports") from error
    return path, new


def _located(model: str, where: str) -> str:
    try:
        source = parse_source(model)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from error
    return source.name if source.kind in ("folder", "gguf") else model


def _short(model: str) -> str:
    """The last part of a path or Hub id, as a name."""
    last = Path(model.partition("@")[0]).expanduser()
    text = (last.resolve() if last.exists() else last).name.removesuffix(".gguf").rpartition(":")[2]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")[:45] or "model"


def _dtype(parent: str) -> dict[str, str]:
    """The dtype of the parent's checkpoint, where its folder says one that a recipe takes."""
    path = Path(parent) / "config.json"
    if not path.is_file():
        return {}
    config = read_config(path)
    stated = str(config.get("dtype") or config.get("torch_dtype"))
    return {"dtype": stated} if stated in get_args(Dtype) else {}


def _flow(value: object) -> str:
    """A value as YAML in one line."""
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6).strip()
