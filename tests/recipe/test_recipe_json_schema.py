"""The JSON schema that ships is that of the recipe's models, takes every good recipe and refuses every one that is malformed by form."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from malformed_recipes import CASES, HEAD
from pages import PAGES, blocks

from compresslab.catalog.recipes import SCHEMA_URL, recipe_paths, schema_path
from compresslab.recipe.load import loads
from compresslab.recipe.locate import parse
from tools import recipe_schema

ROOT = Path(__file__).parents[2]
SCHEMA: dict[str, Any] = json.loads(schema_path().read_text(encoding="utf-8"))
RECIPES = [*recipe_paths().values(), *sorted((ROOT / "experiments").glob("*/recipe.yaml"))]

# What a schema cannot say: names of the cases of malformed recipes. `compresslab validate` says it.
WHICH_SETTINGS_GO_TOGETHER = """damping-of-another-method group-of-another-method beta-of-another-method skew-of-another-method neither-keep
    keep-and-parameters width-of-nothing width-twice axis-twice logits-and-hidden logits-and-on-policy logits-and-temperature
    sparsity-and-pattern neither-sparsity pattern-drops-nothing phases-too-long"""
WHICH_VARIANTS_THERE_ARE = """until-unknown until-itself from-unknown from-itself from-circle teacher-unknown teacher-itself teacher-circle
    name-case"""
WHAT_A_GRID_MAKES = """sweep-unknown-in-name sweep-unknown-in-step sweep-key-unused sweep-bad-value sweep-collides sweep-odd-name
    sweep-from-unknown sweep-too-large"""
A_METHOD_THAT_ANOTHER_PACKAGE_MAY_BRING = "unknown-method unknown-method-short distill-method"
JSON_HAS_ONE_KIND_OF_NUMBER = "keep-all tokens-with-exponent"  # 1.0 is 1
BY_MEANING = {
    *WHICH_SETTINGS_GO_TOGETHER.split(),
    *WHICH_VARIANTS_THERE_ARE.split(),
    *WHAT_A_GRID_MAKES.split(),
    *A_METHOD_THAT_ANOTHER_PACKAGE_MAY_BRING.split(),
    *JSON_HAS_ONE_KIND_OF_NUMBER.split(),
}


class Core(yaml.SafeLoader):
    """YAML 1.2's core schema, by which editors read: `60_000` and `yes` are texts, and `1e12` is a number."""


Core.yaml_implicit_resolvers = {}
for tag, form, first in [
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
]:
    Core.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{form})$"), list(first))


def read(text: str) -> object:
    """A recipe's values as compresslab reads them."""
    root, problems = parse(text)
    assert root is not None, problems
    return root.data()


def mistakes(values: object) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in Draft7Validator(SCHEMA).iter_errors(values)]


def test_the_shipped_schema_is_that_of_the_models() -> None:
    assert schema_path().read_text(encoding="utf-8") == recipe_schema.text(), "python -m tools.recipe_schema writes it again"
    assert (ROOT / "docs" / "recipe.schema.json").resolve() == schema_path().resolve(), "docs/ and the wheel have one file"


def test_the_schema_is_one_and_says_where_it_is() -> None:
    Draft7Validator.check_schema(SCHEMA)
    assert SCHEMA["$id"] == SCHEMA_URL
    assert SCHEMA_URL.endswith(schema_path().relative_to(ROOT).as_posix())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_passes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert mistakes(read(text)) == []
    assert mistakes(yaml.load(text, Core)) == [], "as an editor reads it"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_recipes_of_the_pages_pass(page: Path) -> None:
    for text in blocks(page, "yaml"):
        if text.startswith("study:"):
            assert mistakes(yaml.load(text, Core)) == []


@pytest.mark.parametrize(
    "text",
    [
        "compute: float32\n",
        "variants:\n  v: {from: base, steps: [prune: {method: depth, keep: 0.5}]}\n",
        "variants:\n  v: [distill: {tokens: 60_000}]\n",
        "variants:\n  v: [{distill: {tokens: 60_000, devices: auto, optimizer: {learning_rate: 1e-4}}, replicates: 3}]\n",
        "variants:\n  v: [quantize: {method: bnb-nf4, double_quantization: on}]\n",
        "variants:\n  Basement: [adopt: {model: ./folder, trained: No, train_tokens: 2_000_000_000_000}]\n",
        'sweeps:\n  "{m}-{s}":\n    grid: {m: [wanda, magnitude], s: [0.25, 0.5]}\n    steps: [prune: {method: "{m}", sparsity: "{s}"}]\n',
        "variants:\n  d-20: [prune: {method: depth, keep: 20}]\n"
        'sweeps:\n  "d-{k}-{t}":\n    from: "d-{k}"\n    grid: {k: [20], t: [9_000]}\n'
        '    steps: [{distill: {tokens: "{t}", teacher: "base"}}]\n',
        "text: {calibration: {samples: 128, length: 512, devices: 2}}\n",
        "density: {tokens: 1e12, resamples: 1_000, hardware: [this-machine, h100-sxm]}\n",
    ],
)
def test_every_way_to_write_passes(text: str) -> None:
    loads(HEAD + text, "r.yaml")
    assert mistakes(read(HEAD + text)) == []
    assert mistakes(yaml.load(HEAD + text, Core)) == []


def test_a_method_of_another_package_may_have_any_settings() -> None:
    for kind in ("prune", "distill", "quantize", "retrain"):
        assert mistakes(read(f"{HEAD}variants:\n  v: [{kind}: {{method: theirs, odd: [1, {{a: b}}]}}]\n")) == []
    assert mistakes(read(f"{HEAD}variants:\n  v: [prune: {{method: depth, keep: 3, odd: 1}}]\n")), "the package's own may not"
    assert mistakes(read(f"{HEAD}variants:\n  v: [prune: {{odd: 1}}]\n"))
    assert mistakes(read(f"{HEAD}variants:\n  v: [adopt: {{method: theirs}}]\n"))


def test_a_study_that_runs_has_tasks_and_one_of_published_scores_need_not() -> None:
    study = "study: s\nbase: {model: m}\nevaluate: "
    assert mistakes(read(study + "{source: published, table: t}\n")) == []
    assert "'tasks' is a required property" in mistakes(read(study + "{items: 9}\n"))[0]
    assert mistakes(read(study + "{source: run}\n"))


@pytest.mark.parametrize("name", CASES)
def test_what_is_malformed_by_form_fails(name: str) -> None:
    """A case that the reader of YAML refuses is not for a schema: editors have a reader, too."""
    root, problems = parse(CASES[name].text)
    if root is None or problems:
        assert name not in BY_MEANING
        return
    failed = mistakes(root.data())
    assert bool(failed) != (name in BY_MEANING), failed or "the schema takes it"


def test_the_list_of_what_a_schema_cannot_say_names_cases() -> None:
    assert set(CASES) >= BY_MEANING


def test_placeholders_are_for_sweeps_alone() -> None:
    assert mistakes(read(HEAD + 'variants:\n  v: [prune: {method: depth, keep: "{k}"}]\n'))
    assert mistakes(read(HEAD + 'sweeps:\n  "d-{k}": {grid: {k: [1]}, steps: [prune: {method: depth, keep: "k"}]}\n'))
