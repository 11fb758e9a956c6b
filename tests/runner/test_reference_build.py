"""A reference from models that were evaluated here, from recipe to a file that another recipe names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from compresslab.cli.main import app
from compresslab.density import Reference
from compresslab.errors import BadInput
from compresslab.plan.prepare import prepare
from compresslab.studies.reference import check

SIZES = (32, 64, 96, 128)
RECIPE = """
study: my-family
base: {{model: {models[0]}, dtype: float32, train_tokens: 1.0e+9}}
variants:
  b: [{{adopt: {{model: {models[1]}, train_tokens: 1.0e+9}}}}]
  c: [{{adopt: {{model: {models[2]}, train_tokens: 1.0e+9}}}}]
  d: [{{adopt: {{model: {models[3]}, train_tokens: 1.0e+9}}}}]
evaluate: {{tasks: [openbookqa], items: 12}}
density: {{hardware: [h100-sxm], measure: false}}
"""


@pytest.fixture
def family(tiny_folder: Path, tmp_path: Path) -> str:
    """A recipe of four models of different widths with one tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    vocabulary = AutoModelForCausalLM.from_pretrained(tiny_folder).config.vocab_size
    folders = []
    # Of random models the losses need not fall with size; after these draws they do, whatever test ran before.
    torch.manual_seed(0)
    LlamaForCausalLM(AutoModelForCausalLM.from_pretrained(tiny_folder).config)
    for hidden in SIZES:
        config = LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=4096,
        )
        folders.append(tmp_path / f"width-{hidden}")
        LlamaForCausalLM(config).save_pretrained(folders[-1])
        tokenizer.save_pretrained(folders[-1])
    return RECIPE.format(models=folders)


@pytest.mark.slow
def test_four_evaluated_models_make_a_reference(family: str, tmp_path: Path):
    recipe, out = tmp_path / "family.yaml", tmp_path / "mine.json"
    recipe.write_text(family)
    done = CliRunner().invoke(app, ["reference", "build", str(recipe), "--store", str(tmp_path / "store"), "--out", str(out)])
    assert done.exit_code == 0, done.output
    reference = Reference.load(str(out))
    assert (reference.name, reference.runs, reference.unit) == ("my-family", 4, "bits per byte")
    assert reference.tasks["openbookqa"].reads_loss
    assert reference.parameters_range[0] < reference.parameters_range[1]
    # One token budget: the law is one of N alone, and D0 does not matter.
    low, high = (reference.predict("openbookqa", 50_000, tokens)[0] for tokens in (1e9, 1e12))
    assert low == pytest.approx(high)


def test_a_model_without_its_training_tokens_is_named(family: str, tmp_path: Path):
    recipe = tmp_path / "family.yaml"
    recipe.write_text(
        family.replace("dtype: float32, train_tokens: 1.0e+9", "dtype: float32", 1).replace("width-96, train_tokens: 1.0e+9", "width-96")
    )
    with pytest.raises(BadInput, match=r"`train_tokens` is missing in: base, variants.c, adopt"):
        check(prepare(recipe))


def test_a_pruned_model_is_no_member_of_a_family(family: str, tmp_path: Path):
    recipe = tmp_path / "family.yaml"
    recipe.write_text(family.replace("evaluate:", "  e: [{prune: {method: depth, keep: 1}}]\nevaluate:"))
    with pytest.raises(BadInput, match=r"variants.e: a reference is built from models as they are"):
        check(prepare(recipe))
