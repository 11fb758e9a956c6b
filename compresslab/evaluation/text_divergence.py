"""How far a variant's next-token distributions on a text are from its parent's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from compresslab.algorithms.divergence import blocks, of_tokens
from compresslab.errors import BadInput, RunFailed
from compresslab.models.anatomy import output_head
from compresslab.models.chunks import chunks
from compresslab.models.device import torch_dtype
from compresslab.models.documents.boundaries import ModelInput, batches, refuse_crossing
from compresslab.models.formats.dequantize import load_for_scoring
from compresslab.models.load import Loaded
from compresslab.models.progress import Progress
from compresslab.models.text import TokenSequences, held_out_tokens
from compresslab.models.vocabulary import vocabulary_difference
from compresslab.recipe.schema import FidelityText
from compresslab.recipe.source import for_role
from compresslab.records import Mean, TextDivergence
from compresslab.records.compute import Compute


class Divergences(NamedTuple):
    """Two models on a text.

    Attributes:
        kl: (sequences,) mean over a sequence's positions of KL(parent || child), in nats a token, in float64.
        agreement: share of all positions at which both give the same token the highest probability.
    """

    kl: Tensor
    agreement: float


def text_divergence(child: Path, parent: Path, text: FidelityText, compute: Compute, progress: Progress) -> TextDivergence:
    """Compare the models of two folders on a text, computed as they are scored.

    Raises:
        BadInput: the two have different vocabularies, the text is too short, or a model does not keep its documents apart.
        RunFailed: log-probabilities are not finite.
    """
    progress(0.0, "loading")
    (ours, weights), (theirs, parent_weights) = (
        load_for_scoring(folder, torch_dtype(compute), compute.device) for folder in (child, parent)
    )
    if difference := vocabulary_difference(ours, theirs):
        raise BadInput(
            f"the parent has another vocabulary ({difference}), so the two models' next-token distributions are over other tokens; "
            "leave evaluate.fidelity out of this study, or this variant"
        )
    tokens = held_out_tokens(text, ours.tokenizer)
    found = divergences(ours, theirs, tokens, progress)
    number = len(found.kl)
    stderr = float(found.kl.std(correction=1)) / math.sqrt(number) if number > 1 else None
    return TextDivergence(
        source=for_role(text.source, "held-out"),
        sha256=tokens.sha256,
        length=text.length,
        kl=Mean(value=float(found.kl.mean()), stderr=stderr, items=number),
        agreement=found.agreement,
        weights=weights,
        parent_weights=parent_weights,
        compute=compute.decides(),
    )


@torch.no_grad()
def divergences(child: Loaded, parent: Loaded, text: TokenSequences, progress: Progress) -> Divergences:
    """KL(parent || child) over the whole vocabulary, and the agreement of the most likely token, at every position of a text.

    Source: Kullback and Leibler 1951, "On Information and Sufficiency". Logits of padding, beyond the tokenizer's tokens, are left out.

    Args:
        child, parent: models of one vocabulary. text: ids (sequences, length).

    Raises:
        RunFailed: log-probabilities are not finite.
    """
    heads = [output_head(one.model) for one in (child, parent)]
    tokens = min(
        max(child.tokenizer.get_vocab().values()) + 1, *(one.model.get_output_embeddings().weight.shape[0] for one in (child, parent))
    )
    if text.bounded:
        for one in (child, parent):
            refuse_crossing(one.model)
    # The chunks are those of the model with more logits.
    wider = max((child.model, parent.model), key=lambda model: model.config.get_text_config().vocab_size)
    parts = list(batches(text.input))
    found, agreed, counted = [], 0, 0
    for number, batch in enumerate(parts):
        hidden, parent_hidden = (
            batch.counted(one.model.base_model(**batch.to(one.model.device).arguments).last_hidden_state) for one in (child, parent)
        )
        counted += len(hidden)
        values = []
        for part in chunks(len(hidden), wider):
            logits, parent_logits = of_tokens(heads[0](hidden[part]), tokens), of_tokens(heads[1](parent_hidden[part]), tokens)
            agreed += int((logits.argmax(-1) == parent_logits.argmax(-1)).sum())
            values += [_divergence(logits[rows], parent_logits[rows]) for rows in blocks(logits)]
        found.append(_means(torch.cat(values), batch))
        progress((number + 1) / len(parts), "comparing next-token distributions")
    kl = torch.cat(found)
    if not torch.isfinite(kl).all():
        raise RunFailed("the models' log-probabilities on the text are not finite (NaN or infinite); try compute: float32")
    return Divergences(kl, agreed / counted)


def _means(values: Tensor, batch: ModelInput) -> Tensor:
    """The mean (n,) over each sequence's positions of `values` (positions,), those of the batch that count."""
    rows = batch.counted(torch.arange(len(batch.ids))[:, None].expand(batch.ids.shape))
    sums = torch.zeros(len(batch.ids), dtype=values.dtype).index_add_(0, rows, values)
    return sums / rows.bincount(minlength=len(batch.ids))


def _divergence(logits: Tensor, parent_logits: Tensor) -> Tensor:
    """KL(parent || child) in nats of each row of logits (rows, tokens), (rows,), at least 0 in spite of rounding.

    In float64 on the processor, because not every device has float64.
    """
    child, parent = F.log_softmax(logits.float(), dim=-1), F.log_softmax(parent_logits.float(), dim=-1)
    return F.kl_div(child, parent, reduction="none", log_target=True).sum(-1).clamp(min=0.0).cpu().double()
