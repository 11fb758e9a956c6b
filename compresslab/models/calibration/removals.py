"""Orders layers for removal by the loss without each of them, once for all ratios of a sweep.

Source: Song et al. 2024, "SLEB: Streamlining LLMs through Redundancy Verification and Elimination of Transformer Blocks", arXiv 2402.09025,
algorithm 1: repeatedly remove the layer without which the remaining model has the lowest loss on calibration text.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compresslab.algorithms.next_token import next_token_loss
from compresslab.errors import RunFailed
from compresslab.files import damage_explained
from compresslab.methods.amounts import Misfit
from compresslab.methods.depth import PruneDepth, layers_left
from compresslab.models.anatomy import backbone, decoder_layers, output_head, parameters_of
from compresslab.models.calibration.blockwise import Blockwise, first_output, forward_replaced
from compresslab.models.chunks import chunks
from compresslab.models.documents.boundaries import batches, joined
from compresslab.models.progress import Progress
from compresslab.models.ranks import ALONE, Ranks
from compresslab.models.surgery.shortening import refusal_to_drop
from compresslab.models.text import TokenSequences

FILE = "removals.json"


class Removals(NamedTuple):
    """An order of removal.

    Attributes:
        tokens: number of tokens of the calibration text. text: its digest.
        whole: loss of the original model in nats per token.
        order: numbers of the removed layers in the original model. losses: loss after each removal.
        stopped: why no further layer can be removed; empty if no more were needed.
    """

    tokens: int
    text: str
    whole: float
    order: list[int]
    losses: list[float]
    stopped: str


def read_removals(folder: Path) -> Removals:
    """The order that `order_removals` wrote into `folder`.

    Raises:
        RunFailed: its file is missing or damaged.
    """
    with damage_explained(folder / FILE):
        return Removals(**json.loads((folder / FILE).read_text()))


def order_temporarily(model: PreTrainedModel, text: TokenSequences, reader: PruneDepth, progress: Progress) -> Removals:
    """`order_removals` in a temporary folder, for a step that runs outside a study."""
    with tempfile.TemporaryDirectory(prefix="compresslab-removals-") as scratch:
        order_removals(model, text, [reader], Path(scratch), progress)
        return read_removals(Path(scratch))


def order_removals(
    model: PreTrainedModel,
    text: TokenSequences,
    readers: Sequence[PruneDepth],
    folder: Path,
    progress: Progress,
    ranks: Ranks = ALONE,
) -> None:
    """Order as many removals as the reader that drops most needs, and write them into `folder`. The model stays unchanged.

    Args:
        ranks: the processes that each read a part of the text. The order is that of one. The first one writes it.

    Raises:
        UnsupportedModel: the list of layers or the output head is not known.
        RunFailed: the loss is not finite.
    """
    sizes = [parameters_of(layer) for layer in decoder_layers(model)]
    total = parameters_of(model)
    search = _Search(model, text, ranks)
    original_loss = search.loss()
    order: list[int] = []
    losses: list[float] = []
    stopped = ""
    expected = max((_needed_removals(reader, sizes, total, []) for reader in readers), default=0)
    while not stopped and any(_needed_removals(reader, sizes, total, [sizes[n] for n in order]) > len(order) for reader in readers):
        found = search.losses_without_each(_removal_progress(progress, len(order), expected))
        refusals = []
        for loss, number in sorted((loss, number) for number, loss in found.items()):
            refusal = refusal_to_drop(model, [*order, number])
            if not refusal:
                search.remaining.remove(number)
                order.append(number)
                losses.append(loss)
                break
            refusals.append(refusal)
        else:
            stopped = refusals[0]
    progress(1.0, "loss without each layer")
    if ranks.rank:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(Removals(text.ids.numel(), text.sha256, original_loss, order, losses, stopped)._asdict()))


def _removal_progress(progress: Progress, done: int, total: int) -> Callable[[float], None]:
    """The progress of the removal after `done` others. Layers of several sizes may need more removals than expected."""
    return lambda share: progress(
        min(1.0, (done + share) / total), f"loss without each layer, removal {done + 1} of {max(total, done + 1)}"
    )


def _needed_removals(reader: PruneDepth, sizes: Sequence[int], total: int, first: Sequence[int]) -> int:
    """The number of layers that a reader drops if those of the sizes `first` are dropped first and then the largest ones.

    It is 0 for a reader that cannot be satisfied. That reader's own step refuses the model; other readers still get the order.
    """
    rest = sorted(sizes, reverse=True)
    for size in first:
        rest.remove(size)
    dropped = [0]
    for size in [*first, *rest]:
        dropped.append(dropped[-1] + size)
    try:
        return len(sizes) - layers_left(reader, len(sizes), lambda layers: total - dropped[len(sizes) - layers])
    except Misfit:
        return 0


class _Search:
    """The model without some of its layers, and its losses without one more.

    Attributes:
        remaining: numbers of the remaining layers, ascending.
    """

    def __init__(self, model: PreTrainedModel, text: TokenSequences, ranks: Ranks) -> None:
        self.model, self.ranks = model, ranks
        self.parts = ranks.part(list(batches(text.input)))
        self.blocks = Blockwise(model, joined(self.parts))
        self.head = output_head(model)
        self.remaining = list(range(len(self.blocks.layers)))
        self.predictions = len(text.input.counted(text.ids, last=-1))

    @torch.no_grad()
    def loss(self) -> float:
        """Loss of the remaining model in nats per token.

        Raises:
            RunFailed: it is not finite.
        """
        every = range(len(self.parts))
        total = self._sum([self._loss(batch, self._run_layers(batch, self.blocks.hidden[batch], self.remaining)) for batch in every])
        if not math.isfinite(total):
            raise RunFailed(f"the model's loss on the calibration text is {total}; try dtype float32 or bfloat16")
        return total / self.predictions

    @torch.no_grad()
    def losses_without_each(self, progress: Callable[[float], None]) -> dict[int, float]:
        """Loss in nats per token without each of the remaining layers; infinite if it is not a number.

        The layers before the removed one are computed once for all later ones.
        """
        losses: dict[int, list[float]] = {number: [] for number in self.remaining}
        for batch, before in enumerate(self.blocks.hidden):
            for place, number in enumerate(self.remaining):
                after = self._run_layers(batch, before, self.remaining[place + 1 :])
                losses[number].append(self._loss(batch, after))
                before = self._run_layers(batch, before, [number])
            progress((batch + 1) / len(self.parts))
        means = {number: self._sum(found) / self.predictions for number, found in losses.items()}
        return {number: mean if math.isfinite(mean) else math.inf for number, mean in means.items()}

    def _sum(self, losses: Sequence[float]) -> float:
        """The sum of the batches' losses in the order of the text, which is the same with any number of processes."""
        return sum(loss for found in self.ranks.gathered(losses) for loss in found)

    def _run_layers(self, batch: int, hidden: Tensor, numbers: Sequence[int]) -> Tensor:
        """Hidden states (sequences, length, hidden) after the layers `numbers`, each with its arguments in the original model.

        Mask and positions depend on the kind of a layer, which no removal changes.
        """
        for number in numbers:
            args, kwargs = self.blocks.arguments[batch][number]
            output = self.blocks.layers[number](hidden, *args, **kwargs)
            hidden = first_output(output)
        return hidden

    def _loss(self, batch: int, hidden: Tensor) -> float:
        """Summed loss of a batch from the hidden states after the last layer. The model itself applies the last norm."""

        def last(given: Tensor, *args: Any, **kwargs: Any) -> Any:
            del given, args, kwargs
            return self.blocks.returned(hidden)

        text = self.parts[batch].to(hidden.device)
        with forward_replaced(self.blocks.layers, last):
            states = text.counted(backbone(self.model)(**text.arguments).last_hidden_state, last=-1)
        targets = text.counted(text.ids.roll(-1, 1), last=-1)
        total = 0.0
        for part in chunks(len(targets), self.model):
            total += next_token_loss(self.head(states[part]), targets[part]).item()
        return total
