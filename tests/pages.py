"""The pages of the repository as tests read them: blocks of code, commands, links, headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
FIRST_STUDY = ROOT / "docs" / "first-study.md"
PAGES = (README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "reports" / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.M | re.S)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [code for name, code in FENCED.findall(page.read_text(encoding="utf-8")) if name == language]


def commands(page: Path) -> Iterator[list[str]]:
    """The commands of the console blocks as a shell would split them, without comments."""
    for block in blocks(page, "console"):
        for line in block.splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def of_compresslab(page: Path) -> Iterator[list[str]]:
    """The arguments of the commands that call `compresslab`."""
    for program, *arguments in commands(page):
        if program in ("compresslab", ".venv/bin/compresslab"):
            yield arguments


def headings(page: Path) -> list[str]:
    """A page's headings as links name them."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", text, re.M)]


def links(page: Path) -> list[str]:
    """The links of a page to other places of the repository."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith(("http:", "https:"))]
