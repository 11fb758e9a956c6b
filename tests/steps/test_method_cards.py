"""docs/method-cards.md has a card for every method, and no card can say of the code what the code does not.

What a method does, its paper, when it fails and what it costs are written by hand, there and nowhere else. What the registry, the schema
and the tables of docs/methods.md know stands in each card between two comments: `python tests/steps/test_method_cards.py` writes it
again. A new method's card begins as a copy of another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compresslab.methods.method import Method, names_of
from compresslab.methods.registry import METHODS
from compresslab.plan.packages import EXTRAS
from compresslab.recipe.steps import STEP_KINDS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "compresslab"
DOCS = ROOT / "docs"
PAGE = DOCS / "method-cards.md"
START, END = "<!-- generated -->\n", "<!-- end of what is generated -->\n"
CARD = re.compile(r"^## (.+)\n((?:(?!## ).*\n)*)", re.M)
BLOCK = re.compile(f"{START}.*?{END}", re.S)
PARTS = ("What", "Paper", "When it fails", "Cost")
GATHERED = {
    "activations": "the norms of the inputs of its linear layers and how much each layer changes",
    "grams": "the norms and the second moments of the inputs of its linear layers",
}
# Rooms that implement methods; other rooms cite papers on density and on scores.
CITING = ("algorithms", "models", "steps")
# Small whole numbers are settings and counts; anything longer, and anything in seconds, was measured somewhere.
FIGURE = re.compile(r"\d[\d.,]+\d|\d+(?= s\b)")


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def cards() -> list[tuple[str, str]]:
    """Heading and body of each card."""
    return CARD.findall(page())


def name_of(entry: Method[Any]) -> str:
    """What a method's card is headed."""
    return f"{entry.kind} {entry.name}"


def block(entry: Method[Any]) -> str:
    """The lines of a card that code and tables know, between their comments."""
    return START + "\n".join([_settings(entry), _reads(entry), _writes(entry), *_serves(entry), ""]) + END


def _settings(entry: Method[Any]) -> str:
    schema = entry.config
    summary = " ".join((schema.__doc__ or "").split("\n\n")[0].split())
    fields = _listed([field for field in schema.model_fields if field != "method"])
    names = ", ".join(names_of(schema))
    heading = f"a step: {entry.kind}" if entry.kind == "adopt" else f"a step: {entry.kind} {names}"
    return f"- **Settings**: {summary} Fields: {fields}; see [recipe.md](recipe.md#{_anchor(heading)})."


def _reads(entry: Method[Any]) -> str:
    fields = entry.config.model_fields
    parts = {None: [], "calibration": ["the calibration text"], "training": ["`tokens` tokens of the training text"]}[entry.text]
    if entry.statistics is not None:
        parts = [f"{parts[0]}, for {GATHERED[entry.statistics]} (one pass for all variants that start from the same model)"]
    parts += ["the model that `teacher` names"] if "teacher" in fields else []
    parts += ["with `until` the model whose loss it names"] if "until" in fields else []
    return f"- **Reads**: {'; '.join(parts) or 'no text'}."


def _writes(entry: Method[Any]) -> str:
    if entry.packs:
        stored, kernel = _format(entry)
        refused = ", ".join(kind for kind in STEP_KINDS if kind != "adopt")
        form = f"packed weights that no later step can change ({refused} refuse them). Format: {stored}. Kernel: {kernel}."
    elif entry.kind == "adopt":
        form = "the model as it is; what may follow is what may follow that model."
    else:
        form = "plain weights, which any later step can change."
    return f"- **Writes**: {form}{''.join(f' {sentence}' for sentence in _packages(entry))}"


def _packages(entry: Method[Any]) -> Iterator[str]:
    if own := [library for library in entry.libraries if library not in EXTRAS]:
        yield f"Uses {' and '.join(own)}, installed with compresslab."
    for library in entry.libraries:
        if library in EXTRAS:
            yield f"Needs {library}: `pip install 'compresslab[{EXTRAS[library]}]'`."


def _format(entry: Method[Any]) -> tuple[str, str]:
    """In which format packed weights are stored and what multiplies by them, from the table in docs/methods.md."""
    rows = [row for row in _rows("Quantize") if f"`{entry.name}`" in row[0]]
    assert len(rows) == 1, f"docs/methods.md should have one row on {entry.name} under Quantize"
    return rows[0][2], rows[0][3]


def _serves(entry: Method[Any]) -> Iterator[str]:
    """Which architectures the contract suite's table in docs/methods.md says yes to, and the others with the refusals."""
    head, *rows = _rows("What serves what")
    own = {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows if row[0].split()[0] == entry.name}
    suite = "[contract suite](methods.md#what-serves-what)"
    if not own:
        assert entry.kind == "adopt", f"docs/methods.md should have a row on {entry.name} under What serves what"
        return
    # Each begins with the name of the architecture or of the method, which the card has already.
    reasons = dict(re.findall(r"^(\d+)\. [\w-]+: (.+)$", _section("What serves what"), re.M))
    refused: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for setting, cells in own.items():
        for number in dict.fromkeys(cell for cell in cells.values() if cell != "yes"):
            names = tuple(name for name, cell in cells.items() if cell == number)
            refused.setdefault((number, names), []).append(setting)
    if not refused:
        yield f"- **Serves**: all {len(head) - 1} architectures of the {suite}."
        return
    yield f"- **Serves**: of the {len(head) - 1} architectures of the {suite} all but these:"
    for (number, names), settings in refused.items():
        which = f" ({_listed(settings)})" if len(settings) < len(own) else ""
        yield f"  - {', '.join(names)}{which}: {reasons[number]}"


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _section(title: str) -> str:
    """A section of docs/methods.md."""
    return (DOCS / "methods.md").read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def _rows(title: str) -> list[list[str]]:
    """The cells of the table in a section of docs/methods.md, its head first."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in _section(title).splitlines() if line.startswith("| ")]
    assert rows, f"docs/methods.md should have a table under {title}"
    return rows


def _anchor(heading: str) -> str:
    """How a heading is linked to."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def by_hand(text: str) -> str:
    """A text without what is generated."""
    return BLOCK.sub("", text)


def written() -> str:
    """The page with all that is generated as it should be."""
    entries = {name_of(entry): entry for entry in METHODS}

    def anew(card: re.Match[str]) -> str:
        return BLOCK.sub(lambda _: block(entries[card[1]]), card[0]) if card[1] in entries else card[0]

    return CARD.sub(anew, page())


def sources(*rooms: str) -> str:
    """The code of some rooms, or of all."""
    return "\n".join(path.read_text(encoding="utf-8") for room in rooms or ("",) for path in sorted((PACKAGE / room).rglob("*.py")))


def test_every_method_has_one_card_and_no_other_has_one() -> None:
    assert [heading for heading, _ in cards()] == [name_of(entry) for entry in METHODS]


@pytest.mark.parametrize("entry", METHODS, ids=name_of)
def test_what_code_and_tables_know_is_what_they_say(entry: Method[Any]) -> None:
    assert BLOCK.findall(dict(cards())[name_of(entry)]) == [block(entry)], "python tests/steps/test_method_cards.py writes it again"


@pytest.mark.parametrize("entry", METHODS, ids=name_of)
def test_a_card_has_all_its_parts_once(entry: Method[Any]) -> None:
    body = by_hand(dict(cards())[name_of(entry)])
    found = re.findall(r"^- \*\*(.+?)\*\*:(.*?)(?=^- \*\*|\Z)", body, re.M | re.S)
    assert [title for title, _ in found] == list(PARTS)
    assert [title for title, said in found if not said.strip()] == []


def test_links_lead_to_papers_and_to_pages_of_the_project() -> None:
    for link in re.findall(r"\]\((.+?)\)", page()):
        if link.startswith("http"):
            assert re.fullmatch(r"https://arxiv\.org/abs/\d{4}\.\d{5}", link), link
            continue
        name, _, anchor = link.partition("#")
        target = PAGE.parent / name if name else PAGE
        assert target.is_file(), link
        headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.M)
        assert not anchor or anchor in map(_anchor, headings), link


def test_the_papers_are_those_that_the_code_names() -> None:
    assert set(re.findall(r"arxiv\.org/abs/([\d.]+)", page())) == set(re.findall(r"arXiv\s+(\d{4}\.\d{5})", sources(*CITING)))


def test_messages_in_quotes_are_the_codes_own() -> None:
    code = sources()
    quoted = [" ".join(words.split()) for words in re.findall(r'"([^"]+)"', by_hand(page()))]
    assert [words for words in quoted if words not in code] == []
    assert quoted


def test_figures_are_those_that_were_measured() -> None:
    """Machine and date of a figure stand in docs/measurements.md or with its experiment; a new measurement changes both."""
    measured = [DOCS / "measurements.md", DOCS / "methods.md", *sorted((ROOT / "experiments").glob("*/README.md"))]
    known = set(FIGURE.findall("\n".join(path.read_text(encoding="utf-8") for path in measured)))
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)", "", by_hand(page()))
    assert sorted(set(FIGURE.findall(prose)) - known) == []


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
