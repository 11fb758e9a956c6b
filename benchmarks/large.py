"""Memory and time of calibration, pruning and quantization by layers, on random-weight Llamas from 135M to 3B.

    python benchmarks/large.py --work FOLDER [--sizes 135M 1.2B 3B] [--variants wanda width rtn gptq] [--compute bfloat16] [--samples 16]

Makes a model of each size (the dimensions of SmolLM2-135M, Llama-3.2-1B and Llama-3.2-3B, in bfloat16, with SmolLM2's tokenizer) and runs a
study on it by `compresslab run`: wanda, width, rtn and gptq, each evaluated. Prints the time and the peak resident set of every node's
worker, as its `cost.json` says. With --a-layer it prints seconds and bytes of a layer instead.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from common import base_folder
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedTokenizerBase

from compresslab.models.anatomy import parameters_of
from compresslab.models.load import Loaded, load_tokenizer
from compresslab.models.save import save_settings
from compresslab.models.streamed.open import open_by_layers
from compresslab.models.streamed.result import Result
from compresslab.models.streamed.shards import ShardWriter

LAYERS = 8

# hidden, MLP, layers, query heads, key and value heads, dimensions of a head, vocabulary
SIZES = {
    "135M": (576, 1536, 30, 9, 3, 64, 49152),
    "1.2B": (2048, 8192, 16, 32, 8, 64, 128256),
    "3B": (3072, 8192, 28, 24, 8, 128, 128256),
}
RECIPE = """
study: large-{name}
base: {{model: {folder}, dtype: bfloat16}}
text: {{calibration: {{samples: {samples}, length: 256}}}}
density: {{measure: false}}
evaluate: {{tasks: [arc_easy], items: {items}}}
variants:
"""
VARIANTS = {
    "wanda": "{prune: {method: wanda, sparsity: 0.5}}",
    "width": "{prune: {method: width, keep: 0.75}}",
    "rtn": "{quantize: {method: rtn}}",
    "gptq": "{quantize: {method: gptq}}",
}


def make(size: str, work: Path) -> Path:
    """A random model, written matrix by matrix."""
    folder = work / size
    if (folder / "config.json").exists():
        return folder
    hidden, width, layers, heads, groups, head, vocabulary = SIZES[size]
    config = AutoConfig.for_model(
        "llama",
        hidden_size=hidden,
        intermediate_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=head,
        vocab_size=vocabulary,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        dtype=torch.bfloat16,
    )
    random_model(config, load_tokenizer(base_folder(work / "smollm2")), folder)
    return folder


def random_model(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a model with random weights in bfloat16, matrix by matrix."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    folder.mkdir(parents=True, exist_ok=True)
    writer, generator = ShardWriter(folder, 2 * 10**9), torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        random = torch.ones if parameter.dim() < 2 else lambda shape: torch.randn(shape, generator=generator) * 0.02
        parts = (random((min(4096, parameter.shape[0] - start), *parameter.shape[1:])) for start in range(0, parameter.shape[0], 4096))
        writer.add(name, parameter.shape, (part.to(torch.bfloat16) for part in parts))
    writer.finish(model.num_parameters())
    save_settings(Loaded(model, tokenizer), folder)


def study(size: str, folder: Path, work: Path, given: argparse.Namespace) -> list[dict[str, Any]]:
    """The plan's nodes with what they cost."""
    recipe = work / f"large-{size}.yaml"
    name = size.lower().replace(".", "-")
    recipe.write_text(
        RECIPE.format(name=name, folder=folder, samples=given.samples, items=given.items)
        + "".join(f"  {variant}: {{steps: [{VARIANTS[variant]}]}}\n" for variant in given.variants)
    )
    return run(recipe, work, given.compute)


def run(recipe: Path, work: Path, compute: str) -> list[dict[str, Any]]:
    """The nodes of a recipe's plan, each with what it cost when it was run."""
    command = [sys.executable, "-m", "compresslab"]
    options = [str(recipe), "--store", str(work / "store"), "--compute", compute]
    rows: list[dict[str, Any]] = json.loads(subprocess.run([*command, "plan", *options, "--json"], capture_output=True, check=True).stdout)[
        "nodes"
    ]
    subprocess.run([*command, "run", *options, "--reports", str(work / "reports")], check=True)
    keys = {row["key"]: row for row in rows}
    for file in (work / "store" / "objects").glob("*/cost.json"):
        if (row := keys.get(file.parent.name)) is not None:
            row["cost"] = json.loads(file.read_text())
    return rows


def a_layer(folder: Path) -> None:
    """Print what a layer costs that is read, digested, counted, and passed by the probe: the median of the first layers."""
    torch.set_num_threads(1)
    loaded = open_by_layers(folder)
    times, started = [], 0.0
    for number, layer in enumerate(Result(loaded, None, torch.bfloat16).layers()):  # noqa: B007, the last one is looked at
        if number:
            times.append(time.process_time() - started)
        if number == LAYERS:
            break
        started = time.process_time()
    parameters = parameters_of(layer)
    seconds, held = statistics.median(times), sum(parameter.nbytes for parameter in layer.parameters())
    print(
        f"{folder.name:5} {parameters / 1e6:6.1f}M parameters a layer, {held / 1e6:6.1f} MB held, {seconds:6.3f} s of one processor, "
        f"{seconds / parameters * 1e9:5.2f} ns a parameter"
    )


def main() -> None:
    """Make the models, run the studies, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--compute", default="bfloat16")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--items", type=int, default=20)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--a-layer", action="store_true", help="print what a layer costs, and run no study")
    parser.add_argument("--only-make", action="store_true")
    given = parser.parse_args()
    work = given.work.resolve()
    for size in given.sizes:
        folder = make(size, work)
        if given.a_layer:
            a_layer(folder)
        if given.only_make or given.a_layer:
            continue
        print_costs(size, study(size, folder, work, given))


def print_costs(model: str, rows: list[dict[str, Any]]) -> None:
    """Print the time and the peak resident set of each node that was made, beside the plan's."""
    for row in rows:
        if cost := row.get("cost"):
            rate = f" {cost['tokens_per_second']:5.0f} tokens/s" if cost.get("tokens_per_second") else ""
            print(f"{model:5} {row['node']:32} {cost['seconds']:7.1f} s {cost['peak_memory_bytes'] / 1e9:6.2f} GB{rate}", end=" ")
            print(f"planned {row['seconds']:6.1f} s {row['memory'] / 1e9:6.2f} GB", flush=True)


if __name__ == "__main__":
    main()
