"""AWQ scales the inputs of fused projections (queries, keys and values, gate and up) and refuses where it can scale none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from models.tiny import COMMON, GROUPED, THIRD_PARTY_WARNINGS, make_tokenizer, text
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from compresslab.errors import UnsupportedModel
from compresslab.methods.awq import QuantizeAWQ
from compresslab.methods.rtn import QuantizeRTN
from compresslab.models.calibration.blockwise import Blockwise
from compresslab.models.formats.dequantize import load_for_scoring
from compresslab.models.load import Loaded
from compresslab.models.surgery import folding
from compresslab.models.surgery.folding import check_folding
from compresslab.steps.contract import Context, run

pytestmark = [pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS]
FUSED = ("phi3", "glm", "glm4")
OUTLIER = 5


def with_outlier(kind: str, size: float = 40.0, **settings: Any) -> Loaded:
    """A model one channel of whose normed hidden states, and one of whose neurons and values, are larger than the others by `size`."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**COMMON, **GROUPED, "head_dim": 16, **settings})).float()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.12)
        for layer in model.model.layers:
            layer.input_layernorm.weight[OUTLIER] *= size**0.5  # larger ones would saturate the attention
            layer.post_attention_layernorm.weight[OUTLIER] *= size
            layer.mlp.gate_up_proj.weight[layer.mlp.gate_up_proj.out_features // 2 + OUTLIER] *= size
    return Loaded(model.eval(), make_tokenizer())


@pytest.mark.slow
@pytest.mark.parametrize("kind", FUSED)
def test_awq_loses_less_than_rounding_to_the_nearest_where_a_channel_is_large(kind: str, tmp_path: Path):
    words = text(16, 32)
    blocks = Blockwise(with_outlier(kind).model, words.input)
    inputs, outputs = zip(*(next(iter(list(blocks.outputs_of(number)))) for number in range(4)), strict=True)  # of the only batch

    def error(name: str, config: QuantizeRTN | QuantizeAWQ) -> float:
        """The mean over layers of the error of what a layer adds to the hidden states of the whole model, relative to it."""
        done = run("quantize", config, with_outlier(kind), Context(words), tmp_path / name)
        for exponents in done.record.details.get("exponents", ()):
            assert min(exponent for linear, exponent in exponents.items() if "o_proj" not in linear) > 0, exponents
        layers, found = load_for_scoring(tmp_path / name, torch.float32)[0].model.model.layers, []
        with torch.no_grad():
            for number, layer in enumerate(layers):
                hidden, (args, kwargs) = inputs[number], blocks.arguments[0][number]
                added = outputs[number] - hidden
                found.append(((layer(hidden, *args, **kwargs) - outputs[number]).square().sum() / added.square().sum()).item())
        return sum(found) / len(found)

    nearest = error("nearest", QuantizeRTN(method="rtn", group_size=32))
    assert error("scaled", QuantizeAWQ(method="awq", group_size=32)) < 0.5 * nearest


@pytest.mark.parametrize("heads", [{"num_key_value_heads": 4}, {"num_key_value_heads": 2}], ids=["values of one head", "shared values"])
def test_the_rows_of_values_take_the_scale_of_the_projection_behind_them(heads: dict[str, int], tmp_path: Path):
    """Only where no two queries share a value."""
    done = run("quantize", QuantizeAWQ(method="awq"), with_outlier("phi3", **heads), Context(text(4, 32)), tmp_path)
    found = [exponents["self_attn.o_proj"] for exponents in done.record.details["exponents"]]
    assert any(found) == (heads["num_key_value_heads"] == 4)


def test_the_rows_of_the_gate_are_no_place_for_the_scale_behind_it():
    """The check on a copy of each layer tells the half before the activation function from the other."""
    loaded = with_outlier("phi3", 1.0)
    check_folding(loaded)

    class Swapped(nn.Module):
        def __init__(self, mlp: Any) -> None:
            super().__init__()
            self.gate_up_proj, self.down_proj = mlp.gate_up_proj, mlp.down_proj

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            up, gate = self.gate_up_proj(hidden).chunk(2, dim=-1)
            result: torch.Tensor = self.down_proj(up * nn.functional.silu(gate))
            return result

    loaded.model.model.layers[0].mlp = Swapped(loaded.model.model.layers[0].mlp)
    with pytest.raises(UnsupportedModel, match=r"phi3: awq cannot scale the inputs of mlp.down_proj in layer 0: .* changes the layer by"):
        check_folding(loaded)


def test_a_model_in_which_nothing_can_be_scaled_is_refused_and_not_rounded_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folding, "NORMS", {})
    monkeypatch.setattr(folding, "ROWS", {})
    with pytest.raises(UnsupportedModel, match=r"phi3: awq can scale no inputs in layer 0, .* self_attn.qkv_proj, .* Take gptq or rtn"):
        run("quantize", QuantizeAWQ(method="awq"), with_outlier("phi3"), Context(text(4, 32)), tmp_path / "model")
