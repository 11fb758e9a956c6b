"""Plans of recipes given as text, and minimal files for plans."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

from compresslab.machine.this_machine import Machine
from compresslab.plan.build import build
from compresslab.plan.graph import Plan
from compresslab.recipe.load import loads_located
from compresslab.records.compute import PROCESSOR, Compute

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "intermediate_size": 96,
    "vocab_size": 100,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
MACHINE = Machine(PROCESSOR, {"processor": "made up", "threads": 2}, "made up")
HEAD = "study: s\nbase: {model: offline:smollm2-135m-instruct}\nevaluate: {tasks: [arc_easy, csqa], items: 10}\n"

FolderMaker = Callable[..., Path]


def plan_of(text: str, *, head: str = HEAD, compute: Compute = PROCESSOR) -> Plan:
    """The plan of a recipe given as text."""
    recipe, places, _ = loads_located(head + text, "r.yaml")
    return build(recipe, MACHINE._replace(compute=compute), places)


def write_safetensors(path: Path, shapes: dict[str, list[int]], dtype: str = "BF16") -> None:
    """The header of a safetensors file without tensors, which suffices for a plan."""
    header = json.dumps({"__metadata__": {"format": "pt"}} | {name: {"dtype": dtype, "shape": shape} for name, shape in shapes.items()})
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode())
