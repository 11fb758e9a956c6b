"""Sizes of models, compared with counts by hand and the bytes of the files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from compresslab.errors import BadInput
from compresslab.methods.bitsandbytes import Quantize4Bit, QuantizeInt8
from compresslab.methods.rtn import QuantizeRTN
from compresslab.models.counting.size import nonzero_of, shape_of, size_of, stored_tensors
from compresslab.models.save import save
from compresslab.records import Size
from compresslab.steps.contract import Context, run
from models.tiny import THIRD_PARTY_WARNINGS, VOCABULARY, make, make_model

pytestmark = [pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS]

HIDDEN, WIDTH, LAYERS = 64, 128, 4
EMBEDDING = VOCABULARY * HIDDEN
# q and o, k and v of half the width, three MLP matrices, two norms; and one norm at the end.
BLOCKS = LAYERS * (2 * HIDDEN * HIDDEN + 2 * HIDDEN * HIDDEN // 2 + 3 * HIDDEN * WIDTH + 2 * HIDDEN) + HIDDEN
PLAIN = {"attention_bias": False, "mlp_bias": False}


def weigh(folder: Path, name: str, dtype: torch.dtype = torch.bfloat16, **settings: object) -> Size:
    loaded = make(name, dtype, **settings)
    save(loaded, folder)
    return size_of(folder, nonzero_of(loaded.model))


def read_bytes(folder: Path) -> int:
    """The same from the tensors themselves, through safetensors."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            total += sum(opened.get_tensor(name).nbytes for name in opened.keys())  # noqa: SIM118, it is no dict
    return total


def test_a_tied_embedding_counts_once_and_counts_because_the_head_multiplies_by_it(tmp_path: Path):
    size = weigh(tmp_path, "llama-tied", **PLAIN)
    assert size.parameters == size.counted == size.active == BLOCKS + EMBEDDING


def test_an_untied_input_embedding_is_a_parameter_that_does_not_count(tmp_path: Path):
    size = weigh(tmp_path, "llama")
    assert size.parameters == BLOCKS + 2 * EMBEDDING
    assert size.counted == size.active == BLOCKS + EMBEDDING


def test_one_token_meets_only_its_own_experts(tmp_path: Path):
    size = weigh(tmp_path, "qwen3-moe")
    experts = LAYERS * 4 * 3 * HIDDEN * 32
    assert size.counted - size.active == experts // 2
    assert size.active > 0


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float32, 32), (torch.bfloat16, 16)])
def test_bytes_and_bits_are_those_of_the_files(tmp_path: Path, dtype: torch.dtype, bits: int):
    size = weigh(tmp_path, "llama", dtype)
    assert size.stored_bytes == read_bytes(tmp_path) == size.parameters * bits // 8
    assert size.effective_bits == 16
    assert size.stored_bytes < (tmp_path / "model.safetensors").stat().st_size, "the header is no weight"


def test_several_weight_files_are_added_up(tmp_path: Path):
    model = make_model("llama")
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert (
        sum(stored.bytes for stored in stored_tensors(tmp_path).values())
        == read_bytes(tmp_path)
        == 2 * sum(p.numel() for p in model.parameters())
    )


def test_a_folder_without_weights_is_refused(tmp_path: Path):
    with pytest.raises(BadInput, match="no safetensors file in"):
        stored_tensors(tmp_path)


def test_zeros_are_parameters_but_not_non_zero_ones(tmp_path: Path):
    loaded = make("llama")
    whole = sum(int(p.count_nonzero()) for p in loaded.model.parameters())
    weight = loaded.model.model.layers[1].mlp.up_proj.weight
    there = int(weight[:10].count_nonzero())
    weight.data[:10] = 0
    save(loaded, tmp_path)
    size = size_of(tmp_path, nonzero_of(loaded.model))
    assert size.nonzero == whole - there
    assert size.parameters == BLOCKS + 2 * EMBEDDING


@pytest.mark.parametrize(
    "config",
    [
        Quantize4Bit(method="bnb-nf4"),
        Quantize4Bit(method="bnb-nf4", double_quantization=True),
        QuantizeInt8(method="bnb-int8"),
        QuantizeRTN(method="rtn", bits=4),
    ],
    ids=lambda config: f"{config.method}{'-double' if getattr(config, 'double_quantization', False) else ''}",
)
def test_non_zero_weights_of_a_packed_model_are_those_of_its_plain_twin(tmp_path: Path, config: Quantize4Bit):
    from compresslab.models.formats.dequantize import dequantized

    loaded = make("llama")
    loaded.model.model.layers[0].mlp.up_proj.weight.data[:64] = 0
    done = run("quantize", config, loaded, Context(), tmp_path)
    plain = dequantized(tmp_path, done.loaded).model
    assert done.record.size.parameters == BLOCKS + 2 * EMBEDDING
    assert done.record.size.nonzero == sum(int(p.count_nonzero()) for p in plain.parameters())
    assert done.record.size.nonzero < done.record.size.parameters - 64 * HIDDEN


def test_bits_of_a_product_leave_out_an_embedding_that_is_only_looked_up(tmp_path: Path):
    done = run("quantize", QuantizeRTN(method="rtn", bits=4, group_size=32), make("llama"), Context(), tmp_path)
    linear = BLOCKS - LAYERS * 2 * HIDDEN - HIDDEN
    # 4 bits, a scale of 16 for each 32 weights, and the shape of each of 28 matrices, which the format stores as two 64-bit numbers.
    expected = 4.5 * linear + 28 * 128 + 16 * (BLOCKS - linear + EMBEDDING)
    assert done.record.shape.weight_bits == pytest.approx(expected / done.record.size.counted)
    assert done.record.shape.weight_bits < done.record.size.effective_bits


def test_the_shape_tells_what_the_config_says(tmp_path: Path):
    size = weigh(tmp_path, "qwen3-moe")
    shape = shape_of(tmp_path, size)
    assert (shape.architecture, shape.layers, shape.hidden, shape.vocabulary) == ("qwen3_moe", LAYERS, HIDDEN, VOCABULARY)
    assert (shape.attention_width, shape.key_value_width) == (64, 32)
    assert (shape.experts, shape.experts_per_token) == (4, 2)


def test_int8_computes_in_8_bits_and_the_others_only_store_in_fewer(tmp_path: Path):
    int8 = run("quantize", QuantizeInt8(method="bnb-int8"), make("llama"), Context(), tmp_path / "int8")
    rtn = run("quantize", QuantizeRTN(method="rtn"), make("llama"), Context(), tmp_path / "rtn")
    assert not int8.record.shape.weight_only
    assert rtn.record.shape.weight_only


@pytest.mark.parametrize("method", [Quantize4Bit(method="bnb-nf4"), QuantizeRTN(method="rtn"), QuantizeInt8(method="bnb-int8")])
def test_a_plain_weight_counts_sixteen_bits_at_most_whatever_copy_is_stored(tmp_path: Path, method: object):
    sizes = {}
    for dtype in (torch.bfloat16, torch.float32):
        base = weigh(tmp_path / f"base-{dtype}", "llama-tied", dtype)
        made = run("quantize", method, make("llama-tied", dtype), Context(), tmp_path / f"made-{dtype}").record  # type: ignore[arg-type]
        sizes[dtype] = (base, made.size, made.shape)
    narrow, wide = sizes[torch.bfloat16], sizes[torch.float32]
    assert narrow[0].effective_bits == wide[0].effective_bits == 16
    assert wide[0].stored_bytes == 2 * narrow[0].stored_bytes
    assert wide[1].stored_bytes > narrow[1].stored_bytes
    # Scales are stored in the dtype that the format chose, so they may differ; the plain weights beside them do not.
    assert wide[1].effective_bits == pytest.approx(narrow[1].effective_bits, rel=0.1)
    assert wide[2].weight_bits == pytest.approx(narrow[2].weight_bits, rel=0.1)


def test_buffers_in_the_files_are_none_of_the_parameters_bits(tmp_path: Path):
    """MiniMax saves the decays of its linear attention, which in a small model are as many numbers as its weights."""
    head = {"num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 128, "num_local_experts": 4, "num_experts_per_tok": 2}
    config = AutoConfig.for_model("minimax", vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, **head)
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    size = size_of(tmp_path, nonzero_of(model))
    assert size.stored_bytes > 2 * size.parameters
    assert size.effective_bits == 16
