"""docs/recipe.md tells of every field what the schema says of it.

`python tests/recipe/test_recipe_reference.py` writes it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from compresslab.methods.distill import Distill
from compresslab.methods.registry import configs
from compresslab.methods.settings import Optimizer, StepConfig, Strict
from compresslab.recipe import schema, steps
from compresslab.recipe.schema import Calibration, Packing
from compresslab.recipe.steps import Step

DOCS = Path(__file__).parents[2] / "docs" / "recipe.md"
START, END = "<!-- generated from the schema -->\n", "<!-- end of what is generated -->\n"
PLACES: list[tuple[str, type[BaseModel]]] = [
    ("the recipe", schema.Recipe),
    ("base", schema.Base),
    ("text", schema.Text),
    ("text.calibration", schema.Calibration),
    ("text.training", schema.Training),
    ("variants.NAME", schema.Variant),
    ("sweeps.NAME", schema.Sweep),
    ("a step", Step),
    *((f"a step: {kind}", config) for kind in steps.STEP_KINDS for config in configs(kind)),
    ("optimizer of distill and retrain", Optimizer),
    ("evaluate", schema.Evaluate),
    ("evaluate.fidelity", schema.FidelityText),
    ("density", schema.DensityConfig),
    ("density.workload", schema.Workload),
]


def reference() -> str:
    """Every place of a recipe with what may stand there."""
    return "\n".join(_section(place, model) for place, model in PLACES)


def _section(place: str, model: type[BaseModel]) -> str:
    fields = model.model_json_schema()["properties"]
    required = model.model_json_schema().get("required", [])
    methods = fields.get("method", {})
    names = methods.get("enum", [methods["const"]] if "const" in methods else [])
    title = f"{place} {', '.join(names)}".strip()
    docstring = "\n\n".join(" ".join(part.split()) for part in (model.__doc__ or "").split("\n\n"))
    rows = [f"| `{name}` | {_words(field)} | {_default(field, name in required)} |" for name, field in fields.items()]
    return "\n".join([f"## {title}", "", docstring, "", "| field | what may stand there | default |", "|---|---|---|", *rows, ""])


def _words(field: dict[str, Any]) -> str:
    """A field's JSON schema in words."""
    if "description" in field and "pattern" in field:
        return str(field["description"])
    if options := [option for option in field.get("anyOf", field.get("oneOf", [])) if option.get("type") != "null"]:
        return " or ".join(dict.fromkeys(_words(option) for option in options))
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if "$ref" in field:
        return f"see {field['$ref'].rsplit('/', 1)[-1]}" if "Step" in field["$ref"] else "a mapping, see below"
    kind = field.get("type")
    if kind == "array":
        return f"a list: {_words(field['items'])}" if field.get("items") else "a list"
    if kind == "object":
        return "a mapping from names, see below"
    if kind in ("integer", "number"):
        return " ".join(["a whole number" if kind == "integer" else "a number", *_bounds(field)])
    return {"string": "text", "boolean": "`true` or `false`"}.get(str(kind), "any value")


def _bounds(field: dict[str, Any]) -> Iterator[str]:
    for name, word in (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"), ("exclusiveMaximum", "below")):
        if name in field:
            yield f"{word} {field[name]:g}" if field[name] < 1e6 else f"{word} {field[name]}"


def _default(field: dict[str, Any], required: bool) -> str:
    if required:
        return "must be given"
    value = field.get("default")
    if isinstance(value, dict):
        return "its own defaults"
    return "" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def test_the_recipe_reference_is_what_the_schema_says() -> None:
    written = DOCS.read_text(encoding="utf-8").partition(START)[2].partition(END)[0]
    assert written == reference(), "python tests/recipe/test_recipe_reference.py writes it again"


def test_no_part_of_the_schema_is_left_out() -> None:
    told = {model for _, model in PLACES}
    waiting, found = [Strict], set()
    while waiting:
        found |= (new := set(waiting.pop().__subclasses__()) - found)
        waiting += new
    ours = {model for model in found if model.__module__.startswith("compresslab.")} - {StepConfig, Step, Packing}
    assert {Calibration, Optimizer, Distill} <= ours
    assert {model.__name__ for model in ours - told} == set()


if __name__ == "__main__":
    text = DOCS.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    DOCS.write_text(before + START + reference() + END + rest.partition(END)[2], encoding="utf-8")
