"""Statistics of a model on calibration text, gathered once, layer by layer, for all methods that need them.

A folder contains `statistics.json` and one safetensors file per decoder layer, so that gathering and reading need only one layer's
matrices in memory. All statistics are of the unchanged model, before any layer is pruned or rounded. All variants of a study, and all
ratios of a sweep, can therefore share one pass.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from compresslab.algorithms.angular_distance import angular_distances
from compresslab.algorithms.block_influence import block_influence
from compresslab.errors import RunFailed
from compresslab.files import damage_explained
from compresslab.models.calibration.attention import recorded_attention
from compresslab.models.calibration.blockwise import Blockwise
from compresslab.models.calibration.input_sums import InputSums, grouped_by_value
from compresslab.models.calibration.scratch import in_scratch_folder
from compresslab.models.documents.boundaries import batches, joined
from compresslab.models.load import Loaded
from compresslab.models.progress import Amount, Progress
from compresslab.models.ranks import ALONE, Ranks
from compresslab.models.text import TokenSequences

SUMMARY = "statistics.json"


class Statistics:
    """The statistics in a folder. Each matrix is read when it is needed.

    Attributes:
        tokens: number of tokens of the calibration text. text: its digest. layers: number of decoder layers.
        block_influence: block influence of each layer. angular_distance: (layers + 1, layers + 1) distances between the last token's
            hidden states before layers i and j, in [0, 1].
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with damage_explained(folder / SUMMARY):
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

        For the projection of the values the inputs are weighted by attention; see `InputSums`.
        """
        return self._read("sum_of_squares", layer, name)

    def magnitude(self, layer: int, name: str) -> Tensor:
        """Mean absolute value of each input, (inputs,) in float32."""
        return self._read("magnitude", layer, name, self._sources)

    def silent(self, layer: int, name: str) -> Tensor:
        """Whether each of the same inputs is zero on the whole calibration text, (inputs,)."""
        return self.sum_of_squares(layer, name) == 0

    def gram(self, layer: int, name: str) -> Tensor:
        """Sum of x x^T over the same inputs x, (inputs, inputs) in float32. Only available if gathered with `grams`."""
        return self._read("gram", layer, name)

    def groups_sharing_sums(self, layer: int) -> list[list[str]]:
        """Lists of the linear layers of a decoder layer that share sums of squares and second moments (q and k)."""
        return grouped_by_value(self._leaders[layer])

    def groups_sharing_inputs(self, layer: int) -> list[list[str]]:
        """Lists of the linear layers of a decoder layer that read the same tensor (q, k and v)."""
        return grouped_by_value(self._sources[layer])

    def _read(self, what: str, layer: int, name: str, shared: list[dict[str, str]] | None = None) -> Tensor:
        with safe_open(self.folder / _file(layer), "pt") as stored:
            tensor: Tensor = stored.get_tensor(f"{what}/{(shared or self._leaders)[layer][name]}")
        return tensor


def gather(loaded: Loaded, text: TokenSequences, folder: Path, *, grams: bool, progress: Progress, ranks: Ranks = ALONE) -> Statistics:
    """Run the text through the model one decoder layer at a time and write the statistics into `folder`.

    Args:
        loaded: a model in memory, or one of which a layer at a time is read.
        grams: also gather the second moments of every linear layer's inputs (GPTQ, SparseGPT, AWQ), 4 bytes x inputs^2 each.
        ranks: the processes that each read a part of the text. The first one adds up the sums and writes them. They differ from those of
            one process in rounding alone.

    Raises:
        UnsupportedModel: the list of layers is not known.
        RunFailed: a layer's activations are not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    leaders, sources, influence = [], [], []
    with recorded_attention(loaded.model):
        blocks = Blockwise(loaded.model, joined(ranks.part(list(batches(text.input)))), loaded.weights)
        last = [_of_all(ranks, [_last_tokens(hidden) for hidden in blocks.hidden])]
        for number, layer in enumerate(blocks.layers):
            sums = InputSums(layer, grams=grams)
            change, last_tokens = 0.0, []
            with loaded.holding(layer), sums:
                for before, after in blocks.outputs_of(number):
                    change += block_influence(before, after).item() * len(before)
                    last_tokens.append(_last_tokens(after))
                sums.add_others(ranks)
                tensors = sums.tensors(text.ids.numel()) if ranks.rank == 0 else {}
            # The mean over all tokens, since batches may differ in size.
            influence.append(sum(ranks.gathered(change)) / len(text.ids))
            last.append(_of_all(ranks, last_tokens))
            if ranks.rank == 0:
                check_finite_layer(tensors, number)
                save_file(tensors, folder / _file(number))
                leaders.append(sums.leaders)
                sources.append(sums.sources)
            del tensors, sums  # the next layer's are as large
            share, tokens = (number + 1) / len(blocks.layers), text.ids.numel()
            progress(share, f"layer {number + 1} of {len(blocks.layers)}", Amount(share * tokens, tokens, "tokens"))
    summary = {
        "tokens": text.ids.numel(),
        "text": text.sha256,
        "layers": len(blocks.layers),
        "block_influence": influence,
        "angular_distance": angular_distances(torch.stack(last)).tolist(),
        "leaders": leaders,
        "sources": sources,
    }
    if ranks.rank == 0:
        (folder / SUMMARY).write_text(json.dumps(summary))
    ranks.shared(None)  # when it is written
    return Statistics(folder)


def gather_temporarily(loaded: Loaded, text: TokenSequences, *, grams: bool, progress: Progress) -> Statistics:
    """`gather` in a temporary folder that is removed with the statistics, for a step that runs outside a study."""
    return in_scratch_folder(lambda folder: gather(loaded, text, folder, grams=grams, progress=progress))


def check_finite_layer(tensors: dict[str, Tensor], number: int) -> None:
    """Check that the inputs of a layer are finite.

    Raises:
        RunFailed: they are not; the message names the layer and the linear layer in it.
    """
    for name, tensor in tensors.items():
        if name.startswith("sum_of_squares/") and not torch.isfinite(tensor).all():
            raise RunFailed(
                f"layer {number}, {name.partition('/')[2]}: its inputs on the calibration text are not finite (NaN or infinite); "
                "try dtype float32 or bfloat16"
            )


def _file(layer: int) -> str:
    return f"layer-{layer:03}.safetensors"


def _of_all(ranks: Ranks, parts: list[Tensor]) -> Tensor:
    """The rows of all processes, in the order of the text."""
    return torch.cat(ranks.gathered(torch.cat(parts)))


def _last_tokens(hidden: Tensor) -> Tensor:
    return hidden[:, -1].float().cpu()
