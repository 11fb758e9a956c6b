"""Positions of a text a chunk at a time: their logits over a large vocabulary would not fit in memory together."""

from __future__ import annotations

from collections.abc import Iterator

from transformers import PreTrainedModel

# 128 MB in bfloat16, twice that in float32; in training as much again for a teacher's and for the gradient. Smaller chunks add up the
# head's weight gradient more often.
LOGITS_A_CHUNK = 2**26


def chunks(positions: int, model: PreTrainedModel) -> Iterator[slice]:
    """Consecutive slices of `positions`, as equal as they come, of at most `LOGITS_A_CHUNK` logits of the model each."""
    most = max(1, LOGITS_A_CHUNK // model.config.get_text_config().vocab_size)
    count = -(-positions // most)
    for number in range(count):
        yield slice(number * positions // count, (number + 1) * positions // count)
