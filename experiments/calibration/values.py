"""Which second moments should a values' projection be rounded by? See README.md beside this file.

python experiments/calibration/values.py --calibration FILE.jsonl --evaluation FILE.jsonl [--samples 32] [--rows 12] [--json values.json]
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from compresslab.algorithms.gptq import gptq
from compresslab.algorithms.grid import grid_of
from compresslab.algorithms.hessian import inverse_factor
from compresslab.models.anatomy import decoder_layers, linear_layers
from compresslab.models.calibration.statistics import Statistics, gather
from compresslab.models.load import load
from compresslab.models.text import TokenSequences

GROUP = 32


def main() -> None:
    """Parse, gather once, round in each way, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--evaluation", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    loaded = load("offline:smollm2-135m-instruct")
    model = loaded.model
    calibration = ids_of(loaded.tokenizer, given.calibration, given.samples)
    held_out = ids_of(loaded.tokenizer, given.evaluation, given.rows)
    whole = {name: value.clone() for name, value in model.state_dict().items()}
    found = {"base": perplexity(model, held_out)}
    print(found, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        statistics = gather(loaded, TokenSequences(calibration, ""), Path(folder), grams=True, progress=lambda *_: None)
        for only, symmetric in (("v_proj", True), ("", True), ("", False)):
            for way in ("nearest", "plain sum", "attended sum"):
                model.load_state_dict(whole)
                round_layers(model, lambda name, only=only: name.endswith(only), way, statistics, symmetric)
                found[f"{only or 'all'}, {'symmetric' if symmetric else 'asymmetric'}, {way}"] = perplexity(model, held_out)
                print(found, flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


@torch.no_grad()
def round_layers(model: torch.nn.Module, chosen: Callable[[str], bool], way: str, statistics: Statistics, symmetric: bool) -> None:
    """Round the chosen linear layers of every decoder layer to 4 bits. The plain sum of the values' inputs is that of the queries'."""
    for number, layer in enumerate(decoder_layers(model)):
        for name, linear in linear_layers(layer).items():
            if chosen(name):
                read = name.replace("v_proj", "q_proj") if way == "plain sum" else name
                gram = None if way == "nearest" else statistics.gram(number, read)
                linear.weight.copy_(rounded(linear.weight.float(), gram, symmetric))


def rounded(weight: Tensor, gram: Tensor | None, symmetric: bool) -> Tensor:
    """To the nearest level, or by GPTQ in activation order."""
    if gram is None:
        groups = weight.reshape(-1, GROUP)
        grid = grid_of(groups, 4, torch.float16, symmetric=symmetric)
        return grid.weight(grid.codes(groups, 4)).view_as(weight)
    order = gram.diagonal().argsort(descending=True, stable=True)
    factor = inverse_factor(gram[order][:, order], 0.01)
    return gptq(weight, factor, 4, GROUP, torch.float16, symmetric=symmetric, order=order).weight()


@torch.no_grad()
def perplexity(model: torch.nn.Module, ids: Tensor) -> float:
    """exp of the mean loss of the tokens after each sequence's first."""
    total = 0.0
    for row in ids.split(4):
        logits = model(input_ids=row, use_cache=False).logits[:, :-1].float()
        total += torch.nn.functional.cross_entropy(logits.flatten(0, 1), row[:, 1:].flatten(), reduction="sum").item()
    return math.exp(total / (ids.shape[0] * (ids.shape[1] - 1)))


def ids_of(tokenizer: object, path: Path, rows: int) -> Tensor:
    """The first `rows` x 512 tokens of a .jsonl file with one text (`text` or `page`) a line."""
    ids: list[int] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        ids += tokenizer(row.get("text") or row["page"], add_special_tokens=False, verbose=False)["input_ids"]  # type: ignore[operator]
        if len(ids) >= rows * 512:
            break
    return torch.tensor(ids[: rows * 512]).view(rows, 512)


if __name__ == "__main__":
    main()
