"""A small study with every kind of node: what the tests of the runner run, and what the faults strike."""

from __future__ import annotations

from pathlib import Path

from compresslab.store.store import Store

RECIPE = """
study: tiny
question: Does anything here get denser?
base: {{model: {model}, dtype: float32, store_copy: true}}
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


def make_model(folder: Path) -> None:
    """Save a three-layer Llama with a byte-level tokenizer."""
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
    LlamaForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)


def make_text(path: Path) -> None:
    """Write a text of a few thousand tokens."""
    paragraphs = (f"Paragraph {number}: the answer to question {number * 7} is {number * 13}. " * 6 for number in range(60))
    path.write_text("\n\n\n".join(paragraphs))


def make_recipes(folder: Path, *, timed: bool = True) -> list[Path]:
    """Two recipes over one model: all kinds of nodes, and one of another name that shares most of them.

    Args:
        timed: whether the first measures times, which takes half of its run.
    """
    make_model(folder / "model")
    make_text(folder / "text.txt")
    text = RECIPE.format(model=folder / "model", text=folder / "text.txt", compute="float32")
    first = text
    if timed:
        first = text.replace("measure: false", "measure: true, workload: {prompt: 16, decode: 4}")
        first = first.replace("hardware: [h100-sxm]", "hardware: [h100-sxm, this-machine]")
    other = text.replace("study: tiny", "study: other").replace("[openbookqa, csqa]", "[csqa, openbookqa, arc_easy]")
    recipes = {"tiny.yaml": first, "other.yaml": other}
    for name, content in recipes.items():
        (folder / name).write_text(content)
    return [folder / name for name in recipes]


def deterministic(store: Store) -> dict[str, bytes]:
    """Everything in the store but costs and measured times, by path."""
    found = {}
    for folder in sorted(store.objects.iterdir()):
        record = folder / "record.json"
        if record.is_file() and any(word in record.read_text() for word in ('"bandwidth"', '"prefill_seconds"')):
            continue
        files = (path for path in folder.rglob("*") if path.is_file() and path.name != "cost.json")
        found |= {str(path.relative_to(store.objects)): path.read_bytes() for path in files}
    return found
