"""What a model reads: tokens, and where documents are kept apart, the position of each in its document.

transformers derives both from restarting positions: attention that does not reach from one document into the next
(`find_packed_sequence_indices` in its `masking_utils`), and positional embeddings that begin anew. Not every architecture reads them, and a
state (Mamba, linear attention) runs over; `refuse_crossing` finds out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compresslab.algorithms.next_token import IGNORED_TARGET
from compresslab.errors import UnsupportedModel
from compresslab.methods.layerwise import BATCH_TOKENS
from compresslab.models.anatomy import backbone

# The largest difference between a document beside another one and alone, as a share of its hidden states or of what a layer adds to them.
# Rounding is far below.
LARGEST_CROSSING = {torch.float32: 1e-3}
LARGEST_16_BIT_CROSSING = 0.05


class ModelInput(NamedTuple):
    """Token ids (n, length), and the position (n, length) of each in its document where documents are kept apart."""

    ids: Tensor
    positions: Tensor | None = None

    def rows(self, rows: slice | Tensor) -> ModelInput:
        """Some of the sequences."""
        return ModelInput(self.ids[rows], None if self.positions is None else self.positions[rows])

    def to(self, device: torch.device) -> ModelInput:
        """The same on a device."""
        return ModelInput(self.ids.to(device), None if self.positions is None else self.positions.to(device))

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of a forward pass that keeps no cache. There is no mask, since transformers reads positions without one only."""
        return {"input_ids": self.ids, "use_cache": False, **({} if self.positions is None else {"position_ids": self.positions})}

    def next_tokens(self) -> Tensor:
        """The target (n * length,) of each position: the next token of its sequence and document, `IGNORED_TARGET` if there is none."""
        targets = torch.cat([self.ids[:, 1:], self.ids.new_full((len(self.ids), 1), IGNORED_TARGET)], dim=1)
        if self.positions is not None:
            targets[:, :-1][self.positions[:, 1:] == 0] = IGNORED_TARGET
        return targets.flatten()

    def counted(self, values: Tensor, first: int = 0, last: int | None = None) -> Tensor:
        """The rows of values (n, length, ...) at positions from `first` to `last`, without those that end a document within the sequence.

        What follows such a position is another document, which it cannot predict.
        """
        chosen = values[:, first:last].flatten(0, 1)
        if self.positions is None:
            return chosen
        goes_on = torch.ones_like(self.positions, dtype=torch.bool)
        goes_on[:, :-1] = self.positions[:, 1:] != 0
        return chosen[goes_on[:, first:last].flatten().to(values.device)]


def batches(text: ModelInput) -> Iterator[ModelInput]:
    """The sequences in batches of about `BATCH_TOKENS` tokens."""
    count = max(1, BATCH_TOKENS // text.ids.shape[1])
    for start in range(0, len(text.ids), count):
        yield text.rows(slice(start, start + count))


def joined(parts: Iterable[ModelInput]) -> ModelInput:
    """All sequences of several inputs."""
    every = list(parts)
    positions = [part.positions for part in every if part.positions is not None]
    return ModelInput(torch.cat([part.ids for part in every]), torch.cat(positions) if positions else None)


def trial(model: PreTrainedModel, device: torch.device) -> tuple[ModelInput, ModelInput]:
    """Two documents of eight tokens in a sequence, and the second of them alone."""
    vocabulary: int = model.config.get_text_config().vocab_size
    ids = ((torch.arange(16) * 7919 + 11) % vocabulary)[None].to(device)
    positions = (torch.arange(16, device=device) % 8)[None]
    return ModelInput(ids, positions), ModelInput(ids[:, 8:], positions[:, 8:])


@torch.no_grad()
def refuse_crossing(model: PreTrainedModel) -> None:
    """Refuse a model in memory that does not keep documents apart.

    Raises:
        UnsupportedModel: a document's hidden states depend on the one before it.
    """
    training = model.training
    model.eval()
    try:
        both, alone = (backbone(model)(**one.arguments).last_hidden_state for one in trial(model, model.device))
    except TypeError as error:  # the forward of BLOOM and of Mamba takes no positions
        if "position_ids" not in str(error):
            raise
        raise crossing(model) from None
    finally:
        model.train(training)
    if crosses(both, alone):
        raise crossing(model)


def crosses(both: Tensor, alone: Tensor) -> bool:
    """Whether values (1, 16, hidden) of both documents of `trial` differ in the second one from those of it alone (1, 8, hidden).

    At the first token, which a convolution over few tokens reaches, or in the median over all tokens: where a router chooses between
    experts, rounding may turn its choice for one of them.
    """
    largest = LARGEST_CROSSING.get(alone.dtype, LARGEST_16_BIT_CROSSING)
    own = both[:, alone.shape[1] :].float()
    difference = (own - alone.float()).norm(dim=-1) / alone.float().norm(dim=-1).clamp(min=1e-12)
    return not max(difference[0, 0].item(), difference.median().item()) <= largest


def crossing(model: PreTrainedModel) -> UnsupportedModel:
    """The refusal of a model that does not keep documents apart."""
    return UnsupportedModel(
        f"{model.config.model_type} does not keep the documents of a sequence apart: a state runs over from one to the next, or the "
        "architecture reads no restarting positions; take documents: packed"
    )
