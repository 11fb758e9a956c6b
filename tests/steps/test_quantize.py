"""Quantization stores the weights that the method defines, and loading returns the stored weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from models.tiny import THIRD_PARTY_WARNINGS, make, make_model, text
from transformers import AutoModelForCausalLM

from compresslab.algorithms.round_to_nearest import symmetric_scales
from compresslab.errors import BadInput
from compresslab.methods.bitsandbytes import Quantize4Bit, QuantizeInt8
from compresslab.methods.rtn import QuantizeRTN
from compresslab.models.formats.dequantize import kernel_name, load_for_scoring, scored_as_stored
from compresslab.models.load import probe_logits
from compresslab.models.save import reload_difference
from compresslab.steps import quantize_bnb
from compresslab.steps.checks import check_sizes
from compresslab.steps.contract import Context, run

pytestmark = [pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_weight_of_rtn_is_on_its_nearest_level(tmp_path: Path, bits: int, dtype: torch.dtype):
    run("quantize", QuantizeRTN(method="rtn", bits=bits, group_size=16), make("qwen2", dtype), Context(), tmp_path)
    plain = dict(load_for_scoring(tmp_path, dtype)[0].model.named_parameters())
    changed = 0
    for name, weight in make_model("qwen2", dtype).named_parameters():
        if not name.endswith("_proj.weight"):
            assert torch.equal(plain[name], weight), f"{name} is no linear layer of a block"
            continue
        scales = symmetric_scales(weight.detach(), bits, 16).float()[..., None]
        expected = (weight.float().view(*scales.shape[:2], 16) / scales).round() * scales
        assert torch.equal(plain[name], expected.view_as(weight).to(dtype)), name
        changed += int((plain[name] != weight).sum())
    assert changed > 10_000


def test_a_group_size_that_leaves_a_remainder_names_the_layer_and_the_sizes_that_fit(tmp_path: Path):
    loaded = make("llama", intermediate_size=96)
    before = probe_logits(loaded.model)
    with pytest.raises(BadInput) as caught:
        run("quantize", QuantizeRTN(method="rtn", group_size=64), loaded, Context(), tmp_path / "model")
    message = str(caught.value)
    assert "group_size 64 does not divide the 96 inputs of model.layers.0.mlp.down_proj" in message
    assert message.endswith("sizes that divide every layer: 16, 32")
    assert torch.equal(probe_logits(loaded.model), before)


def test_no_size_that_fits_is_said_so(tmp_path: Path):
    with pytest.raises(BadInput, match="none of the usual ones"):
        run("quantize", QuantizeRTN(method="rtn", group_size=64), make("llama", intermediate_size=100), Context(), tmp_path)


@pytest.mark.parametrize("double", [False, True])
def test_an_nf4_folder_stays_good_though_the_model_in_memory_was_used(tmp_path: Path, double: bool):
    done = run("quantize", Quantize4Bit(method="bnb-nf4", double_quantization=double), make("llama"), Context(), tmp_path)
    with torch.no_grad():
        for _ in range(2):
            done.loaded.model(text().ids)
    assert reload_difference(tmp_path, done.probe) == 0
    assert torch.equal(probe_logits(done.loaded.model), done.probe)
    assert done.record.size.effective_bits < 10


def test_double_quantization_stores_less(tmp_path: Path):
    single, double = (
        run(
            "quantize",
            Quantize4Bit(method="bnb-nf4", double_quantization=double),
            make("llama", hidden_size=384),
            Context(),
            tmp_path / name,
        )
        for name, double in (("single", False), ("double", True))
    )
    linear = 4 * (2 * 384 * 384 + 2 * 384 * 192 + 3 * 384 * 128)
    # 4 bytes a block of 64, or 1 and, in each of 28 matrices, about 1,100 for a table of its own.
    saved = single.record.size.stored_bytes - double.record.size.stored_bytes
    assert saved == pytest.approx(3 * linear / 64 - 28 * 1100, rel=0.05)


@pytest.mark.parametrize("name", ["llama", "qwen2"])
@pytest.mark.parametrize("config", [Quantize4Bit(method="bnb-nf4"), QuantizeRTN(method="rtn")], ids=lambda config: config.method)
def test_scores_on_plain_weights_are_those_of_the_packed_ones(tmp_path: Path, config: Quantize4Bit | QuantizeRTN, name: str):
    done = run("quantize", config, make(name), Context(), tmp_path)
    plain, how = load_for_scoring(tmp_path, torch.bfloat16)
    assert how == "dequantized"
    assert not hasattr(plain.model.config, "quantization_config") or config.method == "rtn"
    assert {parameter.dtype for name, parameter in plain.model.named_parameters() if name.endswith("_proj.weight")} == {torch.bfloat16}
    # The packed kernel rounds its scales to bfloat16.
    apart = (probe_logits(plain.model) - done.probe).norm()
    assert apart < 0.1 * (probe_logits(make_model(name)) - done.probe).norm(), "nearer to each other than to the original by far"


def test_int8_is_scored_as_it_is_stored_because_it_rounds_activations_too(tmp_path: Path):
    done = run("quantize", QuantizeInt8(method="bnb-int8"), make("llama"), Context(), tmp_path)
    assert scored_as_stored(tmp_path)
    loaded, how = load_for_scoring(tmp_path, torch.bfloat16)
    assert how == "as stored"
    assert torch.equal(probe_logits(loaded.model), done.probe)
    assert kernel_name(tmp_path) == "bitsandbytes LLM.int8()"


def test_the_folder_is_read_once_for_scoring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run("quantize", QuantizeRTN(method="rtn"), make("llama"), Context(), tmp_path)
    reads = 0
    read = AutoModelForCausalLM.from_pretrained

    def counted(*args: object, **options: object) -> object:
        nonlocal reads
        reads += 1
        return read(*args, **options)

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", counted)
    load_for_scoring(tmp_path, torch.bfloat16)
    assert reads == 1


def test_the_output_head_and_the_embedding_stay_as_they_are(tmp_path: Path):
    for config in (Quantize4Bit(method="bnb-nf4"), QuantizeInt8(method="bnb-int8"), QuantizeRTN(method="rtn")):
        for name in ("gpt-neox", "qwen2"):
            folder = tmp_path / f"{config.method}-{name}"
            run("quantize", config, make(name), Context(), folder)
            plain = load_for_scoring(folder, torch.bfloat16)[0].model
            original = make_model(name)
            assert torch.equal(plain.get_output_embeddings().weight, original.get_output_embeddings().weight)
            assert torch.equal(plain.get_input_embeddings().weight, original.get_input_embeddings().weight)


@pytest.mark.parametrize(("width", "fits"), [(96, False), (128, True)])
def test_nf4_refuses_sizes_that_the_kernel_of_this_processor_cannot_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, fits: bool
):
    layers = quantize_bnb.quantizable(make_model("llama", intermediate_size=width))
    if fits:
        check_sizes(layers, "bnb-nf4", "the kernel", quantize_bnb.BLOCK, quantize_bnb.KERNEL_ROWS)
        return
    monkeypatch.setattr(quantize_bnb, "has_avx512bf16", lambda: True)
    loaded = make("llama", intermediate_size=width)
    with pytest.raises(BadInput, match=r"model\.layers\.0\.mlp\.down_proj has 96 inputs and 64 outputs; .* multiples of 64 .*multiple: 64"):
        run("quantize", Quantize4Bit(method="bnb-nf4"), loaded, Context(), tmp_path / "model")
    assert not (tmp_path / "model").exists()
