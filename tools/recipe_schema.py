"""The JSON schema of recipes, made from the recipe's own models: `python -m tools.recipe_schema` writes the file that ships.

Editors complete and check with it while a recipe is typed. It says what JSON schema can say: which keys there are, which must be given,
and which values they take. Rules between values, and names that must exist, are for `compresslab validate`.

Two things differ from what pydantic makes. Editors read YAML 1.2, where `60_000` and `yes` are texts, so numbers and booleans may be such
texts. The steps of a sweep may have a placeholder, `"{keep}"`, in the place of any value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from compresslab.catalog.recipes import SCHEMA_URL, schema_path
from compresslab.methods.registry import METHODS
from compresslab.recipe.schema import NAME_FORM, Recipe, Sweep
from compresslab.recipe.steps import STEP_KINDS, Step

Schema = dict[str, Any]

# YAML language servers know draft 7 best. It has everything that is needed here.
DIALECT = "http://json-schema.org/draft-07/schema#"
KEY = "[A-Za-z_][A-Za-z0-9_-]*"
PLACEHOLDER = rf"\{{\s*{KEY}\s*\}}"
# The name of a sweep has every key of the grid, and a grid has at least one.
SWEEP_NAME = rf"^([A-Za-z0-9._-]|{PLACEHOLDER})*{PLACEHOLDER}([A-Za-z0-9._-]|{PLACEHOLDER})*$"
WITH_UNDERSCORES: dict[str, Schema] = {
    "integer": {"type": "string", "pattern": "^[1-9][0-9]*(_[0-9]+)+$"},
    "number": {"type": "string", "pattern": r"^[0-9]+(_[0-9]+)+(\.[0-9]*)?([eE][-+]?[0-9]+)?$"},
    "boolean": {"type": "string", "pattern": "^([Yy]es|YES|[Nn]o|NO|[Oo]n|ON|[Oo]ff|OFF)$"},
}
ABOUT = ("description", "default")


def recipe_schema() -> Schema:
    """The schema of a recipe's file."""
    models: list[type[BaseModel]] = [Recipe, Sweep, Step, *dict.fromkeys(method.config for method in METHODS)]
    modes: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in models]
    _, made = models_json_schema(modes, ref_template="#/definitions/{model}")
    definitions: dict[str, Schema] = {name: _tidy(schema) for name, schema in made["$defs"].items()}
    definitions["Step"] = _step(definitions["Step"])
    definitions["Evaluate"]["properties"]["tasks"] |= {"uniqueItems": True}
    definitions["Evaluate"] |= {
        "if": {"required": ["source"], "properties": {"source": {"const": "published"}}},
        "else": {"required": ["tasks"]},
    }
    templates = {f"{name}Template": _template(definitions[name]) for name in _reached("Step", definitions)}
    definitions = {name: _with_yaml_texts(schema) for name, schema in {**definitions, **templates}.items()}
    definitions["Variant"] = {"anyOf": [definitions["Variant"]["properties"]["steps"], definitions["Variant"]]}
    sweep = definitions["Sweep"]["properties"]
    sweep["steps"] |= {"items": {"$ref": "#/definitions/StepTemplate"}}
    sweep["grid"] |= {"propertyNames": {"pattern": f"^{KEY}$"}}
    sweep["grid"]["additionalProperties"] |= {"items": {"type": ["number", "string", "boolean"]}, "uniqueItems": True}
    recipe = definitions.pop("Recipe")
    # pydantic gives a pattern of names, and whatever else may then stand beside them.
    recipe["properties"]["variants"] = _variants()
    recipe["properties"]["sweeps"] = {
        "description": definitions["Sweep"]["description"],
        "type": "object",
        "propertyNames": {"pattern": SWEEP_NAME},
        "additionalProperties": {"$ref": "#/definitions/Sweep"},
    }
    return {"$schema": DIALECT, "$id": SCHEMA_URL, "title": "A recipe of compresslab", **recipe, "definitions": definitions}


def _tidy(schema: Any) -> Any:
    """A schema of pydantic's without generated titles, and without null, which no field of a recipe takes."""
    if isinstance(schema, list):
        return [_tidy(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    # `title` is a keyword beside `properties`, and a name below it.
    found: Schema = {
        key: {name: _tidy(field) for name, field in value.items()} if key == "properties" else _tidy(value)
        for key, value in schema.items()
        if key != "title" and not (key == "default" and (value is None or isinstance(value, dict))) and key != "discriminator"
    }
    if isinstance(found.get("description"), str):
        found["description"] = "\n\n".join(" ".join(part.split()) for part in found["description"].split("\n\n"))
    for union in ("anyOf", "oneOf"):
        if union in found:
            members = [member for member in found.pop(union) if member != {"type": "null"}]
            found |= members[0] if len(members) == 1 else {"anyOf": members}
    return found


def _step(schema: Schema) -> Schema:
    """A step has exactly one kind, and the settings of one method of that kind."""
    fields = {**schema["properties"], **{kind: _settings(kind) for kind in STEP_KINDS}}
    return {**schema, "properties": fields, "oneOf": [{"required": [kind]} for kind in STEP_KINDS]}


def _settings(kind: str) -> Schema:
    """The settings of the package's own methods of a kind, or of a method of another package, whose settings are its own."""
    methods = [method for method in METHODS if method.kind == kind]
    own = [{"$ref": f"#/definitions/{config.__name__}"} for config in dict.fromkeys(method.config for method in methods)]
    if kind == "adopt":
        return own[0]
    foreign = {
        "description": f"A {kind} method of an installed package.",
        "type": "object",
        "required": ["method"],
        "properties": {"method": {"type": "string", "minLength": 1, "not": {"enum": [method.name for method in methods]}}},
    }
    return {"anyOf": [*own, foreign]}


def _variants() -> Schema:
    """`base` is taken as a name, in upper and lower case."""
    name = {"maxLength": 100, "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$", "not": {"pattern": "^[Bb][Aa][Ss][Ee]$"}, "description": NAME_FORM}
    return {"type": "object", "propertyNames": name, "additionalProperties": {"$ref": "#/definitions/Variant"}}


def _reached(name: str, definitions: Mapping[str, Schema]) -> list[str]:
    """The definition and those that it refers to."""
    found, waiting = dict.fromkeys([name]), [name]
    while waiting:
        text = json.dumps(definitions[waiting.pop()])
        new = [other for other in definitions if f'"#/definitions/{other}"' in text and other not in found]
        found |= dict.fromkeys(new)
        waiting += new
    return list(found)


def _leaves(schema: Any, change: Callable[[Schema], Schema]) -> Any:
    """The schema with each schema of a single value changed. `not` and `if` hold conditions and stay."""
    if isinstance(schema, Sequence) and not isinstance(schema, str):
        return [_leaves(part, change) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "const" in schema or "enum" in schema or schema.get("type") in ("integer", "number", "boolean", "string"):
        return change(schema)
    deeper = ("anyOf", "items", "additionalProperties")
    found = {key: _leaves(value, change) if key in deeper else value for key, value in schema.items()}
    if "properties" in schema:
        found["properties"] = {name: _leaves(field, change) for name, field in schema["properties"].items()}
    return found


def _or(schema: Schema, other: Schema) -> Schema:
    """Either of two schemas; description and default stand beside them."""
    return {**{key: schema[key] for key in ABOUT if key in schema}, "anyOf": [{k: v for k, v in schema.items() if k not in ABOUT}, other]}


def _with_yaml_texts(schema: Schema) -> Schema:
    """The schema with the numbers and booleans that are texts in YAML 1.2."""

    def change(leaf: Schema) -> Schema:
        other = WITH_UNDERSCORES.get(leaf.get("type", "")) if "enum" not in leaf and "const" not in leaf else None
        return leaf if other is None else _or(leaf, other)

    found: Schema = _leaves(schema, change)
    return found


def _template(schema: Schema) -> Schema:
    """The schema of a sweep's step: any single value may have a placeholder."""

    def change(leaf: Schema) -> Schema:
        is_text = leaf.get("type") == "string" and not {"enum", "const", "pattern"} & leaf.keys()
        return leaf if is_text else _or(leaf, {"type": "string", "pattern": PLACEHOLDER})

    found: Schema = _renamed(_leaves(schema, change))
    return found


def _renamed(schema: Any) -> Any:
    """The schema of a sweep's step refers to other schemas of a sweep's steps."""
    if isinstance(schema, list):
        return [_renamed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: f"{value}Template" if key == "$ref" else _renamed(value) for key, value in schema.items()}


def text() -> str:
    """The file's text."""
    return json.dumps(recipe_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    schema_path().write_text(text(), encoding="utf-8")
    print(schema_path())
