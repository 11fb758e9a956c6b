"""The documents of `installed-docs`: CPython's help topics and the docstrings of installed packages, each once, in parts."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator
from importlib import util
from itertools import chain
from pathlib import Path

from compresslab.recipe.source import ALL_PARTS, DOCSTRING_PACKAGES

SHORTEST = 400  # characters of a document
# Words of a paragraph that is a repetition. Shorter ones (headings, the name of a parameter) are common phrases.
SHARED_WORDS = 12
PARAGRAPHS = re.compile(r"\n\s*\n")


def installed_documents(part: str) -> Iterator[list[str]]:
    """The documents of a part: the help topics first, then the docstrings of each package.

    A hash of a document's words decides its part, so no two parts share a document, and the order in which documents are read does not
    matter. A paragraph of `SHARED_WORDS` words or more that an earlier document has is left out: help topics repeat the sections of others,
    docstrings the parameters of others, and what is held out would be read in training.
    """
    seen: set[str] = set()
    # Lazily: the docstrings of all packages take a minute to read, and few texts need them.
    for texts in chain([_help_topics()], map(_docstrings, DOCSTRING_PACKAGES)):
        yield [text for text, own in _without_repetitions(texts, seen) if part in (ALL_PARTS, own)]


def part_of(text: str) -> str:
    """The part of a document: a tenth of all are held out, a tenth are for calibration, the others for training."""
    tenth = int(hashlib.sha256(_words(text).encode()).hexdigest(), 16) % 10
    return {0: "held-out", 1: "calibration"}.get(tenth, "training")


def _without_repetitions(texts: Iterable[str], seen: set[str]) -> Iterator[tuple[str, str]]:
    """Each document without the paragraphs that are `seen`, to which its own are added, and its part. What is left may be too short."""
    for text in texts:
        kept = []
        for paragraph in PARAGRAPHS.split(text):
            words = _words(paragraph)
            if words.count(" ") + 1 < SHARED_WORDS:
                kept.append(paragraph)
            elif words not in seen:
                seen.add(words)
                kept.append(paragraph)
        if len(left := "\n\n".join(kept)) >= SHORTEST:
            yield left, part_of(text)


def _words(text: str) -> str:
    """The words of a text, without case, punctuation and layout."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _help_topics() -> list[str]:
    """CPython's help topics: 465 kB of English prose in every installation."""
    from pydoc_data.topics import topics

    return [topics[name] for name in sorted(topics)]


def _docstrings(package: str) -> list[str]:
    """Long docstrings of an installed package, read from its source files without importing it."""
    spec = util.find_spec(package)
    if spec is None or spec.origin is None:
        return []
    found: list[str] = []
    folder = Path(spec.origin).parent
    for path in sorted(folder.rglob("*.py")):
        if "tests" in path.relative_to(folder).parts:  # wherever the package itself lies
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node)
                if text and len(text) >= SHORTEST:
                    found.append(text)
    return found
