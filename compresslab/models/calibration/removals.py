"""In which order layers are best taken out, each judged by the loss without it: gathered once for all ratios of a sweep.

Source: Song et al. 2024, "SLEB: Streamlining LLMs through Redundancy Verification and Elimination of Transformer Blocks", arXiv 2402.09025,
algorithm 1: again and again the layer goes without which the model, as short as it is by then, has the lowest loss on calibration text.
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
from compresslab.files import told_if_damaged
from compresslab.methods.amounts import Misfit
from compresslab.methods.depth import PruneDepth, layers_left
from compresslab.models.anatomy import decoder_layers, output_head, parameters_of
from compresslab.models.calibration.blockwise import Blockwise, replaced
from compresslab.models.chunks import chunks
from compresslab.models.progress import Progress
from compresslab.models.shortening import why_not
from compresslab.models.text import TokenSequences, batches

FILE = "removals.json"


class Removals(NamedTuple):
    """An order of removal.

    Attributes:
        tokens: of calibration text behind it. text: its digest.
        whole: loss of the whole model in nats a token.
        order: layers by their number in the whole model. losses: after each removal.
        stopped: why no further layer can go, or nothing if none further was asked for.
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
    with told_if_damaged(folder / FILE):
        return Removals(**json.loads((folder / FILE).read_text()))


def order_temporarily(model: PreTrainedModel, text: TokenSequences, reader: PruneDepth, progress: Progress) -> Removals:
    """The same in a scratch folder, for a step that is run by itself."""
    with tempfile.TemporaryDirectory(prefix="compresslab-removals-") as scratch:
        order_removals(model, text, [reader], Path(scratch), progress)
        return read_removals(Path(scratch))


def order_removals(model: PreTrainedModel, text: TokenSequences, readers: Sequence[PruneDepth], folder: Path, progress: Progress) -> None:
    """Order as many removals as the reader that drops most needs, and write them into `folder`. The model is left as it is.

    Raises:
        UnsupportedModel: the layers are in no list that we know, or the logits come from no output head that we know.
        RunFailed: the loss is not finite.
    """
    sizes = [parameters_of(layer) for layer in decoder_layers(model)]
    total = parameters_of(model)
    search = _Search(model, text)
    whole = search.loss()
    order: list[int] = []
    losses: list[float] = []
    stopped = ""
    expected = max((_removals(reader, sizes, total, []) for reader in readers), default=0)
    while not stopped and any(_removals(reader, sizes, total, [sizes[n] for n in order]) > len(order) for reader in readers):
        found = search.losses_without_each(_part(progress, len(order), expected))
        refusals = []
        for loss, number in sorted((loss, number) for number, loss in found.items()):
            refusal = why_not(model, [*order, number])
            if not refusal:
                search.remaining.remove(number)
                order.append(number)
                losses.append(loss)
                break
            refusals.append(refusal)
        else:
            stopped = refusals[0]
    progress(1.0, "loss without each layer")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(Removals(text.ids.numel(), text.sha256, whole, order, losses, stopped)._asdict()))


def _part(progress: Progress, done: int, of: int) -> Callable[[float], None]:
    """The progress of one removal after `done` others. With layers of several sizes there may be more than were expected."""
    return lambda share: progress(min(1.0, (done + share) / of), f"loss without each layer, removal {done + 1} of {max(of, done + 1)}")


def _removals(reader: PruneDepth, sizes: Sequence[int], total: int, first: Sequence[int]) -> int:
    """How many layers a reader takes out if those of the sizes `first` go first and large ones after them; 0 if it cannot be served.

    Such a reader refuses when its own step runs, and keeps no other from the order.
    """
    rest = sorted(sizes, reverse=True)
    for size in first:
        rest.remove(size)
    gone = [0]
    for size in [*first, *rest]:
        gone.append(gone[-1] + size)
    try:
        return len(sizes) - layers_left(reader, len(sizes), lambda layers: total - gone[len(sizes) - layers])
    except Misfit:
        return 0


class _Search:
    """The model without some of its layers, and its loss without one layer more.

    Attributes:
        remaining: numbers of the layers that are left, ascending.
    """

    def __init__(self, model: PreTrainedModel, text: TokenSequences) -> None:
        self.model = model
        self.walk = Blockwise(model, text.ids)
        self.ids = list(batches(text.ids))
        self.head = output_head(model)
        self.remaining = list(range(len(self.walk.layers)))
        self.predictions = text.ids.shape[0] * (text.ids.shape[1] - 1)

    @torch.no_grad()
    def loss(self) -> float:
        """Nats a token of the model as it is.

        Raises:
            RunFailed: it is not finite.
        """
        total = 0.0
        for batch in range(len(self.ids)):
            total += self._loss(batch, self._through(batch, self.walk.hidden[batch], self.remaining))
        if not math.isfinite(total):
            raise RunFailed(f"the model's loss on the calibration text is {total}; try dtype float32 or bfloat16")
        return total / self.predictions

    @torch.no_grad()
    def losses_without_each(self, progress: Callable[[float], None]) -> dict[int, float]:
        """Nats a token without each of the remaining layers; infinite where it is no number.

        What comes before a layer is the same for all that come after, so it is computed once.
        """
        totals = dict.fromkeys(self.remaining, 0.0)
        for batch, before in enumerate(self.walk.hidden):
            for place, number in enumerate(self.remaining):
                after = self._through(batch, before, self.remaining[place + 1 :])
                totals[number] += self._loss(batch, after)
                before = self._through(batch, before, [number])
            progress((batch + 1) / len(self.ids))
        means = {number: total / self.predictions for number, total in totals.items()}
        return {number: mean if math.isfinite(mean) else math.inf for number, mean in means.items()}

    def _through(self, batch: int, hidden: Tensor, numbers: Sequence[int]) -> Tensor:
        """Hidden states (sequences, length, hidden) after the layers `numbers`, each called as in the whole model.

        The mask and the positions belong to the kind of a layer, and no layer goes where it would be of another kind.
        """
        for number in numbers:
            args, kwargs = self.walk.extras[batch][number]
            output = self.walk.layers[number](hidden, *args, **kwargs)
            hidden = output[0] if isinstance(output, tuple) else output
        return hidden

    def _loss(self, batch: int, hidden: Tensor) -> float:
        """Summed loss of a batch from the hidden states after the last layer. What follows it, the model itself does."""

        def last(given: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            del given, args, kwargs
            return hidden

        ids = self.ids[batch].to(hidden.device)
        with replaced(self.walk.layers, last):
            states = self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
        targets = ids[:, 1:].flatten()
        total = 0.0
        for part in chunks(len(targets), self.model):
            total += next_token_loss(self.head(states[part]), targets[part]).item()
        return total
