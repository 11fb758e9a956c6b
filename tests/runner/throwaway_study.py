"""Run by a test in a process that finds the throw-away package: plan, refuse, run and report a study with its quantizer.

Arguments: the recipe, and a folder for the store and the report. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from guard.emulation import watch_workers

import compresslab
from compresslab.errors import RecipeError
from compresslab.plan.estimate import estimate
from compresslab.plan.prepare import prepare
from compresslab.recipe.changes import NO_CHANGES


def refused(recipe: Path, old: str, new: str) -> str:
    """What is said of the recipe with another line."""
    changed = recipe.with_name("refused.yaml")
    changed.write_text(recipe.read_text().replace(old, new))
    try:
        prepare(changed, NO_CHANGES)
    except RecipeError as error:
        return str(error)
    return ""


def main() -> None:
    recipe, folder = Path(sys.argv[1]), Path(sys.argv[2])
    plan = prepare(recipe, NO_CHANGES)
    said = {
        "heavy": [name for name in ("torch", "transformers") if name in sys.modules],
        "estimates": {node.label: estimate(node, plan)._asdict() for node in plan.nodes},
        "keys": {variant.name: variant.model for variant in plan.variants},
        "trained": refused(recipe, "levels: 127}}]", "levels: 127}}, {retrain: {method: full, tokens: 64}}]"),
        "unknown": refused(recipe, "method: coarse,", "method: coarsee,"),
        "setting": refused(recipe, "levels: 127", "levels: 9"),
        "broken": refused(recipe, "method: coarse,", "method: nowhere,"),
    }
    if sys.argv[3:] != ["plan"]:
        record = compresslab.run_study(recipe, store=folder / "store")
        page = compresslab.write_report(record, folder / "report")
        said |= {"record": record.model_dump(mode="json"), "page": str(page)}
    print(json.dumps(said))


if __name__ == "__main__":
    watch_workers()
    main()
