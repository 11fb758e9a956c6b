"""Tiny random models of many architectures, and a byte-level tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from compresslab.models.load import Loaded
from compresslab.models.save import save
from compresslab.models.text import TokenSequences

LINES = [
    "A layer changes the hidden states that pass through it; one that changes them least is missed least.",
    "Compression makes a model smaller, and seldom denser: the loss that it costs buys a smaller model yet.",
    "The quick brown fox jumps over the lazy dog, while the dog sleeps in the warm sun.",
]
VOCABULARY = 304

# Per architecture: transformers' name and what its config takes beyond COMMON. Between them: tied and untied embeddings,
# grouped queries, biases, sliding windows on every layer and on some, soft-capped logits, q/k norms, layers without
# positions, experts.
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
GROUPED: dict[str, Any] = {"num_key_value_heads": 2, "intermediate_size": 128}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {**GROUPED, "tie_word_embeddings": False}),
    "llama-tied": ("llama", {**GROUPED, "tie_word_embeddings": True, "mlp_bias": True, "attention_bias": True}),
    "qwen2": ("qwen2", {**GROUPED, "tie_word_embeddings": True}),
    "qwen2-sliding": (
        "qwen2",
        {**GROUPED, "tie_word_embeddings": False, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
    ),
    "qwen3": ("qwen3", {**GROUPED, "head_dim": 32, "tie_word_embeddings": True}),
    "mistral": ("mistral", {**GROUPED, "head_dim": 16, "sliding_window": 8, "tie_word_embeddings": False}),
    "gemma2": ("gemma2", {**GROUPED, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8}),
    "gemma3": ("gemma3_text", {**GROUPED, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8, "sliding_window_pattern": 3}),
    "gpt-neox": ("gpt_neox", {"intermediate_size": 128, "tie_word_embeddings": False}),
    "smollm3": ("smollm3", {**GROUPED, "tie_word_embeddings": True, "no_rope_layer_interval": 2}),
    "qwen3-moe": (
        "qwen3_moe",
        {**GROUPED, "head_dim": 16, "moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2, "tie_word_embeddings": False},
    ),
}


def make_tokenizer(lines: list[str] = LINES) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on a few lines; it has at most `VOCABULARY` tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def make_model(name: str = "llama", dtype: torch.dtype = torch.bfloat16, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """A random model with weights so large that every part influences the logits."""
    kind, own = ARCHITECTURES[name]
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**COMMON, **own, **settings}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.12)
            parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype
    return model.eval()


def make(name: str = "llama", dtype: torch.dtype = torch.bfloat16, seed: int = 0, **settings: Any) -> Loaded:
    """The same with a tokenizer."""
    return Loaded(make_model(name, dtype, seed, **settings), make_tokenizer())


def saved(folder: Path, name: str = "llama", dtype: torch.dtype = torch.bfloat16, **settings: Any) -> Path:
    """The same as a folder."""
    save(make(name, dtype, **settings), folder)
    return folder


def text(sequences: int = 8, length: int = 32) -> TokenSequences:
    """Token ids that follow a rule, which a model learns in a few steps, except one token in ten."""
    generator = torch.Generator().manual_seed(0)
    ids = 2 + (torch.randint(0, 40, (sequences, 1), generator=generator) + 7 * torch.arange(length)) % 40
    broken = torch.rand(sequences, length, generator=generator) < 0.1
    ids[broken] = torch.randint(2, VOCABULARY - 4, (int(broken.sum()),), generator=generator)
    return TokenSequences(ids, "a rule")


def bounded_text(sequences: int = 8, length: int = 32) -> TokenSequences:
    """The same in documents of 1 to 12 tokens that are kept apart. Some go on in the next sequence, and sequences have unequal numbers."""
    plain = text(sequences, length)
    sizes = torch.randint(1, 13, (sequences * length,), generator=torch.Generator().manual_seed(1))
    numbers = torch.arange(len(sizes)).repeat_interleave(sizes)[: sequences * length].view(sequences, length)
    return plain._replace(documents=numbers, bounded=True)


# Warnings inside other packages, for `pytestmark`.
THIRD_PARTY_WARNINGS = (
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning",  # torch's own inductor, which bitsandbytes imports
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",  # peft asks transformers
    "ignore:The following (alpha|rank)_pattern keys did not match:RuntimeWarning",  # peft on fused experts
)
