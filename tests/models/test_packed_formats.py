"""GPTQ and AWQ checkpoints: the layout of bits, and equal weights after reading."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from compresslab.algorithms.gptq import Rounded
from compresslab.algorithms.grid import Grid
from compresslab.errors import RunFailed, UnsupportedModel
from compresslab.methods.adopt import Adopt
from compresslab.methods.awq import QuantizeAWQ
from compresslab.methods.gptq import QuantizeGPTQ
from compresslab.models.computing import _round_inputs
from compresslab.models.formats import awq as awq_format
from compresslab.models.formats import gptq as gptq_format
from compresslab.models.formats import gptqmodel_layers
from compresslab.models.formats.bit_packing import packed, unpacked
from compresslab.models.formats.dequantize import load_for_scoring
from compresslab.models.formats.torchao import TorchAOReader
from compresslab.models.load import Loaded, load
from compresslab.models.save import reload_difference
from compresslab.models.surgery.folding import divide_inputs
from compresslab.steps.contract import Context, run
from models.tiny import COMMON, GROUPED, THIRD_PARTY_WARNINGS, make, make_tokenizer, text

pytestmark = [pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), bits=st.sampled_from([2, 3, 4, 8]), rounds=st.integers(1, 4), columns=st.integers(1, 5))
def test_packing_is_undone_by_unpacking(seed: int, bits: int, rounds: int, columns: int):
    values = torch.randint(0, 2**bits, (32 * rounds, columns), generator=torch.Generator().manual_seed(seed))
    words = packed(values, bits)
    assert words.dtype == torch.int32
    assert words.shape == (rounds * bits, columns)
    assert torch.equal(unpacked(words, bits).long(), values)


def test_the_first_value_lies_in_the_lowest_bits_and_three_bit_values_cross_words():
    values = torch.zeros(32, 1, dtype=torch.int64)
    values[0], values[1], values[10] = 5, 1, 7
    first, second, third = packed(values, 3).flatten().tolist()
    assert first & 0b111111 == 0b001101
    assert (first >> 30) & 0b11 == 0b11, "two bits of the eleventh value end the first word"
    assert (second, third) == (1, 0), "its last bit begins the second"


def rounded(outputs: int, inputs: int, groups: int, bits: int) -> Rounded:
    generator = torch.Generator().manual_seed(bits)
    codes = torch.randint(0, 2**bits, (outputs, inputs), generator=generator).to(torch.uint8)
    scale = torch.rand(outputs, groups, generator=generator).half().float() * 0.01 + 2**-10
    zero = torch.randint(1, 2**bits, (outputs, groups), generator=generator).float()
    return Rounded(codes, Grid(scale.half().float(), zero))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq_tensors_give_the_weight_back(bits: int):
    made = rounded(64, 96, 3, bits)
    tensors = gptq_format.tensors_of(made, bits)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "qweight": (96 * bits // 32, 64),
        "qzeros": (3, 64 * bits // 32),
        "scales": (3, 64),
        "g_idx": (96,),
    }
    assert torch.equal(gptq_format.weight_of(tensors, bits, "gptq"), made.weight().half())
    stored = unpacked(tensors["qzeros"].T.contiguous(), bits).T
    assert torch.equal(stored.float().T, made.grid.zero - 1), "the first form of the format stores zero points less one"
    plus_one = {**tensors, "qzeros": packed(made.grid.zero, bits).T.contiguous()}
    assert torch.equal(gptq_format.weight_of(plus_one, bits, "gptq_v2"), made.weight().half())


def test_awq_tensors_give_the_weight_back():
    made = rounded(64, 96, 3, 4)
    tensors = awq_format.tensors_of(made)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {"qweight": (96, 8), "qzeros": (3, 8), "scales": (3, 64)}
    assert torch.equal(awq_format.weight_of(tensors), made.weight().half())
    word = int(tensors["qweight"][0, 0]) & 0xFFFFFFFF
    assert [(word >> 4 * place) & 15 for place in range(8)] == [int(made.codes[output, 0]) for output in (0, 2, 4, 6, 1, 3, 5, 7)]


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("llama-tied", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
        ("llama-tied", ["mlp.gate_proj", "mlp.up_proj"]),
        ("llama-tied", ["mlp.down_proj"]),
        ("gemma3", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
        ("gemma2", ["mlp.gate_proj", "mlp.up_proj"]),
        ("gpt-neox", ["attention.query_key_value"]),
        ("gpt-neox", ["mlp.dense_h_to_4h"]),
    ],
)
def test_dividing_inputs_where_they_come_from_and_multiplying_weights_changes_nothing(name: str, names: list[str]):
    model = make(name, torch.float32).model
    ids = text(2, 16).ids
    with torch.no_grad():
        before = model(ids).logits
        layer = model.base_model.layers[1]
        linears = dict(layer.named_modules())
        scale = torch.rand(linears[names[0]].in_features, generator=torch.Generator().manual_seed(0)) + 0.5
        made = divide_inputs(layer, names, scale)
        assert made is not None
        torch.testing.assert_close(made, scale, rtol=1e-3, atol=1e-3)
        divided = model(ids).logits
        for linear in names:
            linears[linear].weight.data *= made
        after = model(ids).logits
    assert (divided - before).abs().max() > 1e-2
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)


def test_what_an_activation_function_or_shared_values_stand_before_is_not_divided():
    neox, grouped = make("gpt-neox").model, make("llama").model
    before = {name: value.clone() for name, value in neox.state_dict().items()}
    assert divide_inputs(neox.base_model.layers[0], ["mlp.dense_4h_to_h"], torch.full((128,), 2.0)) is None
    assert divide_inputs(grouped.base_model.layers[0], ["self_attn.o_proj"], torch.full((64,), 2.0)) is None
    assert all(torch.equal(value, before[name]) for name, value in neox.state_dict().items())


def test_a_norm_that_does_not_scale_by_its_weight_is_refused():
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(64))

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return hidden * self.weight.square()

    layer = make("llama").model.base_model.layers[0]
    layer.input_layernorm = Odd()
    with pytest.raises(UnsupportedModel, match="Odd does not multiply its output by its weight"):
        divide_inputs(layer, ["self_attn.q_proj"], torch.ones(64))


def test_a_folder_that_auto_gptq_wrote_is_adopted_and_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = run("quantize", QuantizeGPTQ(method="gptq"), make("llama"), Context(text(4, 32)), tmp_path / "ours")
    theirs = tmp_path / "theirs"
    (tmp_path / "ours").rename(theirs)
    (theirs / "model.safetensors").rename(theirs / "gptq_model-4bit-32g.safetensors")
    config = json.loads((theirs / "config.json").read_text())
    told = config.pop("quantization_config")
    (theirs / "config.json").write_text(json.dumps(config))
    (theirs / "quantize_config.json").write_text(json.dumps({key: told[key] for key in ("bits", "group_size", "sym", "desc_act")}))
    adopted = run("adopt", Adopt(model=str(theirs)), load(str(theirs)), Context(), tmp_path / "adopted")
    assert adopted.tensors == made.tensors
    assert adopted.record.size == made.record.size
    assert (tmp_path / "adopted" / "model.safetensors").read_bytes() == (theirs / "gptq_model-4bit-32g.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("kind", "what"),
    [("olmo2", "mlp.gate_proj, mlp.up_proj"), ("cohere", "self_attn.q_proj"), ("nemotron", "mlp.down_proj"), ("phi", "self_attn.q_proj")],
)
def test_awq_refuses_a_layer_whose_inputs_cannot_be_divided_where_they_come_from(kind: str, what: str, tmp_path: Path):
    """A norm after the block, an MLP parallel to the attention, an activation function without a gate."""
    torch.manual_seed(0)
    loaded = Loaded(AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**COMMON, **GROUPED})).eval(), make_tokenizer())
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    with pytest.raises(
        UnsupportedModel, match=rf"{kind}: awq cannot scale the inputs of {what}.* in layer 0: .* changes the layer by \d+%"
    ):
        run("quantize", QuantizeAWQ(method="awq"), loaded, Context(text(4, 32)), tmp_path / "model")
    assert all(torch.equal(value, before[name]) for name, value in loaded.model.state_dict().items())


def test_a_folder_that_lacks_a_packed_layer_is_not_scored_with_random_numbers(tmp_path: Path):
    run("quantize", QuantizeGPTQ(method="gptq"), make("llama"), Context(text(4, 32)), tmp_path)
    tensors = {name: value for name, value in load_file(tmp_path / "model.safetensors").items() if "layers.1.mlp.down_proj" not in name}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunFailed, match=r"packed weights lack model\.layers\.1\.mlp\.down_proj\.weight"):
        load_for_scoring(tmp_path, torch.bfloat16)


@pytest.mark.parametrize(
    ("key", "value", "told"), [("checkpoint_format", "marlin", "GPTQ in the form 'marlin'"), ("dynamic", {"a": 1}, "bits by layer")]
)
def test_forms_of_the_format_that_are_not_read_are_named(tmp_path: Path, key: str, value: object, told: str):
    run("quantize", QuantizeGPTQ(method="gptq"), make("llama"), Context(text(4, 32)), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"][key] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModel, match=told):
        load_for_scoring(tmp_path, torch.bfloat16)


@pytest.mark.slow
@pytest.mark.parametrize("config", [QuantizeGPTQ(method="gptq"), QuantizeAWQ(method="awq")], ids=["gptq", "awq"])
def test_a_kernel_that_returns_no_weights_is_checked_by_those_in_the_files(
    config: QuantizeGPTQ | QuantizeAWQ, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What kernels for GPUs do, whose layout nobody undoes."""
    pytest.importorskip("gptqmodel")
    monkeypatch.setattr(gptqmodel_layers, "_kernel_weight", lambda _: torch.empty(0))
    step = run("quantize", config, make("llama"), Context(text()), tmp_path)
    probe = step.probe + 0.02 * step.probe.std()  # rounding of that kernel
    assert reload_difference(tmp_path, probe, step.tensors) == 0.0
    assert reload_difference(tmp_path, probe, {"another": "digest"}) > 1e-3


def test_a_layout_that_cannot_be_unpacked_is_unpacked_by_its_kernel():
    plain = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).bfloat16()

    class Packed:
        """A weight of torchao's int4 kernel for GPUs."""

        shape, dtype, device = plain.shape, plain.dtype, plain.device

        def __tensor_flatten__(self) -> tuple[list[str], None]:
            return [], None

        def dequantize(self) -> torch.Tensor:
            raise NotImplementedError

        @classmethod
        def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert function.__name__ == "linear"
            return args[0] @ plain.T

    assert torch.equal(TorchAOReader().plain_weight(Packed()), plain)  # type: ignore[arg-type]


def test_a_kernel_for_16_bits_takes_and_returns_float32():
    class Kernel(torch.nn.Module):
        compute_dtype = torch.bfloat16

        def forward(self, given: torch.Tensor) -> torch.Tensor:
            assert given.dtype == torch.bfloat16
            return given * 2

    kernel = Kernel()
    _round_inputs(kernel, torch.float32)
    output = kernel(torch.ones(2))
    assert output.dtype == torch.float32
    assert output.tolist() == [2.0, 2.0]
