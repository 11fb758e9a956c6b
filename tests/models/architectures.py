"""Tiny random models of many architectures of transformers, by whatever names their configurations state their dimensions."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from .tiny import VOCABULARY

LAYERS = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 256}
PLAIN = {**LAYERS, "intermediate_size": 128}
GROUPED = {**PLAIN, "num_key_value_heads": 2}
HEADED = {**GROUPED, "head_dim": 16}
GPT: dict[str, Any] = {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 256}
FALCON = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
EXPERTS = {"num_experts_per_tok": 2, "num_local_experts": 4}
# Each with the settings that make it tiny: transformers' name, or a name of its own and transformers' in the settings.
SWEPT: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "mistral": GROUPED,
    "qwen2": GROUPED,
    "qwen3": HEADED,
    "gemma": HEADED,
    "gemma2": HEADED,
    "gemma3_text": HEADED,
    "gemma3": {
        "text_config": {**HEADED, "vocab_size": VOCABULARY, "sliding_window": 64},
        "vision_config": {
            **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
            **{"image_size": 28, "patch_size": 14},
        },
        **{"mm_tokens_per_image": 4, "image_token_index": 299, "boi_token_index": 298, "eoi_token_index": 297},
    },
    "phi": PLAIN,
    "phi3": GROUPED,
    "gpt_neox": PLAIN,
    "cohere": GROUPED,
    "olmo2": GROUPED,
    "stablelm": GROUPED,
    "starcoder2": GROUPED,
    "nemotron": GROUPED,
    "granite": GROUPED,
    "glm4": HEADED,
    "lfm2": {**GROUPED, "layer_types": ["conv", "full_attention", "conv"]},
    "opt": {**LAYERS, "ffn_dim": 128, "word_embed_proj_dim": 64},
    "gpt2": GPT,
    "gptj": {**GPT, "rotary_dim": 8},
    "codegen": {**GPT, "rotary_dim": 8},
    "gpt_bigcode": GPT,
    "gpt_neo": {
        **{"hidden_size": 64, "num_layers": 4, "num_heads": 4, "max_position_embeddings": 256, "window_size": 32},
        "attention_types": [[["global", "local"], 2]],
    },
    "bloom": {"hidden_size": 64, "n_layer": 3, "n_head": 4},
    "falcon": {**FALCON, "multi_query": True},
    "falcon-new": {**FALCON, "model_type": "falcon", "num_kv_heads": 2, "new_decoder_architecture": True},
    "mpt": {"d_model": 64, "n_layers": 3, "n_heads": 4, "max_seq_len": 256},
    "xglm": {"d_model": 64, "num_layers": 3, "attention_heads": 4, "ffn_dim": 128, "max_position_embeddings": 256},
    "biogpt": PLAIN,
    "mamba": {"hidden_size": 64, "num_hidden_layers": 3, "state_size": 8},
    "rwkv": {"hidden_size": 64, "num_hidden_layers": 4, "attention_hidden_size": 64, "context_length": 256},
    "recurrent_gemma": {**GROUPED, "lru_width": 64},
    "mixtral": {**GROUPED, **EXPERTS},
    "granitemoe": {**GROUPED, **EXPERTS},
    "jetmoe": {
        **{"hidden_size": 64, "num_hidden_layers": 3, "num_key_value_heads": 4, "kv_channels": 16, "intermediate_size": 96},
        **{**EXPERTS, "num_local_experts": 8, "max_position_embeddings": 256},
    },
}
# The dimensions that the names above state: layers, hidden size, width of the MLP, of all query heads and of all key and value heads.
STATED = {
    "opt": (3, 64, 128, 64, 64),
    "gpt2": (3, 64, 256, 64, 64),
    "gptj": (3, 64, 256, 64, 64),
    "codegen": (3, 64, 256, 64, 64),
    "gpt_bigcode": (3, 64, 256, 64, 16),
    "gpt_neo": (4, 64, 256, 64, 64),
    "bloom": (3, 64, 256, 64, 64),
    "falcon": (3, 64, 256, 64, 16),
    "falcon-new": (3, 64, 256, 64, 32),
    "mpt": (3, 64, 256, 64, 64),
    "xglm": (3, 64, 128, 64, 64),
    "mamba": (3, 64, 128, 0, 0),
    "rwkv": (4, 64, 256, 0, 0),
    "jetmoe": (3, 64, 96, 128, 64),
}


def swept_model(name: str) -> PreTrainedModel:
    """A random model in float32 with weights so large that every part influences the logits."""
    settings = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, **SWEPT[name]}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(settings.pop("model_type", name), **settings))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.12)
    model.config.dtype = torch.float32
    return model.eval()
