"""Sound recipes load, quickly and without torch; whatever is done to one, it loads or is refused in words."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from malformed_recipes import CASES, HEAD

from compresslab.errors import BadInput, RecipeError
from compresslab.methods.distill import Distill
from compresslab.methods.retrain import RetrainLoRA
from compresslab.printable import unprintable
from compresslab.recipe.load import load, load_located, loads
from compresslab.recipe.order import ordered
from compresslab.recipe.schema import Recipe, Variant
from compresslab.recipe.steps import Step

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"


def config(recipe: Recipe, name: str, step: int = 0) -> dict[str, object]:
    return recipe.variants[name].steps[step].config.model_dump()


def test_quickstart() -> None:
    recipe = load(QUICKSTART)
    assert recipe.study == "smollm2-quickstart"
    assert recipe.text.training.tokens == 16_384
    assert list(recipe.variants) == ["nf4", "rtn4", "depth-24", "depth-24-healed", "depth-24-healed-nf4", "width-75"]
    assert recipe.variants["depth-24-healed"].start == "depth-24"
    left = {"groups": None, "hidden": None, "parameters": None, "axes": ["neurons"]}
    assert config(recipe, "width-75") == {"method": "width", "keep": 0.75, "multiple": 32, **left}
    assert config(recipe, "rtn4") == {"method": "rtn", "bits": 4, "group_size": 32}
    assert recipe.evaluate.items == 150


def test_every_recipe_of_the_repository_loads() -> None:
    paths = sorted(QUICKSTART.parent.rglob("*.yaml"))
    assert {path.parent.name for path in paths} == {"recipes", "published", "smollm2", "full-size"}
    for path in paths:
        load(path)


def test_a_study_of_the_base_alone() -> None:
    assert loads(HEAD, "r.yaml").variants == {}
    assert loads(HEAD + "variants: {}\n", "r.yaml").variants == {}
    assert loads("\ufeff---\n" + HEAD + "...\n", "r.yaml").study == "s"
    assert loads(HEAD.replace("\n", "\r\n"), "r.yaml").study == "s"


def test_numbers_as_yaml_1_2_reads_them() -> None:
    text = (
        HEAD + "density: {tokens: 1e12, seed: 0x1f}\n"
        "variants:\n  v: [distill: {tokens: 60_000, temperature: 2, optimizer: {learning_rate: 3e-4}}]\n"
    )
    recipe = loads(text, "r.yaml")
    distill = recipe.variants["v"].steps[0].distill
    assert distill is not None
    assert (recipe.density.tokens, recipe.density.seed) == (1e12, 31)
    assert (distill.tokens, distill.temperature, distill.optimizer.learning_rate) == (60_000, 2.0, 3e-4)


def test_words_that_are_no_numbers() -> None:
    recipe = loads(HEAD + "question: 1:30 or 2024-01-01\nbase2: x\n".replace("base2: x\n", ""), "r.yaml")
    assert recipe.question == "1:30 or 2024-01-01"
    assert loads(HEAD.replace("some/model", "2024-01-01"), "r.yaml").base.model == "2024-01-01"
    assert loads(HEAD.replace("some/model}", "m, trust_remote_code: yes}"), "r.yaml").base.trust_remote_code is True


def test_a_method_keeps_its_own_learning_rate() -> None:
    text = (
        HEAD + "variants:\n  v:\n    - retrain: {method: lora, tokens: 9, optimizer: {weight_decay: 0.1}}\n"
        "    - retrain: {method: full, tokens: 9}\n"
    )
    steps = loads(text, "r.yaml").variants["v"].steps
    assert [step.retrain.optimizer.learning_rate for step in steps if step.retrain] == [1e-3, 1e-4]
    assert RetrainLoRA(method="lora", tokens=9).optimizer.learning_rate == 1e-3


def test_aliases() -> None:
    text = HEAD + "variants:\n  a: [distill: &d {tokens: 9, seed: 4}]\n  b: {from: a, steps: [distill: *d]}\n"
    recipe = loads(text, "r.yaml")
    assert config(recipe, "a") == config(recipe, "b")


def test_sweeps() -> None:
    text = (
        HEAD
        + """\
variants:
  z: [quantize: {method: bnb-nf4}]
sweeps:
  depth-{keep}:
    grid: {keep: [28, 0.5]}
    steps: [prune: {method: depth, keep: "{keep}"}]
  healed-{keep}-t{t}:
    grid: {keep: [28, 0.5], t: [1, 2e0]}
    from: depth-{keep}
    steps:
      - distill: {tokens: 10, temperature: "{t}", teacher: z}
  from-{where}:
    grid: {where: [a, b], remote: [true]}
    steps: [adopt: {model: "org/{where}", how: "{remote}, by {where}"}]
""".replace("from-{where}", "from-{where}-{remote}").replace('"{remote}, by', '"remote {remote}, by')
    )
    recipe = loads(text, "r.yaml")
    assert list(recipe.variants) == [
        *["z", "depth-28", "depth-0.5", "healed-28-t1", "healed-28-t2e0", "healed-0.5-t1", "healed-0.5-t2e0", "from-a-true", "from-b-true"]
    ]
    assert config(recipe, "depth-28")["keep"] == 28
    assert config(recipe, "depth-0.5")["keep"] == 0.5
    assert recipe.variants["healed-0.5-t2e0"].start == "depth-0.5"
    assert config(recipe, "healed-28-t2e0")["temperature"] == 2.0
    assert config(recipe, "from-b-true")["model"] == "org/b"
    assert config(recipe, "from-b-true")["how"] == "remote true, by b"


def test_parents_and_teachers_first() -> None:
    text = (
        HEAD
        + """\
variants:
  d: {from: c, steps: [quantize: {method: rtn}]}
  c: {from: a, steps: [distill: {teacher: b, tokens: 9}]}
  b: [quantize: {method: rtn}]
  a: [quantize: {method: rtn}]
"""
    )
    assert ordered(loads(text, "r.yaml")) == ["a", "b", "c", "d"]


def test_a_long_chain() -> None:
    chain = "".join(f"  v{i}: {{from: {f'v{i + 1}' if i < 1500 else 'base'}, steps: [quantize: {{method: rtn}}]}}\n" for i in range(1501))
    assert ordered(loads(f"{HEAD}variants:\n{chain}", "r.yaml"))[0] == "v1500"


def test_order_of_recipes_built_in_code() -> None:
    sound = loads(HEAD, "r.yaml")
    step = Step(distill=Distill(tokens=9))
    circle = {"a": Variant.model_validate({"from": "b", "steps": [step]}), "b": Variant.model_validate({"from": "a", "steps": [step]})}
    with pytest.raises(BadInput, match="circle: a -> b -> a"):
        ordered(sound.model_copy(update={"variants": circle}))
    with pytest.raises(BadInput, match="needs 'b'"):
        ordered(sound.model_copy(update={"variants": {"a": circle["a"]}}))


def test_no_torch_and_fast() -> None:
    code = (
        "import sys, pathlib; from compresslab.recipe.load import load; load(pathlib.Path(sys.argv[1]));"
        "heavy = {'torch', 'transformers', 'numpy', 'lm_eval', 'pandas'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(QUICKSTART)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    started = time.process_time()
    load(QUICKSTART)
    assert time.process_time() - started < 0.5


TEXTS = [QUICKSTART.read_text(encoding="utf-8"), *(case.text for case in CASES.values() if len(case.text) < 2000)]
PIECES = [
    "{",
    "}",
    "[",
    "]",
    ":",
    "- ",
    "\n",
    "  ",
    "\t",
    "&a ",
    "*a",
    "<<: ",
    "~",
    "'",
    '"',
    "!!int ",
    "? ",
    "|\n",
    "---\n",
    "{keep}",
    "0",
    "1e9",
    "%",
    "\\",
    "\ud7ff",
    "#",
]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_mutations_load_or_are_refused(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(TEXTS))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 12))
        piece = data.draw(st.sampled_from(PIECES) | st.text(max_size=6) | st.sampled_from(text.splitlines(keepends=True) or [""]))
        text = text[:at] + piece + text[at + cut :]
    try:
        recipe = loads(text, "r.yaml")
    except RecipeError as refusal:
        told = refusal.problems
    else:
        told = ["r.yaml:1:1: nothing"]
        assert set(ordered(recipe)) == set(recipe.variants)
    assert told
    assert all(
        re.match(r"r\.yaml:[1-9]\d*:[1-9]\d*: ", problem) and "\n" not in problem and not unprintable(problem) for problem in told
    ), told


def test_line_ends_of_any_kind_are_line_feeds_in_the_text(tmp_path: Path):
    path = tmp_path / "r.yaml"
    path.write_bytes(b"study: s\r\nbase: {model: m/m}\r\nevaluate: {tasks: [a]}\r\n")
    assert "\r" not in load_located(path).file.text
