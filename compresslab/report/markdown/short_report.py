"""`report.md`: a study's answer, its table, its caveats and its command, for an issue or a pull request."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator

from compresslab.printable import printable
from compresslab.records import Comparison, StudyRecord, VariantRecord
from compresslab.report import facts, words
from compresslab.report.answer import answer
from compresslab.report.extent.altered import altered, changes_of
from compresslab.report.extent.basis import basis
from compresslab.report.overwriting import MARKDOWN_MARK
from compresslab.report.picking.quantities import accuracy_change, memory_at_inference

# What Markdown or HTML inside it would read as markup, and the borders of a table's cell.
_MARKUP = re.compile(r"([\\`*_\[\]<>|~@#$&])")
Cell = Callable[[VariantRecord], str]


def short_report(study: StudyRecord) -> str:
    """The study in Markdown (GitHub's, with tables)."""
    found, changed = answer(study), altered(study).sentence
    parts = [MARKDOWN_MARK, f"# {_text(study.study)}"]
    if study.question:
        parts.append(f"_{_text(study.question)}_")
    if changed:
        parts.append(f"> **Not the recipe as it is written:** {_text(changed)}")
    waiting = sum(facts.is_pending(variant) for variant in study.variants)
    if waiting:
        parts.append(f"> **Unfinished:** {waiting} of {len(study.variants)} variants are pending.")
    parts.append(f"**{words.SYMBOLS.get(found.verdict, '')} {_text(found.headline)}**".replace("** ", "**"))
    if rests_on := basis(study):
        parts.append(_text(rests_on))
    parts.append("\n".join(_table(study)))
    caveats = [*study.caveats, *(line for line in found.details if line.startswith("⚠"))]
    if caveats:
        parts.append("\n".join(f"- {_text(caveat)}" for caveat in caveats))
    parts.append(f"```console\n{printable(_command(study))}\n```")
    return "\n\n".join(parts) + "\n"


def _command(study: StudyRecord) -> str:
    """The command line of the run."""
    changes = changes_of(study.recipe, study.provenance.recipe_sha256)[0]
    options = [("--set", setting) for setting in changes.settings] + [("--only", name) for name in changes.only]
    return shlex.join(["compresslab", "run", study.provenance.recipe_path, *(text for option in options for text in option)])


def _table(study: StudyRecord) -> Iterator[str]:
    """The variants with those quantities that some of them have. Steps inside a chain and replicates are on the page alone."""
    tasks, by_name = facts.shared_tasks(study), {variant.name: variant for variant in study.variants}

    def compared(variant: VariantRecord) -> Comparison | None:
        return facts.comparison_with(variant, "parent") if variant.parent else None

    def verdict(variant: VariantRecord) -> str:
        if facts.is_pending(variant):
            return "pending"
        if variant.failures:
            return "failed"
        comparison = compared(variant)
        ratio, said = comparison.headline if comparison else (None, "")
        return f"{words.SYMBOLS[said]} {said} {words.place(comparison)}" if comparison and ratio else ""

    def ratio(variant: VariantRecord) -> str:
        comparison = compared(variant)
        found = comparison.headline[0] if comparison else None
        return f"{words.point(found)} {words.span(found, 2)}{' †' if found.extrapolated else ''}" if found else ""

    def stored(variant: VariantRecord) -> str:
        return words.size(variant.size.stored_bytes) if variant.size and facts.was_built(variant, by_name) else ""

    def change(variant: VariantRecord) -> str:
        found = accuracy_change(variant, "root", tasks)
        return words.points(found) if found else ""

    def known(value: float | None, form: Callable[[float | None], str]) -> str:
        return "" if value is None else form(value)

    columns: dict[str, Cell] = {
        "parent": lambda variant: variant.parent,
        "verdict": verdict,
        "r to parent": ratio,
        "accuracy": lambda variant: known(facts.mean_accuracy(variant, tasks), words.percent),
        "against the base": change,
        "bpb": lambda variant: known(facts.mean_bpb(variant, tasks), words.number),
        "stored": stored,
        "memory": lambda variant: known(memory_at_inference(variant, study), words.size),
    }
    shown = [variant for variant in study.variants if (variant.named or not variant.parent) and not variant.replicate_of]
    cells = {name: [cell(variant) for variant in shown] for name, cell in columns.items()}
    there = [name for name, texts in cells.items() if any(texts)]
    yield f"| variant | {' | '.join(there)} |"
    yield f"|---|{'---|' * len(there)}"
    for place, variant in enumerate(shown):
        yield f"| {' | '.join([_text(variant.name), *(_text(cells[name][place]) or words.MISSING for name in there)])} |"
    if any("†" in text for text in cells["r to parent"]):
        yield "\n† read off the reference outside its fitted sizes, a rough figure."


def _text(text: str) -> str:
    """A text as one line that Markdown shows as it is."""
    return _MARKUP.sub(r"\\\1", printable(" ".join(text.split())))
