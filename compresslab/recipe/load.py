"""Reads a recipe from a file, or reports all its problems at once.

The stages: text -> tree with places (`locate`) -> sweeps expanded (`sweeps`) -> values checked (`explain`) -> the graph of
`from` and `teacher` checked (`order`). Each stage adds its problems and later stages continue with the valid part, so that one
run reports all. Does not import torch or read a model.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from compresslab.errors import RecipeError
from compresslab.inputs import kind_at, read_regular, reason
from compresslab.methods.registry import configs
from compresslab.methods.settings import PARENT
from compresslab.recipe.changes import NO_CHANGES, Changes, apply_settings, select_variants
from compresslab.recipe.explain import check
from compresslab.recipe.locate import MAX_NODES, Located, Problem, parse, shown
from compresslab.recipe.order import sort
from compresslab.recipe.places import Places
from compresslab.recipe.schema import Recipe, Variant
from compresslab.recipe.steps import BASE
from compresslab.recipe.sweeps import expand, pattern
from compresslab.suggestions import MOST_PROBLEMS, suggest

MAX_BYTES = 1_000_000
MAX_EXPANDED = 5 * MAX_NODES
# Settings of any method that name another variant, and the relation to it.
OTHER_MODELS = {"teacher": "learns from", "until": "trains until"}
_FORM = "`compresslab recipes quickstart` shows the form"


class RecipeFile(NamedTuple):
    """A recipe's file as it was read. A run records this text, even if the file changes meanwhile.

    Attributes:
        text: without a byte-order mark, its lines ending in line feeds. sha256: of the file's bytes.
    """

    path: Path = Path()
    text: str = ""
    sha256: str = ""


NO_FILE = RecipeFile()  # for a recipe that was built in code


class LoadedRecipe(NamedTuple):
    """A recipe, the places of its values in the file, and the file."""

    recipe: Recipe
    places: Places
    file: RecipeFile


class ReadRecipe(NamedTuple):
    """A recipe's file with its problems.

    Attributes:
        name: the file's, for messages.
        loaded: the recipe; `None` if there are problems.
        places: `None` if the file is no mapping, or cannot be read as YAML.
        sound_variants: the variants whose form is right and that need no others than such.
    """

    name: str
    loaded: LoadedRecipe | None
    problems: list[Problem]
    places: Places | None = None
    sound_variants: tuple[str, ...] = ()


def load(path: Path) -> Recipe:
    """Reads a recipe file.

    Raises:
        RecipeError: every problem as `file:line:column: path.in.recipe: what is wrong; what to do`.
    """
    return load_located(path).recipe


def load_located(path: Path, changes: Changes = NO_CHANGES) -> LoadedRecipe:
    """Reads a recipe file and keeps its places, for later messages. Raises like `load`."""
    return _all_or_refused(read(path, changes))


def read(path: Path, changes: Changes = NO_CHANGES) -> ReadRecipe:
    """Reads a recipe file with all its problems, so that a plan can add what is wrong with the rest of it.

    Raises:
        RecipeError: the file cannot be read, or a variant of `changes.only` does not exist.
    """
    name = str(path)
    try:
        if path.is_dir():
            raise RecipeError([f"{name}: this is a folder; give the recipe file in it{_nearby(path, path / 'recipe.yaml')}"])
        content = read_regular(path, MAX_BYTES)
    except FileNotFoundError:
        raise RecipeError([f"{name}: no such file; check the path{_nearby(path.parent, path)}"]) from None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and (kind := kind_at(path)) in ("a named pipe", "a character device"):
            raise RecipeError([f"{name}: {kind}, and a recipe is read more than once; save it as a file"]) from None
        if isinstance(error, OSError) and error.errno == errno.EFBIG:
            raise RecipeError([f"{name}: larger than {MAX_BYTES:,} bytes, so no recipe; give a YAML file"]) from None
        raise RecipeError([f"{name}: cannot be read ({reason(error)}); check the path and its permissions"]) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - (before.rfind(b"\n") + 1) + 1
        raise RecipeError([f"{name}:{line}:{column}: not UTF-8 text; save the file as UTF-8"]) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _read_text(text, RecipeFile(path, text, hashlib.sha256(content).hexdigest()), changes)


def _nearby(folder: Path, path: Path) -> str:
    try:
        files = sorted(file.name for file in folder.glob("*.y*ml"))[:1000]
    except OSError:
        return ""
    suggestion = suggest(path.name, files)
    return f";{suggestion}" if suggestion else f"; there: {', '.join(files[:8])}" if files else ""


def loads(text: str, name: str) -> Recipe:
    """Reads a recipe from text; `name` is the file's name in messages. Raises `RecipeError` like `load`."""
    return loads_located(text, name).recipe


def loads_located(text: str, name: str, changes: Changes = NO_CHANGES) -> LoadedRecipe:
    """Reads a recipe from text and keeps its places. Raises like `load`."""
    return _all_or_refused(_read_text(text, RecipeFile(Path(name), text), changes))


def _all_or_refused(found: ReadRecipe) -> LoadedRecipe:
    if found.loaded is None:
        raise RecipeError([problem.shown(found.name) for problem in found.problems])
    return found.loaded


def _read_text(text: str, file: RecipeFile, changes: Changes) -> ReadRecipe:
    name = str(file.path)
    root, problems = parse(text)
    if root is None or root.value is None:
        return ReadRecipe(name, None, problems or [Problem(1, 1, "", f"the recipe is empty; {_FORM}")])
    if not isinstance(root.value, dict):
        return ReadRecipe(name, None, [*problems, root.problem(f"a recipe is a mapping with keys such as 'study:'; {_FORM}")])
    changed, refused = apply_settings(root, changes.settings)
    tree = _collect(changed)
    recipe, found = check(Recipe, tree.root, ignored_keys=["sweeps"])
    # Equal problems of a sweep's points appear once, all in the file's order.
    problems = sorted({*problems, *refused, *tree.problems, *found, *_graph_problems(tree)})
    places = Places(name, tree.root)
    if recipe is not None and not problems:
        return ReadRecipe(name, LoadedRecipe(select_variants(recipe, changes.only), places, file), [], places)
    return ReadRecipe(name, None, problems, places, tuple(_sound_variants(tree, changes.only)))


def _sound_variants(tree: _ExpandedTree, only: Sequence[str]) -> list[str]:
    """The variants whose own form is right and that need no others than such: `only` with what they need, or all if that is empty."""
    needed = _sound_and_needed(tree)
    selected, pending = set[str](), [name for name in only or needed if name in needed]
    while pending:
        name = pending.pop()
        if name not in selected:
            selected.add(name)
            pending += needed[name]
    return [name for name in needed if name in selected]


def _sound_and_needed(tree: _ExpandedTree) -> dict[str, set[str]]:
    """The variants whose own form is right and that need no others than such, each with what it needs."""
    sound = {name: body for name, body in tree.variants.items() if check(Variant, body)[0] is not None}
    needed = {name: {str(other.value) for _, other in _references(body)} - {BASE} for name, body in sound.items()}
    while True:
        circular = {name for circle in sort({name: list(others) for name, others in needed.items()})[1] for name in circle}
        kept = {name: others for name, others in needed.items() if others <= needed.keys() and name not in circular}
        if kept == needed:
            return kept
        needed = kept


@dataclass
class _ExpandedTree:
    """The recipe's tree with all variants in one mapping, including those of the sweeps.

    Attributes:
        unexpanded: names of sweeps that could not be expanded; references that match them are not checked.
    """

    root: Located
    variants: dict[str, Located] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unexpanded: list[str] = field(default_factory=list)


def _collect(root: Located) -> _ExpandedTree:
    tree = _ExpandedTree(root)
    listed, sweeps = root.mapping.get("variants"), root.mapping.get("sweeps")
    keys: dict[str, tuple[int, int]] = {}
    folded: dict[str, str] = {}
    expanded_size = 0

    def add(parent: Located, key: str, name: str, body: Located) -> None:
        if (other := folded.setdefault(name.lower(), name)) in tree.variants:
            what = "is a variant already" if other == name else f"differs from '{other}' only in upper and lower case"
            tree.problems.append(parent.key_problem(key, f"the name {shown(name)} {what}; names become folders, so choose another"))
            return
        keys[name] = parent.keys[key]
        tree.variants[name] = _long_form(body)

    if listed is not None:
        for name, body in listed.mapping.items():
            add(listed, name, name, body)
    if sweeps is not None and sweeps.value is not None and not isinstance(sweeps.value, dict):
        tree.problems.append(sweeps.problem('a sweep has a name; make this a mapping from names such as "depth-{keep}" to grid and steps'))
    for key in sweeps.mapping if sweeps is not None else ():
        assert sweeps is not None
        if sweeps.mapping[key].value is None:  # the reader has reported it
            tree.unexpanded.append(key)
            continue
        points, problems = expand(sweeps, key)
        expanded_size += len(points) * sweeps.mapping[key].size
        if expanded_size > MAX_EXPANDED:
            tree.problems.append(sweeps.key_problem(key, f"the sweeps so far give more than {MAX_EXPANDED} values; make them smaller"))
            tree.unexpanded.append("{rest}")
            break
        tree.problems += problems
        if problems:
            tree.unexpanded.append(key)
        for name, body in points if not problems else ():
            add(sweeps, key, name, body)
    if tree.variants and (listed is None or isinstance(listed.value, dict)):
        parent = listed or root
        merged = Located(tree.variants, parent.line, parent.column, "variants", style="block", keys=keys)
        tree.root = replace(root, value={**root.mapping, "variants": merged})
    return tree


def _long_form(body: Located) -> Located:
    """A list of steps as the equivalent mapping; the steps keep their own paths."""
    if not isinstance(body.value, list):
        return body
    return replace(body, value={"steps": body}, keys={"steps": (body.line, body.column)})


def _references(body: Located) -> Iterator[tuple[str, Located]]:
    """The names that a variant needs, each with its relation: "starts from", "learns from" or "trains until"."""
    if isinstance((start := body.mapping.get("from", body)).value, str) and start is not body:
        yield "starts from", start
    for step in body.mapping["steps"].items if "steps" in body.mapping else ():
        for kind, settings in step.mapping.items():
            for name, relation in OTHER_MODELS.items():
                other = settings.mapping.get(name)
                if other is None or not isinstance(other.value, str) or (name, other.value) == ("until", PARENT):
                    continue
                if any(name in config.model_fields for config in configs(kind)):
                    yield relation, other


def _graph_problems(tree: _ExpandedTree) -> Iterator[Problem]:
    """Unknown names and cycles among `from` and `teacher`, found on the tree, because the recipe may have other problems."""
    edges: dict[str, dict[str, tuple[str, Located]]] = {}
    patterns = [pattern(key) for key in tree.unexpanded]
    unknown = 0
    for name, body in tree.variants.items():
        edges[name] = {}
        for relation, node in _references(body):
            other = str(node.value)
            if other == name:
                yield node.problem(f"'{name}' {relation} itself; name another variant or 'base'")
            elif other in tree.variants:
                edges[name].setdefault(other, (relation, node))
            elif other != "base" and not any(form.fullmatch(other) for form in patterns):
                names = ["base", *(known for known in tree.variants if known != name)]
                unknown += 1
                hint = suggest(other, names) if unknown <= MOST_PROBLEMS else ""
                hint = hint or f" there are: {', '.join(names[:12])}"
                yield node.problem(f"no variant is named {shown(other)};{hint}")
    for cycle in sort({name: list(others) for name, others in edges.items()})[1]:
        links = [(name, *edges[name][other], other) for name, other in pairwise(cycle)]
        description = ", ".join(f"'{name}' {relation} '{other}'" for name, relation, _, other in links[:12]) + ", …" * (len(links) > 12)
        first = min(links, key=lambda link: (link[2].line, link[2].column))[2]
        yield first.problem(f"a circle: {description}; let one of them use 'base' or another variant")
