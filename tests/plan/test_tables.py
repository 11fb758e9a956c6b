"""Texts and tokens beyond a model's tables of positions and embeddings are refused before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from plan_helpers import HEAD, FolderMaker, plan_of, write_safetensors

from compresslab.errors import RecipeError
from compresslab.plan.model_files import dimensions_of
from compresslab.recipe.source import Source

TEXT = "text: {calibration: {length: LENGTH}, training: {tokens: 4096, length: LENGTH}}\n"
TEXTS = str(Path(__file__).resolve().parents[2] / "README.md")
STEPS = "variants:\n  w: [prune: {method: wanda, sparsity: 0.5}]\n  v: [prune: {method: depth, keep: 2}]\n"


def plan(model: Path, length: int = 64, steps: str = STEPS, compared: int = 0) -> list[str]:
    """The warnings of a plan on a base. `compared`: the length of the sequences on which variants are compared, if they are."""
    head = HEAD.replace("offline:smollm2-135m-instruct", str(model)) + TEXT.replace("LENGTH", str(length))
    if compared:
        head = head.replace("items: 10", f"items: 10, fidelity: {{source: {TEXTS}, length: {compared}}}")
    return list(plan_of(steps, head=head).warnings)


def problems(model: Path, length: int = 64, steps: str = STEPS, compared: int = 0) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        plan(model, length, steps, compared)
    return caught.value.problems


@pytest.mark.parametrize("name", ["transformer.wpe.weight", "model.decoder.embed_positions.weight"])
@pytest.mark.parametrize("field", ["max_position_embeddings", "n_positions"])
def test_a_text_longer_than_a_table_of_positions_is_refused_once(folder: FolderMaker, name: str, field: str):
    model = folder("learned", shapes={name: [128, 64]}, **{field: 128})
    (problem,) = problems(model, 256)
    assert problem.endswith(
        f"text.calibration.length: sequences of 256 tokens are longer than the 128 positions of {model}; set length to 128 or less"
    )
    assert plan(model, 128) == []


def test_a_text_of_comparison_longer_than_a_table_is_refused_once(folder: FolderMaker):
    model = folder("learned", shapes={"transformer.wpe.weight": [128, 64]}, n_positions=128)
    (problem,) = problems(model, 128, compared=256)
    assert "evaluate.fidelity.length: sequences of 256 tokens are longer than the 128 positions" in problem
    (warning,) = plan(folder("rotary", max_position_embeddings=128), 128, compared=256)
    assert warning.startswith("evaluate.fidelity.length: 256 tokens are more than the 128 positions that")


def test_a_text_longer_than_rotary_positions_is_warned_of(folder: FolderMaker):
    model = folder("rotary", max_position_embeddings=128)
    (warning,) = plan(model, 256)
    assert warning.startswith("text.calibration.length: 256 tokens are more than the 128 positions that")


def test_only_texts_that_a_step_reads_are_compared(folder: FolderMaker):
    model = folder("learned", shapes={"transformer.wpe.weight": [128, 64]}, n_positions=128)
    assert plan(model, 256, "variants:\n  m: [prune: {method: magnitude, sparsity: 0.5}]\n") == []


def with_added(folder: Path, token: str, number: int, *, special: bool, **named: object) -> Path:
    path = folder / "tokenizer.json"
    added = [{"id": number, "content": token, "special": special}]
    path.write_text(json.dumps({**json.loads(path.read_text()), "added_tokens": added}))
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder


@pytest.mark.parametrize("end", ["<|im_end|>", {"content": "<|im_end|>", "lstrip": False}])
def test_an_end_of_text_without_an_embedding_is_refused(folder: FolderMaker, end: object):
    model = with_added(folder("end"), "<|im_end|>", 100, special=True, eos_token=end)
    (problem,) = problems(model)
    assert f"the tokenizer of {model} has the token '<|im_end|>' with the id 100, and the model has 100 embeddings (0 to 99)" in problem


def test_a_word_without_an_embedding_is_refused(folder: FolderMaker):
    (problem,) = problems(with_added(folder("word"), "Once upon a time", 130, special=False))
    assert "has the token 'Once upon a time' with the id 130, and the model has 100 embeddings" in problem
    (problem,) = problems(folder("many", words=" ".join(map(str, range(101)))))
    assert "has the token '100' with the id 100" in problem


def test_a_special_token_that_no_text_has_may_be_beyond_the_embeddings(folder: FolderMaker):
    assert plan(with_added(folder("image"), "<image_soft_token>", 100, special=True, eos_token="a")) == []
    assert plan(with_added(folder("padding"), "<pad>", 100, special=True, eos_token="a", pad_token="<pad>")) == []


def test_a_token_that_the_tokenizer_puts_before_a_text_needs_an_embedding(folder: FolderMaker):
    model = with_added(folder("before"), "<cls>", 100, special=True, eos_token="a")
    path = model / "tokenizer.json"
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<cls>", "type_id": 0}}, {"Sequence": {"id": "A"}}]}
    for processor in (template, {"type": "Sequence", "processors": [{"type": "ByteLevel"}, template]}):
        path.write_text(json.dumps({**json.loads(path.read_text()), "post_processor": processor}))
        (problem,) = problems(model)
        assert "has the token '<cls>' with the id 100, and the model has 100 embeddings" in problem


@pytest.mark.parametrize("kind", ["gptj", "codegen", "mpt"])
def test_positions_in_a_table_that_is_in_no_file_are_known(folder: FolderMaker, kind: str):
    model = folder("computed", model_type=kind, max_position_embeddings=128)
    (problem,) = problems(model, 256, "variants:\n  m: [prune: {method: wanda, sparsity: 0.5}]\n")
    assert "sequences of 256 tokens are longer than the 128 positions" in problem


def test_parameters_of_a_plan_are_those_of_the_layers_that_the_config_has(folder: FolderMaker):
    shapes = {f"transformer.h.{number}.w": [10, 10] for number in range(6)} | {"transformer.wte.weight": [100, 64]}
    model = folder("longer", shapes=shapes)
    write_safetensors(model / "other.safetensors", {"w": [1000, 1000]})
    known = dimensions_of(Source("folder", str(model)))
    assert known is not None
    assert known.parameters == 6400 + 4 * 100
