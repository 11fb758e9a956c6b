"""`compresslab init`: what it asks, what it writes, and that what it writes can be planned."""

from __future__ import annotations

import io
import json
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calling import Call
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from compresslab.plan.graph import Plan
from compresslab.plan.prepare import prepare
from compresslab.plan.starter import CHOICES, _scalar
from compresslab.recipe.load import load
from compresslab.recipe.locate import parse
from compresslab.recipe.schema import Recipe
from compresslab.versions import version

SMOLLM2 = "offline:smollm2-135m-instruct"
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 100,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
HERE = [name for name in CHOICES if name not in ("gptq", "awq") or version("gptqmodel") != "absent"]


def model_folder(path: Path, hidden: int = 64, layers: int = 4, neurons: int = 96) -> Path:
    """A folder with what a plan reads of a model."""
    path.mkdir(parents=True)
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": neurons}
    (path / "config.json").write_text(json.dumps({**CONFIG, **sizes}))
    # Of the weights it reads which layers there are and how many rows the embeddings have.
    weights = {"model.embed_tokens.weight": np.zeros((CONFIG["vocab_size"], 1), np.float32)}
    weights |= {f"model.layers.{layer}.input_layernorm.weight": np.zeros(1, np.float32) for layer in range(layers)}
    save_file(weights, path / "model.safetensors")
    (path / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": {}, "merges": []}}))
    return path


def configs(plan: Plan) -> dict[str, list[dict[str, object]]]:
    """The settings of each variant's own steps."""
    return {name: [step.config.model_dump() for step in variant.steps] for name, variant in plan.recipe.variants.items()}


# What is written


@pytest.mark.parametrize("choice", HERE)
def test_every_choice_gives_a_recipe_that_can_be_planned(choice: str, call: Call) -> None:
    result = call("init", "r.yaml", "--yes", "--compress", choice)
    assert result.code == 0, result.err
    assert choice in prepare(Path("r.yaml")).recipe.variants
    assert call("validate", "r.yaml").code == 0


@pytest.mark.parametrize(
    ("hidden", "layers", "neurons", "group"),
    [(64, 4, 96, 32), (64, 2, 64, 64), (576, 30, 1536, 64), (4096, 32, 14336, 128), (128, 3, 352, 32), (3584, 28, 18944, 128)],
)
def test_amounts_suit_a_model_in_a_folder(hidden: int, layers: int, neurons: int, group: int, call: Call, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", hidden, layers, neurons)
    result = call("init", "r.yaml", "--yes", "--model", folder, "--compress", ",".join(HERE))
    assert result.code == 0, result.err
    found = configs(prepare(Path("r.yaml")))
    for name, least in (("depth", 0.5), ("distill", 0.3)):
        keep = found[name][0]["keep"]
        assert isinstance(keep, int)
        assert least * layers <= keep < layers
    narrow = found["width"][0]["keep"]
    assert isinstance(narrow, int)
    assert neurons / 3 < narrow < neurons
    assert found["rtn"][0]["group_size"] == group
    assert f"{layers} layers, hidden size {hidden}, MLP width {neurons}, 2 key/value heads" in Path("r.yaml").read_text()


def test_a_chain_of_pruning_and_quantizing_has_groups_that_the_pruned_model_takes(call: Call, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", 128, 4, 128)
    assert call("init", "r.yaml", "--yes", "--model", folder, "--compress", "width,rtn").code == 0
    found = configs(prepare(Path("r.yaml")))
    assert (found["rtn"][0]["group_size"], found["width"][0]["keep"], found["width-healed-rtn"][0]["group_size"]) == (128, 96, 32)


@pytest.mark.parametrize("name", ["owner/nobody-knows-it", "model.gguf"])
def test_a_model_of_unknown_dimensions_gets_shares_and_small_groups(
    name: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    result = call("init", "r.yaml", "--yes", "--model", name, "--compress", ",".join(HERE))
    assert result.code == 0, result.err
    found = configs(prepare(Path("r.yaml")))
    assert [found[variant][0]["keep"] for variant in ("depth", "width", "distill")] == [0.8, 0.75, 0.5]
    assert found["rtn"][0]["group_size"] == 32
    assert "not known here yet" in Path("r.yaml").read_text()


def test_the_dimensions_of_published_models_are_known_without_a_hub(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    result = call("init", "r.yaml", "--yes", "--model", "meta-llama/Llama-3.1-8B")
    assert configs(prepare(Path("r.yaml")))["depth"][0]["keep"] == 26
    assert "warning: base.model: meta-llama/Llama-3.1-8B names no @<commit>" in result.out


def test_the_defaults(call: Call) -> None:
    result = call("init", "r.yaml", "--yes")
    assert result == (
        0,
        f"r.yaml: 4 variants of {SMOLLM2}, 3 tasks of 200 items; change it as you like\n"
        "next: compresslab plan r.yaml    what would run, at what cost?\n"
        "      compresslab run r.yaml     run it\n",
        "",
    )
    recipe = load(Path("r.yaml"))
    assert recipe.study == "r"
    assert list(recipe.variants) == ["depth", "depth-healed", "nf4", "depth-healed-nf4"]
    assert recipe.evaluate.items == 200
    assert recipe.density == Recipe.model_fields["density"].default


def test_without_healing_nothing_is_trained(call: Call) -> None:
    assert call("init", "r.yaml", "--yes", "--no-heal", "--items", "7", "--compress", "depth,width", "--compress", "nf4").code == 0
    recipe = load(Path("r.yaml"))
    assert list(recipe.variants) == ["depth", "width", "nf4", "depth-nf4"]
    assert recipe.evaluate.items == 7
    assert "training:" not in Path("r.yaml").read_text()


def test_a_recipe_whose_steps_read_nothing_names_no_text(call: Call) -> None:
    assert call("init", "r.yaml", "--yes", "--compress", "nf4, int8 ,nf4").code == 0
    assert list(load(Path("r.yaml")).variants) == ["nf4", "int8"]
    assert "text:" not in Path("r.yaml").read_text()


def test_every_section_and_variant_has_a_comment_and_no_comment_stands_twice(call: Call) -> None:
    assert call("init", "r.yaml", "--yes", "--compress", ",".join(HERE)).code == 0
    lines = Path("r.yaml").read_text().splitlines()
    comments = [line.strip() for line in lines if line.strip().startswith("#")]
    assert max(map(len, lines[1:])) <= 120  # the first one has an address
    assert len(comments) == len(set(comments))
    for before, line in pairwise(lines):
        if re.match(r"(study|base|text|variants|evaluate|density):", line) or (re.match(r"  [\w-]+:$", line) and "healed" not in line):
            assert before.strip().startswith("#"), line


def test_without_a_path_the_study_names_the_file(call: Call) -> None:
    assert call("init", "--yes").out.startswith("my-study.yaml: ")
    assert call("init", "--yes", "--study", "other").out.startswith("other.yaml: ")
    assert load(Path("other.yaml")).study == "other"
    assert call("init", "--yes").code == 2


def test_the_help_names_every_choice_and_the_defaults(call: Call) -> None:
    out = " ".join(call("init", "--help").out.replace("│", " ").split())
    assert f"{', '.join(CHOICES)}: several" in out
    for default in (SMOLLM2, "depth, nf4", "200", "heal"):
        assert f"[default: {default}]" in out


# What is refused


def test_no_file_is_ever_overwritten(call: Call) -> None:
    Path("r.yaml").write_text("mine")
    result = call("init", "r.yaml", "--yes")
    assert result == (2, "", "error: r.yaml exists already and is left as it is; give a file that does not\n")
    assert Path("r.yaml").read_text() == "mine"
    Path("link.yaml").symlink_to("nowhere")
    assert call("init", "link.yaml", "--yes").code == 2
    assert call("init", "..", "--yes").code == 2


def test_a_file_that_appears_meanwhile_is_left_alone(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: object) -> str:
        Path("r.yaml").write_text("mine")
        return "ours"

    monkeypatch.setattr("compresslab.plan.starter.starter", late)
    assert call("init", "r.yaml", "--yes").code == 2
    assert Path("r.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--compress", "dpth"], f"no way to compress is called 'dpth'; did you mean 'depth'? there are: {', '.join(CHOICES)}"),
        (["--compress", "nf4,smaller"], f"no way to compress is called 'smaller'; there are: {', '.join(CHOICES)}"),
        (["--compress", " ,"], f"name at least one way to compress: {', '.join(CHOICES)}"),
        (["--model", "offline:nothing"], "unknown offline model 'nothing'"),
        (["--model", "./nowhere"], "no model folder at ./nowhere"),
        (["--model", "published:Gemma-2-9B"], "is a name in a table of scores"),
        (["--model", "two words"], "'two words' is neither an existing folder"),
        (["--model", "a\tb"], r"'a\tb' holds an unprintable character"),
        (["--study", "two words"], "'two words' cannot name a study; give a name of at most 100 letters"),
        (["--study", "../up"], "'../up' cannot name a study"),
        (["--study", "x: y"], "'x: y' cannot name a study"),
        (["--study", ""], "'' cannot name a study"),
        (["--compress", "nf4", "--heal"], "--heal trains what is pruned, and nothing is; add depth, width or sparse to --compress"),
    ],
)
def test_what_no_recipe_can_say_is_refused(arguments: list[str], complaint: str, call: Call) -> None:
    result = call("init", "r.yaml", "--yes", *arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")
    assert complaint in result.err
    assert not Path("r.yaml").exists()


def test_a_folder_that_does_not_exist_is_named(call: Call) -> None:
    assert call("init", "nowhere/r.yaml", "--yes").err == "error: no folder nowhere; make it first\n"


@pytest.mark.parametrize(
    ("sizes", "choice", "why"),
    [
        ((64, 1, 96), "depth", "the model has 1 layers here"),
        ((60, 4, 120), "rtn", "32 does not divide the hidden size 60"),
        ((64, 4, 1), "width", "the model has 1 neurons here"),
    ],
)
def test_what_a_model_cannot_take_is_told_and_no_file_is_left(
    sizes: tuple[int, int, int], choice: str, why: str, call: Call, tmp_path: Path
) -> None:
    result = call("init", "r.yaml", "--yes", "--model", model_folder(tmp_path / "model", *sizes), "--compress", choice)
    assert result.code == 2
    assert result.err.startswith("error: r.yaml is not written, because it could not run; 1 problem in the recipe:\n")
    assert why in result.err
    assert not Path("r.yaml").exists()


def test_a_missing_package_is_told_and_no_file_is_left(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compresslab.plan.packages.version", lambda _: "absent")
    result = call("init", "r.yaml", "--yes", "--compress", "gptq")
    assert result.code == 2
    assert "gptq needs gptqmodel, which is not installed: pip install 'compresslab[gptq]'" in result.err
    assert not Path("r.yaml").exists()


def test_an_interruption_leaves_no_file(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("compresslab.plan.prepare.prepare", interrupted)
    assert call("init", "r.yaml", "--yes").code == 130
    assert not Path("r.yaml").exists()


# Names


@pytest.mark.parametrize("study", ["123", "1e3", "0x1F", "on", "No", "null", "1.0", "a.b_c-d"])
def test_a_study_may_be_named_what_yaml_reads_as_something_else(study: str, call: Call) -> None:
    assert call("init", "r.yaml", "--yes", "--study", study).code == 0
    assert load(Path("r.yaml")).study == study


@pytest.mark.parametrize(
    "name", ["null", "12", 'odd: name #1 "quoted" \\ {x}', "größer, as list]", "~tilde", "- item", "a:b", "@at", "!tag"]
)
def test_a_model_in_a_folder_of_any_name_is_found_again(name: str, call: Call, tmp_path: Path) -> None:
    model_folder(tmp_path / "models" / name)
    for given_name in (f"models/{name}", str(tmp_path / "models" / name)):
        Path("r.yaml").unlink(missing_ok=True)
        assert call("init", "r.yaml", "--yes", "--model", given_name).code == 0
        assert prepare(Path("r.yaml")).recipe.base.model == given_name


@given(st.text(min_size=1).filter(str.isprintable))
def test_any_printable_text_is_read_back_from_yaml(text: str) -> None:
    root, problems = parse(f"key: {_scalar(text)}\nother: 1\n")
    assert not problems
    assert root is not None
    assert root.data() == {"key": text, "other": 1}


def test_a_file_whose_name_is_no_study_gets_the_usual_one_and_quotes_in_commands(call: Call) -> None:
    result = call("init", "my first 'study'.yaml", "--yes")
    assert result.code == 0, result.err
    assert load(Path("my first 'study'.yaml")).study == "my-study"
    assert """compresslab run 'my first '"'"'study'"'"'.yaml'""" in result.out
    result = call("init", "two\nlines.yaml", "--yes")
    assert result.code == 2
    assert r"'two\nlines.yaml' holds an unprintable character" in result.err


# Asking

PROBE = """
import sys
from compresslab.cli.main import main
sys.argv = ["compresslab", "init", "r.yaml"]
try:
    main()
finally:
    print("torch" in sys.modules)
"""


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is typed at the terminal; to be filled before the call."""
    answers: list[str] = []

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

        def readline(self, size: int | None = -1) -> str:
            return f"{answers.pop(0)}\n" if answers else ""

    monkeypatch.setattr("sys.stdin", Terminal())
    yield answers
    assert not answers, "everything typed was read"


def test_a_terminal_is_asked_for_what_no_option_says(call: Call, typed: list[str]) -> None:
    typed += ["", "asked", "width, rtn", "n", "17"]
    result = call("init")
    assert result.code == 0, result.err
    recipe = load(Path("asked.yaml"))
    assert (recipe.base.model, list(recipe.variants), recipe.evaluate.items) == (SMOLLM2, ["width", "rtn", "width-rtn"], 17)
    assert all(f"{name} " in result.out for name in CHOICES), "the ways to compress are told before they are asked for"


def test_a_bad_answer_is_asked_for_again(call: Call, typed: list[str]) -> None:
    typed += ["offline:nix", SMOLLM2, "two words", "good", "wdth", "int8", "none", "0", "3"]
    result = call("init", "r.yaml")
    assert result.code == 0, result.err
    recipe = load(Path("r.yaml"))
    assert (recipe.study, list(recipe.variants), recipe.evaluate.items) == ("good", ["int8"], 3)
    assert "did you mean 'width'?" in result.out + result.err
    assert "'none' is no number of items" in result.out + result.err


@pytest.mark.usefixtures("typed")
def test_what_options_say_is_not_asked(call: Call) -> None:
    result = call("init", "r.yaml", "--model", SMOLLM2, "--study", "s", "--compress", "depth", "--heal", "--items", "5")
    assert result.code == 0, result.err
    assert "?" not in result.out.replace("at what cost?", "")
    assert call("init", "q.yaml", "--yes").code == 0


@pytest.mark.usefixtures("typed")
def test_a_file_that_is_there_is_refused_before_anything_is_asked(call: Call) -> None:
    Path("r.yaml").touch()
    result = call("init", "r.yaml")
    assert result.code == 2
    assert "Which model" not in result.out


def test_the_end_of_the_answers_ends_it_and_nothing_is_written(call: Call, typed: list[str], tmp_path: Path) -> None:
    typed += ["", ""]
    result = call("init", "r.yaml")
    assert result.code == 1
    assert "Traceback" not in result.err
    assert not list(tmp_path.iterdir())


def test_without_a_terminal_it_neither_waits_nor_imports_torch(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROBE], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.wait(timeout=60) == 0, "its input stays open, and nothing is ever typed"
        assert process.stdout is not None
        assert process.stdout.read().endswith("\nFalse\n")
    assert list(load(tmp_path / "r.yaml").variants) == ["depth", "depth-healed", "nf4", "depth-healed-nf4"]
