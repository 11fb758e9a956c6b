"""YAML as a tree of values that know where they stand, so that every later complaint can name line, column and path.

The reader works on PyYAML's events and not on its loader, for four reasons: the loader lets the last of two equal keys
win, reads `1e12` as text (and `0777` or `1:30` as numbers that nobody meant), recurses without a limit, and forgets
positions. Nor does it work on PyYAML's nodes: composing them recurses without a limit, forgets where an alias stands, and
reads the whole text before anyone can explain a mistake over which PyYAML stumbles a line later. Scalars are read as
YAML 1.2 reads them, with two things of YAML 1.1 that people rely on: `60_000` is a number, and `yes`, `no`, `on`, `off`
are booleans.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import yaml

from compresslab.printable import printable, unprintable

MAX_DEPTH = 30
MAX_NODES = 20_000
_LARGEST = 2**63 - 1

_NULL = {"", "~", "null", "Null", "NULL"}
_TRUE = {"true", "yes", "on"}
_FALSE = {"false", "no", "off"}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)(_[0-9]+)*")
_HEXADECIMAL = re.compile(r"[-+]?0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(_[0-9]+)*(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF|nan|NaN|NAN)")
KEY_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_PLAIN_KEY = re.compile(r"[\w{}][\w.{}+-]{0,120}")

Scalar = None | bool | int | float | str


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong, with its place (counted from 1) in the file and in the recipe, or the `--set` that brought it in."""

    line: int
    column: int
    path: str
    message: str
    setting: str = ""

    def shown(self, name: str) -> str:
        """The problem as the one line that the user reads."""
        place = f"--set {self.setting}" if self.setting else f"{name}:{self.line}:{self.column}"
        line = f"{place}: {self.path + ': ' if self.path else ''}{self.message}"
        return printable(line).replace("\n", "\\n").replace("\t", "\\t")


@dataclass(frozen=True)
class Located:
    """A value with its place.

    Attributes:
        path: where it stands in the recipe, such as `variants.nf4[0].quantize.bits`.
        text: a scalar as it was written, for messages and for the names that sweeps build.
        style: "plain" or "quoted" for scalars, "flow" ({…}, […]) or "block" for lists and mappings.
        keys: line and column of each key of a mapping.
        size: number of values in the tree, itself included (see `_size`); bounds what aliases and sweeps can multiply.
        setting: the `path=value` of the command line that the value comes from; empty for a value of the file.
    """

    value: Scalar | list[Located] | dict[str, Located]
    line: int
    column: int
    path: str
    text: str = ""
    style: str = "plain"
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    size: int = 1
    setting: str = ""

    @property
    def mapping(self) -> dict[str, Located]:
        """The entries if this is a mapping, else none."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> list[Located]:
        """The elements if this is a list, else none."""
        return self.value if isinstance(self.value, list) else []

    @property
    def has_gap(self) -> bool:
        """Whether nothing stands here or directly below, which the reader has already complained about."""
        return self.value is None or any(child.value is None for child in [*self.mapping.values(), *self.items])

    def data(self) -> object:
        """The bare values: nothing but what JSON has."""
        if isinstance(self.value, dict):
            return {key: child.data() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.data() for child in self.value]
        return self.value

    def problem(self, message: str) -> Problem:
        """A complaint about this value."""
        return Problem(self.line, self.column, self.path, message, self.setting)

    def key_problem(self, key: str, message: str) -> Problem:
        """A complaint about a key of this mapping."""
        line, column = self.keys.get(key, (self.line, self.column))
        if key not in self.mapping:
            return Problem(line, column, join(self.path, key), message, self.setting)
        return Problem(line, column, self.mapping[key].path, message, self.mapping[key].setting)


def join(path: str, key: str | int) -> str:
    """The path of an entry of a mapping or a list."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    plain = key if _PLAIN_KEY.fullmatch(key) else shown(key)
    return f"{path}.{plain}" if path else plain


def shown(value: object, limit: int = 60) -> str:
    """A value in quotes on one line, cut if it is long."""
    words = repr(value) if not isinstance(value, str) or value.isprintable() else _quoted(value)
    return words if len(words) <= limit else f"{words[: limit - 4]}…{words[-1]}"


def _quoted(text: str) -> str:
    """A text in quotes, with escapes for line breaks, tabs, and what is not printed."""
    escaped = "".join(ascii(letter)[1:-1] if letter in "\\\n\t" or unprintable(letter) else letter for letter in text)
    return f'"{escaped}"' if "'" in escaped else f"'{escaped}'"


def relocate(node: Located, path: str) -> Located:
    """The same tree under another path; lines and columns stay, since that is where a mistake has to be corrected."""
    if isinstance(node.value, dict):
        return replace(node, path=path, value={key: relocate(child, join(path, key)) for key, child in node.value.items()})
    if isinstance(node.value, list):
        return replace(node, path=path, value=[relocate(child, join(path, i)) for i, child in enumerate(node.value)])
    return replace(node, path=path)


def brought_by(node: Located, setting: str, line: int, column: int) -> Located:
    """The same tree as brought in by a setting of the command line, in the place of what stood in a line of the file."""
    value = node.value
    if isinstance(value, dict):
        value = {key: brought_by(child, setting, line, column) for key, child in value.items()}
    elif isinstance(value, list):
        value = [brought_by(child, setting, line, column) for child in value]
    return replace(node, value=value, line=line, column=column, keys=dict.fromkeys(node.keys, (line, column)), setting=setting)


class _UnreadableError(Exception):
    """The file cannot be read any further."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.message)


def parse(text: str) -> tuple[Located | None, list[Problem]]:
    """The tree of a YAML text and everything that is wrong with it as YAML. The tree is `None` if it could not be read."""
    reader = _Reader(text)
    try:
        return reader.document(), reader.problems
    except _UnreadableError as stop:
        return None, [*reader.problems, stop.problem]
    except yaml.MarkedYAMLError as error:
        found = _syntax(text, error)
        # PyYAML often stumbles over what the reader has just explained in better words.
        explained = {problem.line for problem in reader.problems}
        return None, [*reader.problems, *(problem for problem in found if problem.line not in explained)]
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        return None, [Problem(line, column, "", "a character that YAML does not allow (a control character?); remove it")]
    except (yaml.YAMLError, ValueError, OverflowError):  # PyYAML lets chr() fail on an escape such as \UFFFFFFFF
        return None, [*reader.problems, Problem(reader.line, 1, "", "this is not valid YAML; look at the escapes in quoted text")]


def _syntax(text: str, error: yaml.MarkedYAMLError) -> list[Problem]:
    """A syntax error in words; if lines are indented by tabs, those lines are the cause."""
    tabs = [number for number, line in enumerate(text.splitlines(), start=1) if "\t" in line[: len(line) - len(line.lstrip())]]
    if tabs:
        return [Problem(number, 1, "", "this line is indented with a tab; YAML takes spaces only") for number in tabs[:20]]
    mark = error.problem_mark or error.context_mark
    what = " ".join((error.problem or error.context or "it cannot be read").split())
    start = error.context_mark
    inside = f", {' '.join(error.context.split())} that began in line {start.line + 1}" if error.context and start else ""
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return [Problem(line, column, "", f"this is not valid YAML: {what}{inside}; look at indentation, colons, brackets and quotes")]


def _place(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _size(text: str) -> int:
    """Long texts count as several values: an alias repeats them just as well."""
    return 1 + len(text) // 100


def _height(node: Located) -> int:
    return 1 + max(map(_height, [*node.mapping.values(), *node.items]), default=0)


class _Reader:
    """Builds the tree from events; collects what can be collected and stops at what cannot be read."""

    def __init__(self, text: str) -> None:
        self.events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self.problems: list[Problem] = []
        self.anchors: dict[str, Located] = {}
        self.nodes = 0
        self.line = 1

    def document(self) -> Located | None:
        """The first document; a second one is refused."""
        root = None
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise _UnreadableError(self._at(event, "", "a second document begins; a recipe is one document, so remove '---'"))
                root = self._node(next(self.events), "", 0)
        return root

    def _at(self, event: yaml.Event, path: str, message: str) -> Problem:
        return Problem(*_place(event), path, message)

    def _spend(self, event: yaml.Event, path: str, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            message = f"more than {MAX_NODES} values (aliases count as often as they stand); make the recipe smaller"
            raise _UnreadableError(self._at(event, path, message))

    def _node(self, event: yaml.Event, path: str, depth: int) -> Located:
        self.line = _place(event)[0]
        if depth > MAX_DEPTH:
            raise self._too_deep(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path, depth)
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent), event
        self._spend(event, path, _size(event.value) if isinstance(event, yaml.ScalarEvent) else 1)
        if event.tag is not None:
            self.problems.append(self._at(event, path, f"the YAML tag {shown(event.tag)} is not part of a recipe; remove it"))
        if isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(event, path, depth)
        else:
            node = self._mapping(event, path, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        return node

    def _alias(self, event: yaml.AliasEvent, path: str, depth: int) -> Located:
        target = self.anchors.get(event.anchor or "")
        if target is None:
            message = f"the alias {shown(f'*{event.anchor}')} refers to no value that ends before it; define the anchor (&) first"
            raise _UnreadableError(self._at(event, path, message))
        self._spend(event, path, target.size)
        if depth + _height(target) > MAX_DEPTH:
            raise self._too_deep(event)
        return relocate(target, path)

    def _too_deep(self, event: yaml.Event) -> _UnreadableError:
        return _UnreadableError(self._at(event, "", f"nested more than {MAX_DEPTH} levels deep; a recipe needs no more than ten"))

    def _sequence(self, event: yaml.SequenceStartEvent, path: str, depth: int) -> Located:
        children: list[Located] = []
        while not isinstance(following := next(self.events), yaml.SequenceEndEvent):
            children.append(self._node(following, join(path, len(children)), depth + 1))
            if children[-1].value is None:
                self.problems.append(children[-1].problem("nothing stands here; give a value or remove the entry"))
        style = "flow" if event.flow_style else "block"
        return Located(children, *_place(event), path, style=style, size=1 + sum(child.size for child in children))

    def _mapping(self, event: yaml.CollectionStartEvent, path: str, depth: int) -> Located:
        children: dict[str, Located] = {}
        keys: dict[str, tuple[int, int]] = {}
        while not isinstance(following := next(self.events), yaml.MappingEndEvent):
            key = self._key(following, path, depth)
            value = self._node(next(self.events), join(path, key) if key is not None else path, depth + 1)
            if key is None:
                continue
            if key in children:
                message = f"the key {shown(key)} stands twice, first in line {keys[key][0]}; remove one of the two"
                self.problems.append(self._at(following, value.path, message))
                continue
            children[key] = value
            keys[key] = _place(following)
        style = "flow" if event.flow_style else "block"
        size = 1 + sum(child.size for child in children.values())
        node = Located(children, *_place(event), path, style=style, keys=keys, size=size)
        self._complain_about_gaps(node)
        return node

    def _complain_about_gaps(self, node: Located) -> None:
        """No field of a recipe may be null, so a key with nothing behind it is a mistake wherever it stands."""
        for key, child in node.mapping.items():
            if child.value is not None:
                continue
            if node.style == "flow" and len(node.mapping) == 1 and child.text == "" and KEY_NAME.fullmatch(key):
                message = f'{{{key}}} is a mapping without a value; write {{{key}: …}}, or "{{{key}}}" in quotes for a placeholder'
                self.problems.append(node.problem(message))
            else:
                self.problems.append(node.key_problem(key, "nothing stands here; give a value or remove the key"))

    def _key(self, event: yaml.Event, path: str, depth: int) -> str | None:
        """The key, or `None` if the entry has no key to go by."""
        said = len(self.problems)
        node = self._node(event, path, depth + 1)
        if isinstance(node.value, list | dict):
            del self.problems[said:]
            message = "a list or a mapping stands where a key belongs; if it is a name with {…}, put it in quotes"
            self.problems.append(self._at(event, path, message))
            return None
        if isinstance(event, yaml.ScalarEvent) and node.style == "plain" and node.text == "<<":
            message = "merging with '<<' is not part of a recipe; write the keys out, or put the whole value behind an alias (&name, *name)"
            self.problems.append(self._at(event, path, message))
            return None
        if not isinstance(node.value, str):
            if node.value is None:
                self.problems.append(self._at(event, path, f"the key {shown(node.text)} means nothing to YAML; give it a name"))
                return None
            kind = "a yes/no value" if isinstance(node.value, bool) else "a number"
            message = f"the key {node.text} is {kind} to YAML; put it in quotes ('{node.text}') or begin it with a letter"
            self.problems.append(self._at(event, path, message))
            return node.text
        return node.value

    def _scalar(self, event: yaml.ScalarEvent, path: str) -> Located:
        quoted = not event.implicit[0]  # implicit[0]: written without quotes and without a tag
        text: str = event.value
        node = Located(text, *_place(event), path, text, "quoted" if quoted else "plain", size=_size(text))
        if unprintable(text):
            self.problems.append(node.problem(f"{shown(text)} holds an unprintable character; remove it"))
            return replace(node, value="".join("?" if unprintable(letter) else letter for letter in text))
        if quoted:
            return node
        value = resolve(text)
        if isinstance(value, float) and not math.isfinite(value):
            self.problems.append(node.problem(f"{shown(text, 30)} is not a finite number; give one"))
            return replace(node, value=1.0)
        if isinstance(value, int) and abs(value) > _LARGEST:
            self.problems.append(node.problem(f"{shown(text, 30)} is too large; give a number below {_LARGEST}"))
            return replace(node, value=1)
        return replace(node, value=value)


def resolve(text: str) -> Scalar:
    """The value of a scalar without quotes."""
    if text in _NULL:
        return None
    if text in {text.lower(), text.capitalize(), text.upper()} and text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    if _INTEGER.fullmatch(text):
        digits = text.replace("_", "")
        # Python refuses to read thousands of digits; any number beyond the limit is refused by the reader anyway.
        return int(digits) if len(digits) < 40 else _LARGEST + 1
    if _HEXADECIMAL.fullmatch(text):
        return int(text, 16)
    if _FLOAT.fullmatch(text) and not re.match(r"[-+]?0[0-9_]", text):
        return float(text.replace("_", ""))
    if _NOT_FINITE.fullmatch(text):
        return math.inf
    return text
