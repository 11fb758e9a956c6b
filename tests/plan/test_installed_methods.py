"""Methods of other packages in a fresh process, which finds them by their entry points."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compresslab.plan import keys

DOCS = Path(__file__).parents[2] / "docs" / "add-a-method.md"
# One class of settings for two methods, of which one is registered; a method with a teacher; one that does not load.
MINE = """
from typing import Literal
from compresslab.methods.method import Method
from compresslab.methods.settings import StepConfig

class Mine(StepConfig):
    method: Literal["mine-a", "mine-b"]

class Taught(StepConfig):
    method: Literal["taught"]
    teacher: str = "base"

class Until(StepConfig):
    method: Literal["until"]
    until: str

A = Method("quantize", "mine-a", Mine, "mine")
TAUGHT = Method("prune", "taught", Taught, "mine")
UNTIL = Method("quantize", "until", Until, "mine")
"""
ENTRIES = ["a = mine:A", "taught = mine:TAUGHT", "until = mine:UNTIL", "entry-of-b = mine:B"]
PLAN = """
import json, sys
from compresslab.errors import RecipeError
sys.path.insert(0, sys.argv[1])
from plan_helpers import plan_of
said = []
for text in json.loads(sys.argv[2]):
    try:
        said.append([variant.model for variant in plan_of(text).variants])
    except RecipeError as error:
        said.append(error.problems)
print(json.dumps(said))
"""


def install(site: Path, entries: list[str], **modules: str) -> Path:
    """A folder with a distribution of these modules."""
    info = site / "mine-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(["[compresslab.methods]", *entries, ""]))
    (info / "top_level.txt").write_text("\n".join(modules))
    for name, code in modules.items():
        (site / f"{name}.py").write_text(code)
    return site


def python(site: Path, code: str, *arguments: str) -> str:
    """What a program prints in a process that finds the distribution."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), *sys.path])}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def planned(site: Path, *texts: str) -> Any:
    """The keys of the models of each recipe, or its problems."""
    return json.loads(python(site, PLAN, str(Path(__file__).parent), json.dumps(texts)))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("site"), ENTRIES, mine=MINE)


def test_a_name_that_no_method_has_is_refused_though_settings_list_it(site: Path) -> None:
    known, listed, unknown, named = planned(
        site,
        "variants: {v: [quantize: {method: mine-a}]}",
        "variants: {v: [quantize: {method: mine-b}]}",
        "variants: {v: [prune: {method: nothing-like-it}]}",
        "variants: {v: [quantize: {method: entry-of-b}]}",
    )
    assert len(known) == 2
    why = "the installed method 'entry-of-b' cannot be used: mine:B does not load: AttributeError"
    for problems, name in ((listed, "mine-b"), (unknown, "nothing-like-it")):
        (problem,) = problems
        assert f"unknown method '{name}';" in problem
        assert why in problem
    assert "mine-b" not in listed[0].partition("give one of")[2]
    assert "mine-a" in listed[0]
    assert named[0].startswith("r.yaml:4:35: variants.v[0].quantize.method: the installed method 'entry-of-b' cannot be used: ")


def test_other_variants_that_an_installed_method_names_are_checked_with_their_place(site: Path) -> None:
    right, wrong, itself, circle, until, misplaced = planned(
        site,
        "variants: {u: [prune: {method: depth, keep: 24}], v: [prune: {method: taught, teacher: u}]}",
        "variants: {v: [prune: {method: taught, teacher: bse}]}",
        "variants: {v: [prune: {method: taught, teacher: v}]}",
        "variants: {u: [prune: {method: taught, teacher: v}], v: [prune: {method: taught, teacher: u}]}",
        "variants: {v: [quantize: {method: until, until: bse}]}",
        "variants: {v: [retrain: {method: full, tokens: 9, teacher: bse}]}",
    )
    assert len(right) == 3
    assert wrong == ["r.yaml:4:49: variants.v[0].prune.teacher: no variant is named 'bse'; did you mean 'base'?"]
    assert "'v' learns from itself" in itself[0]
    assert "a circle: 'u' learns from 'v', 'v' learns from 'u'" in circle[0]
    assert until == ["r.yaml:4:49: variants.v[0].quantize.until: no variant is named 'bse'; did you mean 'base'?"]
    assert len(misplaced) == 1
    assert "unknown key 'teacher'" in misplaced[0]


CHANGES = {
    "nothing": lambda _: None,
    "code": lambda site: (site / "mine.py").write_text(MINE + "X = 1\n"),
    "release": lambda site: (site / "mine-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.1\n"),
    "comment": lambda site: (site / "mine.py").write_text(MINE + "# Of no effect.\n"),
}


def test_the_code_and_the_release_of_a_package_are_in_the_keys_of_its_steps(tmp_path: Path) -> None:
    found = {}
    for name, change in CHANGES.items():
        site = install(tmp_path / name, ENTRIES, mine=MINE)
        change(site)
        ((found[name],),) = (planned(site, "variants: {v: [quantize: {method: mine-a}]}"),)
    bases, steps = ({name: models[number] for name, models in found.items()} for number in (0, 1))
    assert len(set(bases.values())) == 1
    assert steps["comment"] == steps["nothing"]
    assert len({steps["nothing"], steps["code"], steps["release"]}) == 3


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfA = 1\n",
        b"# -*- coding: latin-1 -*-\nA = '\xe9'\n",
        b"A = '\xe9'\n",
        b"{{ name }} = 1 {%\n",
        b"A = '\0'\n",
        b"(" * 10_000,
    ],
    ids=["mark", "latin-1", "undeclared", "template", "null", "deep"],
)
def test_any_file_of_a_package_counts(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"package_{abs(hash(content))}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    file = tmp_path / name / "odd.py"
    found = []
    for part in (content, content.replace(b"1", b"2") + b"B"):
        file.write_bytes(part)
        keys._code.cache_clear()
        found.append(keys._code(f"{name}.odd").digest)
    assert found[0] != found[1]


def test_a_module_without_files_has_a_code_nevertheless() -> None:
    assert keys._code("builtins").digest != keys._code("no_such_package").digest


# The page


def examples() -> dict[str, str]:
    """The blocks of code of docs/add-a-method.md, by language."""
    return dict(re.findall(r"```(\w+)\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL))


def entries() -> list[str]:
    """The line of the page that tells of the method, as an installer writes it."""
    (line,) = [line for line in examples()["toml"].splitlines() if not line.startswith("[")]
    return [line.replace('"', "")]


RUN = """
import json, sys
import compresslab
record = compresslab.compress(sys.argv[1], {"prune": {"method": "mine", "share": 0.25}}, sys.argv[2], dtype="float32", compute="float32",
    device="cpu", text={"source": sys.argv[3], "samples": 4, "length": 16})
print(json.dumps([record.method, record.calibration_tokens, record.size.parameters, record.size.nonzero]))
"""


@pytest.mark.slow
def test_the_example_of_the_page_runs_as_it_stands(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    model, text = tmp_path / "model", tmp_path / "text.txt"
    config = AutoConfig.for_model(
        "llama", vocab_size=4, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, tie_word_embeddings=True
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(model)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(model)
    text.write_text("\n\n".join("a b ? b a a b " * 20 for _ in range(8)))
    site = install(tmp_path / "site", entries(), mine=examples()["python"])
    said = json.loads(python(site, RUN, str(model), str(tmp_path / "out"), str(text)).splitlines()[-1])
    linear, rest = 2 * (4 * 32 * 32 + 3 * 32 * 64), 4 * 32 + 5 * 32
    assert said == ["mine", 4 * 16, linear + rest, linear * 3 // 4 + rest]


IMPORTS = """
import json, sys
if sys.argv[1:]:
    import mine
from compresslab.methods.registry import installed
from compresslab.recipe.steps import Step
print(json.dumps([[entry.name for entry in installed().methods], installed().broken, Step(prune={"method": "mine"}).method.name]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("first", [[], ["the method's module"]])
def test_a_method_may_import_the_contract_at_the_top_of_its_module(first: list[str], tmp_path: Path) -> None:
    code = examples()["python"]
    late = "    from compresslab.steps.contract import StepResult, statistics_of\n"
    assert late in code
    site = install(tmp_path, entries(), mine=f"{late.strip()}\n{code.replace(late, '')}")
    assert json.loads(python(site, IMPORTS, *first)) == [["mine"], {}, "mine"]
