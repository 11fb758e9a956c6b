"""A Llama as a GGUF file: transformers reads the same model and tokens from it; models that cannot be exact are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader, GGUFWriter, RopeScalingType
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from compresslab.errors import BadInput, RunFailed, UnsupportedModel
from compresslab.models.formats import gguf as gguf_file
from compresslab.models.formats.gguf import GgufType, write_gguf
from compresslab.models.load import load_folder, load_gguf, probe_logits


def words(splitter: pre_tokenizers.PreTokenizer) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["the quick brown fox jumps over the lazy dog in 2026"] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def folder(path: Path, dtype: torch.dtype = torch.float32, splitter: pre_tokenizers.PreTokenizer | None = None, **changes: object) -> Path:
    tokenizer = words(splitter or pre_tokenizers.ByteLevel(add_prefix_space=False))
    torch.manual_seed(0)
    settings = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=304, **{"initializer_range": 0.2, **settings, "tie_word_embeddings": True, **changes})
    LlamaForCausalLM(config).to(dtype).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tied", [True, False])
def test_the_file_read_back_is_the_same_model(tmp_path: Path, dtype: torch.dtype, tied: bool) -> None:
    source = folder(tmp_path / "model", dtype, tie_word_embeddings=tied, rope_parameters={"rope_type": "default", "rope_theta": 5e4})
    write_gguf(source, tmp_path / "out.gguf", "a name", "a description")
    plain, read = load_folder(source), load_gguf(tmp_path / "out.gguf", dtype, torch.device("cpu"))
    assert torch.equal(probe_logits(plain.model), probe_logits(read.model))
    text = "the lazy fox, 1987 <s> é"
    assert read.tokenizer(text)["input_ids"] == plain.tokenizer(text)["input_ids"]


def qwen(path: Path, kind: str, dtype: torch.dtype = torch.float32, pattern: str = PRETOKENIZE_REGEX, **changes: Any) -> Path:
    """A Qwen with its way of splitting text; biases and norms of heads are random, since fresh ones are 0 and 1."""
    splits = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer = words(pre_tokenizers.Sequence([splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]))
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    torch.manual_seed(0)
    settings = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    settings |= {"vocab_size": 304, "initializer_range": 0.2}
    config = Qwen2Config(**{**settings, **changes}) if kind == "qwen2" else Qwen3Config(**{"head_dim": 128, **settings, **changes})
    model = AutoModelForCausalLM.from_config(config)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            torch.nn.init.normal_(weight, mean=float("norm" in name), std=0.3)
    model.to(dtype).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_a_qwen_read_back_is_the_same_model(tmp_path: Path, kind: str, tied: bool, dtype: torch.dtype) -> None:
    source = qwen(tmp_path / "model", kind, dtype, tie_word_embeddings=tied, rope_parameters={"rope_type": "default", "rope_theta": 5e4})
    write_gguf(source, tmp_path / "out.gguf", "a name", "a description")
    plain, read = load_folder(source), load_gguf(tmp_path / "out.gguf", dtype, torch.device("cpu"))
    assert type(read.model) is type(plain.model)
    assert torch.equal(probe_logits(plain.model), probe_logits(read.model))
    text = "the lazy fox's, 1987 <s> é\n\n  (2026)"
    assert read.tokenizer(text)["input_ids"] == plain.tokenizer(text)["input_ids"]
    reader = GGUFReader(tmp_path / "out.gguf")
    assert reader.fields["general.architecture"].contents() == kind
    assert reader.fields["tokenizer.ggml.pre"].contents() == "qwen2"
    own = "blk.0.attn_q.bias" if kind == "qwen2" else "blk.0.attn_q_norm.weight"
    assert {tensor.tensor_type.name for tensor in reader.tensors if tensor.name == own} == {"F32"}


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_a_rounded_qwen_has_the_logits_of_the_rounded_weights(tmp_path: Path, kind: str) -> None:
    """`write_gguf` compares them."""
    for chosen in ("q8_0", "q4_0"):
        assert write_gguf(qwen(tmp_path / chosen, kind), tmp_path / f"{chosen}.gguf", "n", "d", chosen) == chosen


def test_a_qwen_with_a_window_other_heads_or_another_split_is_refused(tmp_path: Path) -> None:
    window = qwen(tmp_path / "window", "qwen2", use_sliding_window=True, sliding_window=8, max_window_layers=1)
    with pytest.raises(UnsupportedModel, match="some of its layers attend to a window"):
        write_gguf(window, tmp_path / "out.gguf", "n", "d")
    other = qwen(tmp_path / "other", "qwen3", pattern=PRETOKENIZE_REGEX.replace(r"|\p{N}|", r"|\p{N}{1,3}|"))
    with pytest.raises(UnsupportedModel, match=r"its tokenizer \(Split then ByteLevel\) is not known here"):
        write_gguf(other, tmp_path / "out.gguf", "n", "d")
    with pytest.raises(UnsupportedModel, match="its heads have 32 dimensions and transformers reads 128 from any such file"):
        write_gguf(qwen(tmp_path / "heads", "qwen3", head_dim=32), tmp_path / "out.gguf", "n", "d")
    with pytest.raises(UnsupportedModel, match="have biases"):
        write_gguf(qwen(tmp_path / "biased", "qwen3", attention_bias=True), tmp_path / "out.gguf", "n", "d")


@pytest.mark.parametrize(
    ("splitter", "called"),
    [
        (pre_tokenizers.ByteLevel(add_prefix_space=False), "gpt-2"),
        (
            pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
            "smollm",
        ),
    ],
)
def test_the_way_of_splitting_text_has_llama_cpps_name(tmp_path: Path, splitter: pre_tokenizers.PreTokenizer, called: str) -> None:
    write_gguf(folder(tmp_path / "model", splitter=splitter), tmp_path / "out.gguf", "n", "d")
    fields = GGUFReader(tmp_path / "out.gguf").fields
    assert fields["tokenizer.ggml.pre"].contents() == called
    types = fields["tokenizer.ggml.token_type"].contents()
    assert types[:3] == [3, 3, 1]  # control, control, normal
    assert types[-1] == 5  # an id that only the embedding has


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "its rotary embedding is 'linear'"),
        ({"attention_bias": True}, "have biases"),
        ({"splitter": pre_tokenizers.Whitespace()}, r"its tokenizer \(Whitespace\) is not known here"),
        ({"splitter": pre_tokenizers.ByteLevel(add_prefix_space=True)}, "is not known here"),
    ],
)
def test_what_would_not_be_exact_is_refused_and_nothing_is_left(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    source = folder(tmp_path / "model", **changes)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedModel, match=said):
        write_gguf(source, tmp_path / "out.gguf", "n", "d")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("kind", "bits", "error"), [("q8_0", 8.5, 0.01), ("q4_0", 4.5, 0.2), ("f16", 16, 1e-3)])
def test_a_rounded_file_holds_the_rounded_weights(tmp_path: Path, tied: bool, kind: GgufType, bits: float, error: float) -> None:
    source = folder(tmp_path / "model", tie_word_embeddings=tied)
    assert write_gguf(source, tmp_path / "out.gguf", "n", "d", kind) == kind
    tensors = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "out.gguf").tensors}
    assert {tensor.tensor_type.name for name, tensor in tensors.items() if "norm" in name} == {"F32"}
    inner = tensors["blk.0.ffn_up.weight"]
    assert inner.tensor_type.name == kind.upper()
    assert inner.n_bytes * 8 == bits * inner.n_elements
    output = tensors["token_embd.weight" if tied else "output.weight"]
    assert output.tensor_type.name == ("Q8_0" if kind == "q4_0" else kind.upper())
    plain, read = load_folder(source).model.state_dict(), load_gguf(tmp_path / "out.gguf", torch.float32, torch.device("cpu")).model
    for name, weight in read.state_dict().items():
        assert torch.allclose(weight, plain[name], atol=error), name
    assert not torch.equal(read.state_dict()["model.layers.0.mlp.up_proj.weight"], plain["model.layers.0.mlp.up_proj.weight"])


def test_rows_that_no_block_divides_and_values_beyond_float16_are_refused(tmp_path: Path) -> None:
    narrow = folder(tmp_path / "narrow", intermediate_size=80)
    with pytest.raises(UnsupportedModel, match=r"down_proj\.weight has rows of 80 weights, and Q8_0 rounds 32 together"):
        write_gguf(narrow, tmp_path / "out.gguf", "n", "d", "q8_0")
    large = folder(tmp_path / "large")
    weights = load_file(large / "model.safetensors")
    weights["model.layers.0.mlp.down_proj.weight"][0, 0] = 1e5
    save_file(weights, large / "model.safetensors", {"format": "pt"})
    with pytest.raises(UnsupportedModel, match="has values beyond the range of float16; take --gguf-type bf16"):
        write_gguf(large, tmp_path / "out.gguf", "n", "d", "f16")
    assert not (tmp_path / "out.gguf").exists()


def without(path: Path, tensor: str) -> None:
    """Write a GGUF file again, without one tensor."""
    reader = GGUFReader(path)
    writer = GGUFWriter(path.with_suffix(".part"), "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kind, *inner = field.types
            writer.add_key_value(field.name, field.contents(), kind, inner[0] if inner else None)
    for one in reader.tensors:
        if one.name != tensor:
            writer.add_tensor(one.name, one.data, raw_dtype=one.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path.with_suffix(".part").replace(path)


def test_a_file_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    write_gguf(folder(tmp_path / "model", tie_word_embeddings=False), tmp_path / "out.gguf", "n", "d")
    without(tmp_path / "out.gguf", "")
    load_gguf(tmp_path / "out.gguf", torch.float32, torch.device("cpu"))
    without(tmp_path / "out.gguf", "blk.1.ffn_up.weight")
    with pytest.raises(BadInput, match=r"out\.gguf: its weights lack model\.layers\.1\.mlp\.up_proj\.weight.*gguf-split --merge"):
        load_gguf(tmp_path / "out.gguf", torch.float32, torch.device("cpu"))


def test_what_lies_beside_a_file_does_not_change_what_is_loaded(tmp_path: Path) -> None:
    write_gguf(folder(tmp_path / "model"), tmp_path / "out.gguf", "n", "d")
    before = load_gguf(tmp_path / "out.gguf", torch.float32, torch.device("cpu"))
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "chat_template.jinja").write_text("another")
    (tmp_path / "adapter_config.json").write_text("{}")
    after = load_gguf(tmp_path / "out.gguf", torch.float32, torch.device("cpu"))
    assert after.tokenizer("the lazy fox")["input_ids"] == before.tokenizer("the lazy fox")["input_ids"]
    assert after.tokenizer.chat_template == before.tokenizer.chat_template
    assert torch.equal(probe_logits(after.model), probe_logits(before.model))


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    source = folder(tmp_path / "model")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "model_type": "mistral", "architectures": ["MistralForCausalLM"]}))
    with pytest.raises(UnsupportedModel, match="it is a mistral"):
        write_gguf(source, tmp_path / "out.gguf", "n", "d")


def test_a_file_with_other_logits_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_file, "_interleaved", lambda weight, _: weight)
    with pytest.raises(RunFailed, match="gives logits that are off by"):
        write_gguf(folder(tmp_path / "model"), tmp_path / "out.gguf", "n", "d")
    assert not (tmp_path / "out.gguf").exists()


def written(path: Path, monkeypatch: pytest.MonkeyPatch, add: Callable[[GGUFWriter], object]) -> None:
    """Write a Llama with something more in the file. It is read back as it is written."""
    before = gguf_file._write_metadata

    def write_metadata(writer: GGUFWriter, *args: Any) -> None:
        before(writer, *args)
        add(writer)

    monkeypatch.setattr(gguf_file, "_write_metadata", write_metadata)
    write_gguf(folder(path / "model"), path / "out.gguf", "a name", "a description")


@pytest.mark.parametrize(
    ("add", "named"),
    [
        (lambda writer: writer.add_rope_scaling_type(RopeScalingType.LINEAR), r"the field llama\.rope\.scaling\.type = linear"),
        (lambda writer: writer.add_rope_scaling_factor(8.0), r"the field llama\.rope\.scaling\.factor = 8\.0"),
        (lambda writer: writer.add_sliding_window(8), r"the field llama\.attention\.sliding_window = 8"),
        (lambda writer: writer.add_float32("llama.surprise", 0.5), r"the field llama\.surprise = 0\.5"),
        (lambda writer: writer.add_tensor("rope_freqs.weight", np.full(8, 2, np.float32)), r"the tensor rope_freqs\.weight"),
        (lambda writer: writer.add_tensor("blk.0.attn_q.bias", np.zeros(64, np.float32)), r"the tensor blk\.0\.attn_q\.bias"),
    ],
)
def test_what_transformers_would_drop_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, add: Callable[[GGUFWriter], object], named: str
) -> None:
    with pytest.raises(BadInput, match=f"has {named}, which transformers does not read"):
        written(tmp_path, monkeypatch, add)


@pytest.mark.parametrize(
    "add",
    [
        lambda writer: writer.add_rope_scaling_type(RopeScalingType.NONE),
        lambda writer: writer.add_rope_scaling_factor(1.0),
        lambda writer: writer.add_rope_scaling_orig_ctx_len(256),
        lambda writer: writer.add_tensor("rope_freqs.weight", np.ones(8, np.float32)),
        lambda writer: writer.add_tensor_data_layout("Meta AI original pth"),
    ],
)
def test_what_changes_nothing_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, add: Callable[[GGUFWriter], object]) -> None:
    written(tmp_path, monkeypatch, add)
    assert (tmp_path / "out.gguf").is_file()
