"""Text that is held out of training, and a goal for the loss on it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from compresslab.algorithms.next_token import next_token_loss
from compresslab.errors import BadInput
from compresslab.models.anatomy import backbone, output_head
from compresslab.models.chunks import chunks
from compresslab.models.documents.boundaries import ModelInput, batches
from compresslab.models.ranks import Ranks
from compresslab.models.text import TokenSequences

# Share of the different sequences that is held out (at least one), and their maximum number. The loss on 64 x 512 tokens has an error of
# half a percent.
SHARE, MAX_SEQUENCES = 0.05, 64
# Number of evaluations per run. With 5% of the text they take a sixth of the time of the training.
EVALUATIONS = 10
ALONE = Ranks()


class Goal(NamedTuple):
    """The loss to reach, in nats per token, and the sequences (n, length) on which it is measured."""

    loss: float
    text: ModelInput

    def interval(self, steps: int) -> int:
        """Number of steps between two evaluations."""
        return max(1, steps // EVALUATIONS)

    def loss_of(self, model: PreTrainedModel, ranks: Ranks = ALONE) -> float:
        """The model's loss on these sequences."""
        training = model.training
        loss = mean_loss(model.eval(), self.text, ranks)
        model.train(training)
        return loss


def split(text: TokenSequences) -> tuple[TokenSequences, ModelInput]:
    """The text to train on, and the held-out sequences (n, length), which are the last of the different ones.

    A sequence that shares a document with a held-out one, of which that holds the rest, is in neither.

    Raises:
        BadInput: there is only one sequence, or all of them are of one document.
    """
    numbers = text.numbers
    different = int(numbers.max()) + 1
    if different < 2:
        raise BadInput("until holds out some of the training text, and it is a single sequence; raise tokens or lower text.training.length")
    first = different - min(MAX_SEQUENCES, max(1, int(SHARE * different)))
    held_out = torch.stack([(numbers == number).nonzero()[0, 0] for number in range(first, different)])
    keep = numbers < first
    if text.documents is not None:
        keep &= text.documents[:, -1] < text.documents[held_out[0], 0]
    if not keep.any():
        raise BadInput(
            "until holds out the last documents of the training text, and no sequence before them is free of them; raise "
            "text.training.tokens, or give a text of more documents (two blank lines end a document of a .txt file)"
        )
    return text.at(keep.nonzero()[:, 0]), text.input.rows(held_out)


@torch.no_grad()
def mean_loss(model: PreTrainedModel, text: ModelInput, ranks: Ranks = ALONE) -> float:
    """Mean next-token loss in nats over sequences (n, length), which the processes divide among themselves."""
    head = output_head(model)
    total = 0.0
    parts = list(batches(text))
    for number, counted in ranks.turns(len(parts)):
        batch = parts[number].to(model.device)
        hidden = backbone(model)(**batch.arguments).last_hidden_state.flatten(0, 1)
        targets = batch.next_tokens()
        for part in chunks(len(hidden), model):
            loss = next_token_loss(head(hidden[part]), targets[part]).item()
            total += loss if counted else 0.0
    return ranks.sum(total) / len(text.counted(text.ids, last=-1))
