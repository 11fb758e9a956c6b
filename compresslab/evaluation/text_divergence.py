"""How far a variant's next-token distributions on a text are from its parent's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from compresslab.algorithms.divergence import blocks, of_tokens
from compresslab.errors import BadInput, RunFailed
from compresslab.models.anatomy import backbone, output_head
from compresslab.models.calibration.stored_logits import LOWEST
from compresslab.models.chunks import chunks
from compresslab.models.device import torch_dtype
from compresslab.models.documents.boundaries import ModelInput, batches, refuse_crossing
from compresslab.models.formats.dequantize import load_for_scoring
from compresslab.models.load import Loaded
from compresslab.models.progress import Progress
from compresslab.models.text import TokenSequences, held_out_tokens
from compresslab.models.vocabulary import check_readable, vocabulary_difference
from compresslab.recipe.schema import FidelityText
from compresslab.recipe.source import for_role
from compresslab.records import Mean, TextDivergence
from compresslab.records.compute import Compute


class Divergences(NamedTuple):
    """Two models on a text.

    Attributes:
        kl: (sequences,) mean over a sequence's positions of KL(parent || child), in nats a token, in float64.
        agreement: share of all positions at which both give the same token the highest probability.
        top_k: by k, the mean over sequences, as of `kl`, of the divergence that the parent's k largest logits tell, in nats a token.
    """

    kl: Tensor
    agreement: float
    top_k: dict[int, float]


def text_divergence(
    child: Path, parent: Path, text: FidelityText, compute: Compute, progress: Progress, top_ks: Sequence[int] = ()
) -> TextDivergence:
    """Compare the models of two folders on a text, computed as they are scored.

    Args:
        top_ks: numbers of a teacher's logits that the study stores; see `divergences`.

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
    for one in (ours, theirs):
        check_readable(tokens, one, f"the text {text.source!r}")
    found = divergences(ours, theirs, tokens, progress, top_ks)
    number = len(found.kl)
    stderr = float(found.kl.std(correction=1)) / math.sqrt(number) if number > 1 else None
    return TextDivergence(
        source=for_role(text.source, "held-out"),
        sha256=tokens.sha256,
        length=text.length,
        documents=text.documents,
        bos=text.bos,
        kl=Mean(value=float(found.kl.mean()), stderr=stderr, items=number),
        agreement=found.agreement,
        top_k=found.top_k,
        weights=weights,
        parent_weights=parent_weights,
        compute=compute.decides(),
    )


@torch.no_grad()
def divergences(child: Loaded, parent: Loaded, text: TokenSequences, progress: Progress, top_ks: Sequence[int] = ()) -> Divergences:
    """KL(parent || child) over the whole vocabulary, and the agreement of the most likely token, at every position of a text.

    Beside it stands what is left of KL where only the parent's k largest log-probabilities are known and the mass of all others counts as
    one event, as in stored logits. It is never larger: to join events loses information (Cover and Thomas 2006, section 2.7, log sum
    inequality).

    Source: Kullback and Leibler 1951, "On Information and Sufficiency". Logits of padding, beyond the tokenizer's tokens, are left out.

    Args:
        child, parent: models of one vocabulary. text: ids (sequences, length). top_ks: each k; those not below the vocabulary are left out.

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
    told: dict[int, list[Tensor]] = {k: [] for k in top_ks if k < tokens}
    for number, batch in enumerate(parts):
        hidden, parent_hidden = (
            batch.counted(backbone(one.model)(**batch.to(one.model.device).arguments).last_hidden_state) for one in (child, parent)
        )
        counted += len(hidden)
        values: list[Tensor] = []
        by_top_k: dict[int, list[Tensor]] = {k: [] for k in told}
        for part in chunks(len(hidden), wider):
            logits, parent_logits = of_tokens(heads[0](hidden[part]), tokens), of_tokens(heads[1](parent_hidden[part]), tokens)
            agreed += int((logits.argmax(-1) == parent_logits.argmax(-1)).sum())
            for rows in blocks(logits):
                own, other = (F.log_softmax(one[rows].float(), dim=-1) for one in (logits, parent_logits))
                values.append(_divergence(own, other))
                for k, parts_told in by_top_k.items():
                    parts_told.append(_divergence(*_largest_and_rest(own, other, k)))
        found.append(_means(torch.cat(values), batch))
        for k, parts_told in by_top_k.items():
            told[k].append(_means(torch.cat(parts_told), batch))
        progress((number + 1) / len(parts), "comparing next-token distributions")
    kl = torch.cat(found)
    if not torch.isfinite(kl).all():
        raise RunFailed("the models' log-probabilities on the text are not finite (NaN or infinite); try compute: float32")
    return Divergences(kl, agreed / counted, {k: float(torch.cat(means).mean()) for k, means in told.items()})


def _means(values: Tensor, batch: ModelInput) -> Tensor:
    """The mean (n,) over each sequence's positions of `values` (positions,), those of the batch that count."""
    rows = batch.counted(torch.arange(len(batch.ids))[:, None].expand(batch.ids.shape))
    sums = torch.zeros(len(batch.ids), dtype=values.dtype).index_add_(0, rows, values)
    return sums / rows.bincount(minlength=len(batch.ids))


def _divergence(child: Tensor, parent: Tensor) -> Tensor:
    """KL(parent || child) in nats of each row of log-probabilities (rows, events), (rows,), at least 0 in spite of rounding.

    In float64 on the processor, because not every device has float64.
    """
    return F.kl_div(child, parent, reduction="none", log_target=True).sum(-1).clamp(min=0.0).cpu().double()


def _largest_and_rest(child: Tensor, parent: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities (rows, k + 1) of child and parent: of the parent's k most likely tokens, and of all others together."""
    chosen = parent.topk(k, dim=-1).indices

    def events(log_probabilities: Tensor) -> Tensor:
        rest = log_probabilities.scatter(1, chosen, -torch.inf).logsumexp(-1, keepdim=True)
        return torch.cat([log_probabilities.gather(1, chosen), rest.clamp(min=LOWEST)], dim=1)

    return events(child), events(parent)
