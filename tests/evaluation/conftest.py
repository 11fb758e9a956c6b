"""Tiny random models and a tiny tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

LINES = [
    "Question: Which part of a sunflower plant absorbs water and nutrients?\nAnswer: Roots",
    "Question: What is the capital of France? Answer: Paris is the capital, and Lyon is not.",
    "The quick brown fox jumps over the lazy dog, while the dog sleeps in the warm sun.",
]
SIZES = {"vocab_size": 336, "max_position_embeddings": 512}
WIDTHS = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}


def make_tokenizer(*, bos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 330 tokens; with `bos`, one that puts <s> first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(LINES, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def make_model(kind: str = "llama", **settings: Any) -> PreTrainedModel:
    """A random fp32 model of architecture `kind`, of weights large enough that log-probabilities differ."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SIZES, **WIDTHS, **settings})
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    return model.eval()


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="session")
def llama() -> PreTrainedModel:
    return make_model(tie_word_embeddings=True)


@pytest.fixture(scope="session")
def build() -> Callable[..., PreTrainedModel]:
    return make_model
