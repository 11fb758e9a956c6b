"""What calibration text says about a model: gathered once, layer by layer, and read by every method that asks.

A folder holds `statistics.json` and one safetensors file a decoder layer, so that neither gathering nor reading ever needs more than one
layer's matrices in memory. Everything is measured on the model as it is, before any of it is pruned or rounded: that is what lets all
variants of a study, and all ratios of a sweep, share one pass.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from compresslab.algorithms.angular_distance import angular_distances
from compresslab.algorithms.block_influence import block_influence
from compresslab.errors import RunFailed
from compresslab.files import told_if_damaged
from compresslab.models.calibration.attention import recorded_attention
from compresslab.models.calibration.blockwise import Blockwise
from compresslab.models.calibration.input_sums import InputSums, together
from compresslab.models.calibration.scratch import in_scratch_folder
from compresslab.models.progress import Amount, Progress
from compresslab.models.text import TokenSequences

SUMMARY = "statistics.json"


class Statistics:
    """The statistics in a folder, opened matrix by matrix as they are asked for.

    Attributes:
        tokens: of calibration text behind them. text: its digest. layers: decoder layers of the model.
        block_influence: of each layer. angular_distance: (layers + 1, layers + 1) between the last token's hidden states before layers
            i and j, in [0, 1].
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with told_if_damaged(folder / SUMMARY):
            summary = json.loads((folder / SUMMARY).read_text())
            self.tokens: int = summary["tokens"]
            self.text: str = summary["text"]
            self.layers: int = summary["layers"]
            self.block_influence: list[float] = summary["block_influence"]
            self.angular_distance = torch.tensor(summary["angular_distance"])
            self._leaders: list[dict[str, str]] = summary["leaders"]
            self._sources: list[dict[str, str]] = summary["sources"]

    def sum_of_squares(self, layer: int, name: str) -> Tensor:
        """Sum of squares over the calibration tokens of each input of the linear layer `name`, (inputs,) in float64.

        Of the values' projection, over what the queries make of the tokens: see `InputSums`.
        """
        return self._read("sum_of_squares", layer, name)

    def magnitude(self, layer: int, name: str) -> Tensor:
        """Mean absolute value of each input, (inputs,) in float32."""
        return self._read("magnitude", layer, name, self._sources)

    def gram(self, layer: int, name: str) -> Tensor:
        """Sum of x x^T over the same inputs x, (inputs, inputs) in float32. Gathered only where asked for."""
        return self._read("gram", layer, name)

    def sharing(self, layer: int) -> list[list[str]]:
        """The linear layers of a decoder layer, those that share their sums of squares and second moments (q and k) together."""
        return together(self._leaders[layer])

    def reading(self, layer: int) -> list[list[str]]:
        """The linear layers of a decoder layer, those that read one tensor (q, k and v) together."""
        return together(self._sources[layer])

    def _read(self, what: str, layer: int, name: str, shared: list[dict[str, str]] | None = None) -> Tensor:
        with safe_open(self.folder / _file(layer), "pt") as stored:
            tensor: Tensor = stored.get_tensor(f"{what}/{(shared or self._leaders)[layer][name]}")
        return tensor


def gather(model: PreTrainedModel, text: TokenSequences, folder: Path, *, grams: bool, progress: Progress) -> Statistics:
    """Pass the text through the model one decoder layer at a time and write what its insides say.

    Args:
        grams: also the second moments of every linear layer's inputs (GPTQ, SparseGPT, AWQ): 4 bytes x inputs^2 each.

    Raises:
        UnsupportedModel: the layers are in no list that we know.
        RunFailed: a layer's activations are not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    leaders, sources, influence = [], [], []
    with recorded_attention(model):
        walk = Blockwise(model, text.ids)
        last = [_last_tokens(walk.hidden)]
        for number, layer in enumerate(walk.layers):
            sums = InputSums(layer, grams=grams)
            with sums:
                after = walk.through(number)
            tensors = sums.tensors(text.ids.numel())
            check_finite_layer(tensors, number)
            save_file(tensors, folder / _file(number))
            leaders.append(sums.leaders)
            sources.append(sums.sources)
            influence.append(_influence(walk.hidden, after))
            walk.hidden = after
            last.append(_last_tokens(after))
            share, tokens = (number + 1) / len(walk.layers), text.ids.numel()
            progress(share, f"layer {number + 1} of {len(walk.layers)}", Amount(share * tokens, tokens, "tokens"))
    summary = {
        "tokens": text.ids.numel(),
        "text": text.sha256,
        "layers": len(walk.layers),
        "block_influence": influence,
        "angular_distance": angular_distances(torch.stack(last)).tolist(),
        "leaders": leaders,
        "sources": sources,
    }
    (folder / SUMMARY).write_text(json.dumps(summary))
    return Statistics(folder)


def gather_temporarily(model: PreTrainedModel, text: TokenSequences, *, grams: bool, progress: Progress) -> Statistics:
    """The same in a scratch folder that goes when the statistics do, for a step that is run by itself."""
    return in_scratch_folder(lambda folder: gather(model, text, folder, grams=grams, progress=progress))


def check_finite_layer(tensors: dict[str, Tensor], number: int) -> None:
    """Stop at the first layer whose inputs are NaN or infinite, before anything is decided by them.

    Raises:
        RunFailed: naming the layer and the linear layer in it.
    """
    for name, tensor in tensors.items():
        if name.startswith("sum_of_squares/") and not torch.isfinite(tensor).all():
            raise RunFailed(
                f"layer {number}, {name.partition('/')[2]}: its inputs on the calibration text are not finite (NaN or infinite); "
                "try dtype float32 or bfloat16"
            )


def _file(layer: int) -> str:
    return f"layer-{layer:03}.safetensors"


def _last_tokens(hidden: list[Tensor]) -> Tensor:
    return torch.cat([batch[:, -1].float().cpu() for batch in hidden])


def _influence(before: list[Tensor], after: list[Tensor]) -> float:
    """Mean over all tokens: batches may differ in size."""
    total = sum(block_influence(old, new).item() * len(old) for old, new in zip(before, after, strict=True))
    return total / sum(map(len, before))
