"""A recipe from a file, or everything that is wrong with it at once.

The way: text -> tree with places (`locate`) -> sweeps expanded (`sweeps`) -> values checked (`explain`) -> the graph of
`from` and `teacher` checked (`order`). Each stage adds its problems and the later ones go on with what is left, so one
run tells all. Nothing here imports torch or touches a model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from compresslab.errors import RecipeError
from compresslab.methods.settings import PARENT
from compresslab.recipe.changes import NO_CHANGES, Changes, changed, kept
from compresslab.recipe.explain import check
from compresslab.recipe.locate import MAX_NODES, Located, Problem, parse, shown, suggest
from compresslab.recipe.order import sort
from compresslab.recipe.places import Places
from compresslab.recipe.schema import Recipe
from compresslab.recipe.sweeps import expand, pattern

MAX_BYTES = 1_000_000
MAX_EXPANDED = 5 * MAX_NODES
_FORM = "recipes/quickstart.yaml shows the form"


class RecipeFile(NamedTuple):
    """A recipe's file as it was read: a run records this text, whatever becomes of the file meanwhile.

    Attributes:
        text: without a byte-order mark. sha256: of the file's bytes.
    """

    path: Path = Path()
    text: str = ""
    sha256: str = ""


NO_FILE = RecipeFile()  # of a recipe that was built in code


class LoadedRecipe(NamedTuple):
    """A recipe, where its values stand in its file, and the file."""

    recipe: Recipe
    places: Places
    file: RecipeFile


def load(path: Path) -> Recipe:
    """Reads a recipe file.

    Raises:
        RecipeError: with every problem as `file:line:column: path.in.recipe: what is wrong; what to do`.
    """
    return load_located(path).recipe


def load_located(path: Path, changes: Changes = NO_CHANGES) -> LoadedRecipe:
    """Reads a recipe file and keeps its places, for whoever finds more to say about it. Raises like `load`."""
    name = str(path)
    try:
        if path.is_dir():
            raise RecipeError([f"{name}: this is a folder; give the recipe file in it{_nearby(path, path / 'recipe.yaml')}"])
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise RecipeError([f"{name}: no such file; check the path{_nearby(path.parent, path)}"]) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RecipeError([f"{name}: cannot be read ({reason}); check the path and its permissions"]) from None
    if len(content) > MAX_BYTES:
        raise RecipeError([f"{name}: larger than {MAX_BYTES:,} bytes, so no recipe; give a YAML file"])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - (before.rfind(b"\n") + 1) + 1
        raise RecipeError([f"{name}:{line}:{column}: not UTF-8 text; save the file as UTF-8"]) from None
    found = loads_located(text, name, changes)
    return found._replace(file=RecipeFile(path, text, hashlib.sha256(content).hexdigest()))


def _nearby(folder: Path, wanted: Path) -> str:
    try:
        files = sorted(file.name for file in folder.glob("*.y*ml"))[:1000]
    except OSError:
        return ""
    guess = suggest(wanted.name, files)
    return f";{guess}" if guess else f"; there: {', '.join(files[:8])}" if files else ""


def loads(text: str, name: str) -> Recipe:
    """Reads a recipe from text; `name` stands for the file in messages. Raises `RecipeError` like `load`."""
    return loads_located(text, name).recipe


def loads_located(text: str, name: str, changes: Changes = NO_CHANGES) -> LoadedRecipe:
    """Reads a recipe from text and keeps its places. Raises like `load`."""
    root, problems = parse(text)
    if root is None or root.value is None:
        raise _refusal(name, problems or [Problem(1, 1, "", f"the recipe is empty; {_FORM}")])
    if not isinstance(root.value, dict):
        raise _refusal(name, [*problems, root.problem(f"a recipe is a mapping with keys such as 'study:'; {_FORM}")])
    whole = _collect(changed(root, changes.settings))
    recipe, found = check(Recipe, whole.root, aside=["sweeps"])
    problems += [*whole.problems, *found, *_graph_problems(whole)]
    if recipe is None or problems:
        raise _refusal(name, problems)
    return LoadedRecipe(kept(recipe, changes.only), Places(name, whole.root), RecipeFile(Path(name), text))


def _refusal(name: str, problems: list[Problem]) -> RecipeError:
    """One line for each problem in the file's order; the points of a sweep say the same thing once."""
    return RecipeError([problem.shown(name) for problem in sorted(set(problems))])


@dataclass
class _Whole:
    """The recipe's tree with all variants in one mapping, those of the sweeps included.

    Attributes:
        unexpanded: what the names of sweeps that could not be expanded look like; references to them are let pass.
    """

    root: Located
    variants: dict[str, Located] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unexpanded: list[str] = field(default_factory=list)


def _collect(root: Located) -> _Whole:
    whole = _Whole(root)
    written, sweeps = root.mapping.get("variants"), root.mapping.get("sweeps")
    keys: dict[str, tuple[int, int]] = {}
    folded: dict[str, str] = {}
    spent = 0

    def take(home: Located, key: str, name: str, body: Located) -> None:
        if (other := folded.setdefault(name.lower(), name)) in whole.variants:
            what = "is a variant already" if other == name else f"differs from '{other}' only in upper and lower case"
            whole.problems.append(home.key_problem(key, f"the name {shown(name)} {what}; names become folders, so choose another"))
            return
        keys[name] = home.keys[key]
        whole.variants[name] = _long_form(body)

    if written is not None:
        for name, body in written.mapping.items():
            take(written, name, name, body)
    if sweeps is not None and sweeps.value is not None and not isinstance(sweeps.value, dict):
        whole.problems.append(sweeps.problem('a sweep has a name; make this a mapping from names such as "depth-{keep}" to grid and steps'))
    for key in sweeps.mapping if sweeps is not None else ():
        assert sweeps is not None
        if sweeps.mapping[key].value is None:  # The reader has complained about it.
            whole.unexpanded.append(key)
            continue
        points, problems = expand(sweeps, key)
        spent += len(points) * sweeps.mapping[key].size
        if spent > MAX_EXPANDED:
            whole.problems.append(sweeps.key_problem(key, f"the sweeps so far give more than {MAX_EXPANDED} values; make them smaller"))
            whole.unexpanded.append("{rest}")
            break
        whole.problems += problems
        if problems:
            whole.unexpanded.append(key)
        for name, body in points if not problems else ():
            take(sweeps, key, name, body)
    if whole.variants and (written is None or isinstance(written.value, dict)):
        home = written or root
        merged = Located(whole.variants, home.line, home.column, "variants", style="block", keys=keys)
        whole.root = replace(root, value={**root.mapping, "variants": merged})
    return whole


def _long_form(body: Located) -> Located:
    """A bare list of steps as the mapping that it stands for; the steps keep their own paths."""
    if not isinstance(body.value, list):
        return body
    return replace(body, value={"steps": body}, keys={"steps": (body.line, body.column)})


def _references(body: Located) -> Iterator[tuple[str, Located]]:
    """The names that a variant needs, each with the word for how: "starts from", "learns from" or "trains until"."""
    if isinstance((start := body.mapping.get("from", body)).value, str) and start is not body:
        yield "starts from", start
    for step in body.mapping["steps"].items if "steps" in body.mapping else ():
        for kind, name, how in (("distill", "teacher", "learns from"), ("retrain", "until", "trains until")):
            other = step.mapping.get(kind, step).mapping.get(name)
            if other is not None and isinstance(other.value, str) and (name, other.value) != ("until", PARENT):
                yield how, other


def _graph_problems(whole: _Whole) -> Iterator[Problem]:
    """Unknown names and circles among `from` and `teacher`, on the tree, since the recipe may have other problems too."""
    edges: dict[str, dict[str, tuple[str, Located]]] = {}
    waiting = [pattern(key) for key in whole.unexpanded]
    for name, body in whole.variants.items():
        edges[name] = {}
        for how, node in _references(body):
            other = str(node.value)
            if other == name:
                yield node.problem(f"'{name}' {how} itself; name another variant or 'base'")
            elif other in whole.variants:
                edges[name].setdefault(other, (how, node))
            elif other != "base" and not any(form.fullmatch(other) for form in waiting):
                names = ["base", *(known for known in whole.variants if known != name)]
                hint = suggest(other, names) or f" there are: {', '.join(names[:12])}"
                yield node.problem(f"no variant is named {shown(other)};{hint}")
    for circle in sort({name: list(others) for name, others in edges.items()})[1]:
        links = [(name, *edges[name][other], other) for name, other in pairwise(circle)]
        told = ", ".join(f"'{name}' {how} '{other}'" for name, how, _, other in links[:12]) + ", …" * (len(links) > 12)
        first = min(links, key=lambda link: (link[2].line, link[2].column))[2]
        yield first.problem(f"a circle: {told}; let one of them use 'base' or another variant")
