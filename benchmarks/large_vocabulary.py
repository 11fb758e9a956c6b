"""A chain of prune, distill from stored logits, and gptq on a model of Gemma-3-270M's shape: 262,144 tokens of vocabulary, random weights.

    python benchmarks/large_vocabulary.py --work FOLDER [--compute bfloat16] [--tokens 16384]

The tokenizer is SmolLM2's with unused tokens up to the model's vocabulary, as Gemma's has them, so that logits are over all of it. Prints
the time, the peak resident set and the tokens a second of every node's worker. The logits of one batch of calibration text (2,048 tokens)
would take 2.1 GB in float32.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from common import base_folder
from large import print_costs, random_model, run
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

VOCABULARY = 262144
RECIPE = """
study: large-vocabulary
base: {{model: {folder}, dtype: bfloat16}}
text: {{calibration: {{samples: 16, length: 256}}, training: {{tokens: {tokens}, length: 512}}}}
density: {{measure: false}}
evaluate: {{tasks: [arc_easy], items: 20}}
variants:
  pruned: {{steps: [{{prune: {{method: width, keep: 0.75}}}}]}}
  healed:
    from: pruned
    steps: [{{distill: {{tokens: {tokens}, top_k: 64, optimizer: {{batch_tokens: 4096, micro_batch_tokens: 1024}}}}}}]
  packed: {{from: healed, steps: [{{quantize: {{method: gptq}}}}]}}
"""


def tokenizer(work: Path) -> PreTrainedTokenizerBase:
    """SmolLM2's tokenizer with as many tokens as the model."""
    folder = work / "tokenizer"
    AutoTokenizer.from_pretrained(base_folder(work / "smollm2")).save_pretrained(folder)
    file = folder / "tokenizer.json"
    stated = json.loads(file.read_text())
    vocabulary = stated["model"]["vocab"]
    vocabulary |= {f"<unused{number}>": number for number in range(len(vocabulary), VOCABULARY)}
    file.write_text(json.dumps(stated))
    made: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    assert len(made) == VOCABULARY
    return made


def make(work: Path) -> Path:
    """The model, once."""
    folder = work / "gemma-3-270m"
    if not (folder / "config.json").exists():
        config = AutoConfig.for_model(
            "gemma3_text",
            vocab_size=VOCABULARY,
            hidden_size=640,
            intermediate_size=2048,
            num_hidden_layers=18,
            num_attention_heads=4,
            num_key_value_heads=1,
            head_dim=256,
            query_pre_attn_scalar=256,
            sliding_window=512,
            max_position_embeddings=32768,
            tie_word_embeddings=True,
            dtype="bfloat16",
        )
        random_model(config, tokenizer(work), folder)
    return folder


def main() -> None:
    """Make the model, run the chain, print the costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--compute", default="bfloat16")
    parser.add_argument("--tokens", type=int, default=16384)
    given = parser.parse_args()
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    recipe = work / "large-vocabulary.yaml"
    recipe.write_text(RECIPE.format(folder=make(work), tokens=given.tokens))
    print_costs("gemma-3-270m", run(recipe, work, given.compute))


if __name__ == "__main__":
    main()
