"""Packs small integers into 32-bit words, as in GPTQ checkpoints: one stream of bits, the first value in the lowest bits."""

from __future__ import annotations

import torch
from torch import Tensor

from compresslab.methods.format import WORD_BITS


def packed(values: Tensor, bits: int) -> Tensor:
    """Integers of `bits` bits (n, columns), n a multiple of 32, as int32 words (n * bits / 32, columns).

    32 values fill `bits` words. A value of 3 bits may begin in one word and end in the next.
    """
    rounds = values.to(torch.int64).view(-1, WORD_BITS, values.shape[1])
    words = torch.zeros(len(rounds), bits, values.shape[1], dtype=torch.int64, device=values.device)
    for place in range(WORD_BITS):
        word, offset = divmod(place * bits, WORD_BITS)
        words[:, word] |= rounds[:, place] << offset
        if offset + bits > WORD_BITS:
            words[:, word + 1] |= rounds[:, place] >> (WORD_BITS - offset)
    words &= 2**WORD_BITS - 1
    return torch.where(words >= 2**31, words - 2**WORD_BITS, words).to(torch.int32).flatten(0, 1)


def unpacked(words: Tensor, bits: int) -> Tensor:
    """Inverts `packed`; the values are uint8."""
    wide = (words.to(torch.int64) & (2**WORD_BITS - 1)).view(-1, bits, words.shape[1])
    values = torch.empty(len(wide), WORD_BITS, words.shape[1], dtype=torch.uint8, device=words.device)
    for place in range(WORD_BITS):
        word, offset = divmod(place * bits, WORD_BITS)
        value = wide[:, word] >> offset
        if offset + bits > WORD_BITS:
            value = value | (wide[:, word + 1] << (WORD_BITS - offset))
        values[:, place] = value & (2**bits - 1)
    return values.flatten(0, 1)
