"""What the parts of `gpu.py` share: random models, a text, and where they are."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any, NamedTuple

import torch

Row = dict[str, Any]


class Bench(NamedTuple):
    """Where it runs: the device, the folder of a large model (tiny with `small`), of a tiny one, and a text file."""

    device: torch.device
    large: Path
    tiny: Path
    text: Path
    work: Path
    small: bool


def prepare(device: torch.device, work: Path, small: bool) -> Bench:
    """Save the models and the text, unless `work` has them."""
    from compresslab.evaluation.olmes_requests import load

    work.mkdir(parents=True, exist_ok=True)
    text = work / "text.txt"
    if not text.exists():
        text.write_text("\n\n\n".join(dict.fromkeys(item.requests[0][0] for item in load("arc_easy"))))
        make_model(work / "tiny", text, device, layers=3, hidden=128, vocabulary=512)
        if not small:
            make_model(work / "large", text, device, layers=22, hidden=2048, vocabulary=32000)
    return Bench(device, work / ("tiny" if small else "large"), work / "tiny", text, work, small)


def make_model(folder: Path, text: Path, device: torch.device, *, layers: int, hidden: int, vocabulary: int) -> None:
    """Save a Llama with random bfloat16 weights and a byte-level tokenizer that was trained on the text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=min(vocabulary, 8192), special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train([str(text)], trainer)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=-(-hidden * 11 // 4 // 128) * 128,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64 if hidden > 256 else 4,
        num_key_value_heads=4 if hidden > 256 else 2,
        max_position_embeddings=8192,
    )
    with torch.device(device):
        model = LlamaForCausalLM(config).bfloat16()
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)


def free(device: torch.device) -> None:
    """Give back what nobody holds any more, and forget the peak."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
