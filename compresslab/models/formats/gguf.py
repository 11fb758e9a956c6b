"""Writes a model as a GGUF file for llama.cpp and the tools built on it.

The file contains the values of the folder exactly, or rounded to one of the formats that the gguf library quantizes to (Q8_0, Q4_0). A
model that cannot be written so is refused. This includes tokenizers whose pre-tokenizer has no known name in llama.cpp, since a wrong name
changes the tokens silently.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, MODEL_ARCH, GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType, get_tensor_name_map, quants
from numpy.typing import NDArray
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from compresslab.errors import RunFailed, UnsupportedModel
from compresslab.files import atomic_write
from compresslab.models.load import cast, load_folder, load_gguf, probe_logits, quiet

GgufType = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]
FILE_TYPES: dict[GgufType, tuple[LlamaFileType, GGMLQuantizationType]] = {
    "f32": (LlamaFileType.ALL_F32, GGMLQuantizationType.F32),
    "f16": (LlamaFileType.MOSTLY_F16, GGMLQuantizationType.F16),
    "bf16": (LlamaFileType.MOSTLY_BF16, GGMLQuantizationType.BF16),
    "q8_0": (LlamaFileType.MOSTLY_Q8_0, GGMLQuantizationType.Q8_0),
    "q4_0": (LlamaFileType.MOSTLY_Q4_0, GGMLQuantizationType.Q4_0),
}
OF_DTYPE: dict[torch.dtype, GgufType] = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
# llama.cpp's names of byte-level pre-tokenizers, by their parts in tokenizer.json.
PRE_TOKENIZERS = {("ByteLevel",): "gpt-2", ("Digits", "ByteLevel"): "smollm"}
# The same, by the pattern that splits before the bytes.
SPLIT_PATTERNS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "qwen2",
}


class Architecture(NamedTuple):
    """An architecture that llama.cpp knows, under its name of it.

    Attributes:
        interleaved: llama.cpp has the rotary pairs of queries and keys adjacent, and not in two halves of a head as transformers has them.
    """

    number: MODEL_ARCH
    interleaved: bool


ARCHITECTURES = {
    "llama": Architecture(MODEL_ARCH.LLAMA, interleaved=True),
    "qwen2": Architecture(MODEL_ARCH.QWEN2, interleaved=False),
    "qwen3": Architecture(MODEL_ARCH.QWEN3, interleaved=False),
}


def write_gguf(folder: Path, path: Path, name: str, description: str, kind: GgufType | None = None) -> GgufType:
    """Write the model of a folder as one GGUF file, read it back, and compare the logits.

    Args:
        name, description: metadata of the file.
        kind: the format of the matrices; by default the folder's dtype. Vectors are in float32. In a file of Q4_0 the output projection, or
            the embedding that stands for it, is in Q8_0, because it loses most (llama.cpp keeps it in Q6_K).

    Returns:
        The format.

    Raises:
        UnsupportedModel: it is no plain model of a supported architecture with a known byte-level tokenizer, or has dimensions or values
            that the format cannot hold; nothing was written.
        RunFailed: the logits of the file differ from those of the folder with the same rounding.
    """
    loaded = load_folder(folder)
    config, tokenizer = loaded.model.config, _tokenizer(loaded.tokenizer)
    _check_supported(config)
    chosen = kind or OF_DTYPE[loaded.model.dtype]

    def write(part: Path) -> None:
        writer = GGUFWriter(part, config.model_type)
        _write_metadata(writer, config, name, description, chosen)
        _write_tokenizer(writer, tokenizer, loaded.tokenizer, config.vocab_size)
        _write_tensors(writer, loaded.model, chosen)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        _check(part, loaded.model, chosen)

    atomic_write(path, write)
    return chosen


def _check_supported(config: PretrainedConfig) -> None:
    packed = getattr(config, "quantization_config", None)
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    reason = ""
    if packed is not None:
        reason = "its weights are packed; GGUF has formats of its own, which llama.cpp makes from a plain file"
    elif config.model_type not in ARCHITECTURES:
        reason = f"it is a {config.model_type}; only {', '.join(ARCHITECTURES)} are written"
    elif "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        reason = "some of its layers attend to a window, which is not written"
    elif rope != "default":
        reason = f"its rotary embedding is {rope!r}, which needs factors that are not written"
    elif config.model_type != "llama" and _head(config) != (read := _head(_as_read(config))):
        reason = f"its heads have {_head(config)} dimensions and transformers reads {read} from any such file, so it could not be checked"
    elif getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False):
        reason = "its linear layers have biases"
    if reason:
        raise UnsupportedModel(f"this model cannot be written as GGUF: {reason}. Export a folder instead")


def _head(config: PretrainedConfig) -> int:
    """Dimensions of an attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _as_read(config: PretrainedConfig) -> PretrainedConfig:
    """A configuration as transformers reads it from a GGUF file, as far as the dimensions of heads go. Only a Llama's are in the file."""
    return type(config)(hidden_size=config.hidden_size, num_attention_heads=config.num_attention_heads)


def _tokenizer(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The content of tokenizer.json with llama.cpp's name of the pre-tokenizer as `pre`.

    Raises:
        UnsupportedModel: it is no byte-level BPE, or its pre-tokenizer is not known.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content: dict[str, Any] = json.loads(backend.to_str()) if backend is not None else {}
    called, kind = _pre_tokenizer(content.get("pre_tokenizer") or {})
    # llama.cpp does not normalize. Qwen's tokenizer does, to NFC, in which text almost always is already.
    normalized = content.get("normalizer") if called != "qwen2" or content.get("normalizer") != {"type": "NFC"} else None
    if content.get("model", {}).get("type") != "BPE" or called is None or normalized:
        description = " then ".join(kind) or "none"
        raise UnsupportedModel(
            f"this model cannot be written as GGUF: llama.cpp's name for its tokenizer ({description}) is not known here, and a wrong one "
            "would change its tokens silently. Export a folder instead"
        )
    return {**content, "pre": called}


def _pre_tokenizer(content: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    """llama.cpp's name of a pre-tokenizer as tokenizer.json has it, `None` if it is not known here; and its parts."""
    parts = content.get("pretokenizers", [content] if content else [])
    kind = tuple(str(part.get("type")) for part in parts)
    if any(part.get("add_prefix_space", False) for part in parts if part.get("type") == "ByteLevel"):
        return None, list(kind)
    if kind == ("Split", "ByteLevel"):
        split, by_bytes = parts
        plain = split.get("behavior") == "Isolated" and not split.get("invert", False) and not by_bytes.get("use_regex", True)
        return (SPLIT_PATTERNS.get(split.get("pattern", {}).get("Regex")) if plain else None), list(kind)
    plain = all(part.get("use_regex", True) for part in parts if part.get("type") == "ByteLevel")
    digits = all(part.get("individual_digits", False) for part in parts if part.get("type") == "Digits")
    return (PRE_TOKENIZERS.get(kind) if plain and digits else None), list(kind)


def _write_metadata(writer: GGUFWriter, config: PretrainedConfig, name: str, description: str, kind: GgufType) -> None:
    head = _head(config)
    writer.add_name(name)
    writer.add_description(description)
    writer.add_file_type(FILE_TYPES[kind][0])
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _write_tokenizer(writer: GGUFWriter, content: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, size: int) -> None:
    """Write tokens by id, merges and special tokens. Ids of the embedding without a token are marked as unused."""
    added = {entry["id"]: entry for entry in content["added_tokens"]}
    tokens = {number: token for token, number in content["model"]["vocab"].items()} | {
        number: entry["content"] for number, entry in added.items()
    }
    types = []
    for number in range(size):
        special = added[number]["special"] if number in added else None
        kind = TokenType.UNUSED if number not in tokens else TokenType.NORMAL
        types.append(kind if special is None else TokenType.CONTROL if special else TokenType.USER_DEFINED)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in content["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(content["pre"])
    writer.add_token_list([tokens.get(number, f"[unused{number}]") for number in range(size)])
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    for add, number in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
    ):
        if number is not None:
            add(number)
    first = tokenizer("a")["input_ids"][:1]
    writer.add_add_bos_token(tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id])
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _write_tensors(writer: GGUFWriter, model: PreTrainedModel, kind: GgufType) -> None:
    architecture = ARCHITECTURES[model.config.model_type]
    names = get_tensor_name_map(architecture.number, model.config.num_hidden_layers)
    heads = {"q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads} if architecture.interleaved else {}
    tied = model.config.tie_word_embeddings
    for name, tensor in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue  # without it, llama.cpp uses the embedding
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise UnsupportedModel(f"this model cannot be written as GGUF: llama.cpp has no place for {name}")
        count = next((count for part, count in heads.items() if part in name), None)
        plain = tensor if count is None else _interleaved(tensor, count)
        own = _kind(name, plain, model, kind)
        writer.add_tensor(target, _quantized(name, plain, own), raw_dtype=own)


def _kind(name: str, tensor: Tensor, model: PreTrainedModel, kind: GgufType) -> GGMLQuantizationType:
    """The format of one tensor in a file of `kind`."""
    if tensor.ndim == 1:
        return GGMLQuantizationType.F32  # llama.cpp needs vectors in it
    output = "model.embed_tokens.weight" if model.config.tie_word_embeddings else "lm_head.weight"
    return GGMLQuantizationType.Q8_0 if kind == "q4_0" and name == output else FILE_TYPES[kind][1]


def _quantized(name: str, tensor: Tensor, kind: GGMLQuantizationType) -> NDArray[Any]:
    """A tensor in a format, as the bytes or numbers that a file holds.

    Raises:
        UnsupportedModel: rows that are no whole number of the format's blocks, or values beyond its range.
    """
    values: NDArray[np.float32] = tensor.float().cpu().numpy()
    block = GGML_QUANT_SIZES[kind][0]
    if values.shape[-1] % block:
        raise UnsupportedModel(
            f"{name} has rows of {values.shape[-1]} weights, and {kind.name} rounds {block} together; take --gguf-type f16 or bf16"
        )
    with np.errstate(over="ignore"):  # looked at below
        quantized: NDArray[Any] = quants.quantize(values, kind)
    if kind == GGMLQuantizationType.F16 and not np.isfinite(quantized).all():
        raise UnsupportedModel(f"{name} has values beyond the range of float16; take --gguf-type bf16 or f32")
    return quantized


def _interleaved(weight: Tensor, heads: int) -> Tensor:
    """The rows of a query or key projection in llama.cpp's order, with rotary pairs adjacent instead of in two halves of a head."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def _check(path: Path, model: PreTrainedModel, kind: GgufType) -> None:
    """Load the file with transformers and compare logits with those of the model after the same rounding.

    Products are in float32, which is fast on every machine and exact for 16-bit weights. The model is changed.

    Raises:
        RunFailed: the logits differ.
    """
    with quiet():
        reloaded = load_gguf(path, torch.float32, model.device).model
    expected = cast(model, torch.float32)
    with torch.no_grad():
        for name, tensor in expected.named_parameters():
            own = _kind(name, tensor, expected, kind)
            rounded = quants.dequantize(_quantized(name, tensor.detach(), own), own)
            tensor.copy_(torch.from_numpy(np.asarray(rounded, dtype=np.float32)).view(tensor.shape))
    ours, theirs = probe_logits(expected), probe_logits(reloaded)
    difference = float((theirs - ours).abs().max())
    if not difference <= 1e-5:
        raise RunFailed(f"the GGUF file, read back, gives logits that are off by {difference:.3g}; it was not kept")
