"""Splits the positions of a text into chunks, since all their logits over a large vocabulary do not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator

from transformers import PreTrainedModel

# 128 MB in bfloat16, 256 MB in float32. Training needs the same again for a teacher's logits and for the gradient. Smaller chunks
# accumulate the head's weight gradient more often.
LOGITS_A_CHUNK = 2**26


def chunks(positions: int, model: PreTrainedModel) -> Iterator[slice]:
    """Consecutive slices of `positions` of nearly equal lengths, each of at most `LOGITS_A_CHUNK` logits of the model."""
    maximum = max(1, LOGITS_A_CHUNK // model.config.get_text_config().vocab_size)
    count = -(-positions // maximum)
    for number in range(count):
        yield slice(number * positions // count, (number + 1) * positions // count)
