"""Methods for linear layers refuse models of other ones: the plan by the architecture, and every step by the modules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from models.architectures import SWEPT, swept_model
from models.tiny import THIRD_PARTY_WARNINGS, make_tokenizer, text

from compresslab.errors import UnsupportedModel
from compresslab.methods.plain_linears import OTHER_PROJECTIONS
from compresslab.methods.registry import method_of
from compresslab.models.anatomy import check_linear
from compresslab.models.load import Loaded
from compresslab.plan.rules import objections, start
from compresslab.recipe.steps import Step
from compresslab.steps.contract import Context, run
from steps.methods import METHOD_CONFIGS

pytestmark = [pytest.mark.filterwarnings(warning) for warning in (*THIRD_PARTY_WARNINGS, "ignore::FutureWarning")]

# One of the settings of each method.
METHODS = {name: case for name, case in METHOD_CONFIGS.items() if " " not in name}
SERVING_LINEARS = [name for name, case in METHODS.items() if method_of(*case).plain_linears]
OTHERS = ("depth", "full", "lora", "forward-kl")
EXPERTS = ("mixtral", "granitemoe", "jetmoe")
TESTED: dict[str, dict[str, Any]] = {**SWEPT, "openai-gpt": SWEPT["gpt2"]}


@pytest.mark.parametrize("name", [name for name in TESTED if name not in EXPERTS])
def test_the_table_of_the_plan_is_what_the_models_have(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(SWEPT, name, TESTED[name])
    model = swept_model(name)
    found = ""
    try:
        check_linear(model, "rtn")
    except UnsupportedModel as error:
        found = str(error)
    known = OTHER_PROJECTIONS.get(model.config.get_text_config().model_type)
    assert found == "" if known is None else f"are in {known}, which is none" in found


def test_each_architecture_of_the_table_is_tested():
    assert OTHER_PROJECTIONS.keys() <= {str(settings.get("model_type", name)) for name, settings in TESTED.items()}


def test_methods_for_linear_layers_are_those_that_round_or_drop_single_weights():
    assert [
        name for name, (kind, _) in METHODS.items() if kind == "quantize" or name in ("magnitude", "wanda", "sparsegpt", "qlora")
    ] == SERVING_LINEARS


def plan_says(model: str, name: str) -> list[str]:
    kind, config = METHODS[name]
    return [objection.reason for objection in objections(start(model), Step.model_validate({kind: config.model_dump()}), {})]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    swept_model("gpt2").save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", SERVING_LINEARS)
def test_plan_and_step_refuse_gpt2_in_the_same_words(gpt2: Path, name: str, tmp_path: Path):
    (reason, *_) = plan_says(str(gpt2), name)
    assert reason.startswith(f"gpt2: {METHODS[name][1].method} ")
    assert "100% of the blocks' weights are in Conv1D, which is none" in reason
    with pytest.raises(UnsupportedModel) as caught:
        run(*METHODS[name], Loaded(swept_model("gpt2"), make_tokenizer()), Context(text(4, 32)), tmp_path / "made")
    assert str(caught.value) == reason
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", OTHERS)
def test_other_methods_are_not_refused(gpt2: Path, name: str):
    assert plan_says(str(gpt2), name) == []


def test_a_model_that_is_adopted_is_judged_by_its_own_architecture(gpt2: Path, tmp_path: Path):
    swept_model("llama").save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "llama"
    assert plan_says(str(tmp_path), "rtn") == []
    assert plan_says(str(gpt2), "rtn") != []
