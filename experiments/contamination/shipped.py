"""Which items of the tasks of the shipped recipes are in the texts that those recipes name.

    python experiments/contamination/shipped.py

A source is compared as a whole, which is more than a study reads of it. Texts of the hub and lm-eval's own tasks are not on every machine;
what was not compared is named. `--plant` adds the first item of each task to the text: it must be found.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from compresslab.catalog.olmes import is_olmes
from compresslab.evaluation import olmes_requests
from compresslab.evaluation.overlap import ItemText, overlapping, words
from compresslab.methods.registry import method_of
from compresslab.models.text import documents
from compresslab.recipe.load import load
from compresslab.recipe.schema import Recipe

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Print a line for each recipe, and a table for each text."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--plant", action="store_true", help="add the first item of each task to each text")
    plant = parser.parse_args().plant
    tasks: dict[str, set[str]] = {}
    paths = [*ROOT.glob("recipes/**/*.yaml"), *ROOT.glob("experiments/*/recipe.yaml")]
    for path in sorted(paths):
        recipe, name = load(path), str(path.relative_to(ROOT))
        sources = {} if recipe.evaluate.source == "published" else sources_of(recipe)
        if not sources:
            print(f"{name}: no step reads text: nothing to compare")
        for source, roles in sources.items():
            here = not source.startswith("hub:")
            print(f"{name}: {' and '.join(roles)} text {source}{'' if here else ': of the hub, not compared'}")
            if here:
                tasks.setdefault(source, set()).update(recipe.evaluate.tasks)
    for source, names in tasks.items():
        compare(source, sorted(names), plant)


def sources_of(recipe: Recipe) -> dict[str, list[str]]:
    """The sources that the steps of a recipe read, each with what for."""
    found: dict[str, list[str]] = {}
    for step in (step for variant in recipe.variants.values() for step in variant.steps):
        role = method_of(step.kind, step.config).text
        if role is not None:
            source = recipe.text.calibration.source if role == "calibration" else recipe.text.training.source
            if role not in found.setdefault(source, []):
                found[source].append(role)
    return found


def compare(source: str, names: list[str], plant: bool) -> None:
    """Print how many items of the tasks share words with a source."""
    items = {name: items_of(name) for name in names if is_olmes(name)}
    count = {"documents": 0, "characters": 0, "words": 0}

    def counted() -> Iterator[str]:
        planted = [found[0].prompt.rpartition("\n\n")[2] + found[0].options[found[0].gold] for found in items.values()] if plant else []
        for document in (*planted, *documents(source, 0)):
            for unit, number in (("documents", 1), ("characters", len(document)), ("words", len(words(document)))):
                count[unit] += number
            yield document

    found = overlapping(items, counted())
    print(f"\n{source}: {', '.join(f'{number:,} {unit}' for unit, number in count.items())}")
    for name in names:
        if name not in found:
            print(f"  {name}: not of OLMES, not compared")
            continue
        rows = found[name]
        print(
            f"  {name}: of {len(items[name]):,} items {len(rows.long)} share 13 words with it, {len(rows.short)} share 8, "
            f"{len(rows.too_few_words)} have too few words"
        )
        for row in rows.short[:5]:
            item = items[name][row]
            print(f"    {item.item}: {' '.join(item.prompt.rpartition(chr(10) * 2)[2].split())[:160]} {item.options[item.gold][:80]}")


def items_of(task: str) -> list[ItemText]:
    """The items of an OLMES task."""
    found = []
    for item in olmes_requests.load(task):
        contexts = [context for context, _ in item.requests]
        prompt = os.path.commonprefix(contexts)  # noqa: RUF071 - of strings, not of paths
        found.append(ItemText(item.id, prompt, [context[len(prompt) :] + answer for context, answer in item.requests], item.gold))
    return found


if __name__ == "__main__":
    main()
