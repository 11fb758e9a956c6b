"""GPTQ, Wanda and SparseGPT by llm-compressor, for the benchmarks; runs in an interpreter that has it. Argument: a JSON file."""

import json
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from llmcompressor import oneshot
from transformers import AutoModelForCausalLM, AutoTokenizer

settings = json.loads(Path(sys.argv[1]).read_text())
began = time.perf_counter()
model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.bfloat16)
tokenizer = AutoTokenizer.from_pretrained(settings["model"])
rows = Dataset.from_dict({"input_ids": settings["ids"], "attention_mask": [[1] * len(ids) for ids in settings["ids"]]})
if settings["method"] == "gptq":
    from llmcompressor.modifiers.gptq import GPTQModifier

    weights = {"num_bits": settings["bits"], "group_size": settings["group_size"], "strategy": "group", "symmetric": True, "type": "int"}
    scheme = {"targets": ["Linear"], "weights": weights}
    recipe = GPTQModifier(config_groups={"group_0": scheme}, ignore=["lm_head"])
elif settings["method"] == "wanda":
    from llmcompressor.modifiers.pruning import WandaPruningModifier

    recipe = WandaPruningModifier(sparsity=settings["sparsity"], mask_structure="0:0", targets=["Linear"], ignore=["lm_head"])
else:
    from llmcompressor.modifiers.pruning import SparseGPTModifier

    recipe = SparseGPTModifier(sparsity=settings["sparsity"], mask_structure="0:0", targets=["Linear"], ignore=["lm_head"])
loaded = time.perf_counter()
oneshot(
    model=model,
    processor=tokenizer,
    dataset=rows,
    recipe=recipe,
    max_seq_length=len(settings["ids"][0]),
    num_calibration_samples=len(settings["ids"]),
    batch_size=4,
    shuffle_calibration_samples=False,
)
quantized = time.perf_counter()
model.save_pretrained(settings["output"], save_compressed=settings["method"] == "gptq")
tokenizer.save_pretrained(settings["output"])
saved = time.perf_counter()
print("RESULT", json.dumps({"load": loaded - began, "quantize": quantized - loaded, "save": saved - quantized}))
