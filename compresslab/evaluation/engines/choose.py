"""Chooses the engine for some work, with the reason, and the number of tokens in its forward passes.

An engine is a function of the type `work.Engine` in a separate file, and one line in a table below. The first engine of a table without
an objection is chosen. If there is none, lm-eval's `hf` model answers: `plain`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, Literal, NamedTuple, TypeVar, overload

from transformers import PreTrainedModel

from compresslab.evaluation.engines import batched, branched, generation, tree
from compresslab.evaluation.engines.exactness import outgrown_window, why_no_cache_copy, why_no_tree_mask
from compresslab.evaluation.engines.work import Engine, GenerationWork, LogLikelihood, LogLikelihoodWork

Backend = Literal["tree", "hf"]
Work = TypeVar("Work", LogLikelihoodWork, GenerationWork)
Answer = TypeVar("Answer")

# If the trie has more than this share of the tokens, requests are computed in batches with the model's own attention. At 0.98 (LAMBADA)
# that was a fifth faster; the share at which both are equally fast was not measured.
BATCHED_FROM_SHARE = 0.9
# A forward pass of one branch takes as long as this many tokens in lm-eval's batches; measured: 143 (SmolLM2 on two cores, arc_easy).
MIN_TOKENS_PER_BRANCH = 150
# Settings of a model's generation_config that make `generate` choose another token than the most likely one, with their neutral values.
LOGITS_CHANGES: Mapping[str, object] = {
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": 0,
    "num_beams": 1,
    "penalty_alpha": 0.0,
    "guidance_scale": 1.0,
    "bad_words_ids": None,
    "sequence_bias": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "exponential_decay_length_penalty": None,
    "watermarking_config": None,
    "dola_layers": None,
}
MAX_LOGITS = 1 << 26  # in memory at a time


class Choice(NamedTuple, Generic[Work, Answer]):
    """The chosen engine.

    Attributes:
        name: its name in the records: a name in a table below, or "plain".
        why: the reason for it, and the objections to the engines before it in its table.
        engine: the function; None for lm-eval's `hf`.
    """

    name: str
    why: str
    engine: Engine[Work, Answer] | None


class Candidate(NamedTuple, Generic[Work, Answer]):
    """An engine, its purpose, and a function that returns the objection to it for a model, work and budget; empty if there is none."""

    name: str
    engine: Engine[Work, Answer]
    purpose: str
    objection: Callable[[PreTrainedModel, Work, int], str]


def tokens_per_forward(model: PreTrainedModel, requested: int | None = None) -> int:
    """Number of new tokens in one forward pass: `requested`, or what is fast on the model's device, within the memory for logits."""
    # On two cores, 1024 was about a tenth faster than 512 and not slower than 2048.
    tokens = requested or (1024 if model.device.type == "cpu" else 2048)
    vocabulary: int = model.config.get_text_config().vocab_size
    return max(1, min(tokens, MAX_LOGITS // vocabulary))


@overload
def choose_engine(
    model: PreTrainedModel, work: LogLikelihoodWork, budget: int, backend: Backend = "tree"
) -> Choice[LogLikelihoodWork, LogLikelihood]: ...


@overload
def choose_engine(
    model: PreTrainedModel, work: GenerationWork, budget: int, backend: Backend = "tree"
) -> Choice[GenerationWork, list[int]]: ...


def choose_engine(model: PreTrainedModel, work: Any, budget: int, backend: Backend = "tree") -> Choice[Any, Any]:
    """The engine for `work`: the fastest one that is exact for this model.

    Args:
        budget: number of new tokens in one forward pass. backend: the recipe's backend; "hf" chooses `plain`.
    """
    if backend == "hf":
        return Choice("plain", "the recipe asks for lm-eval's hf", None)
    table: tuple[Candidate[Any, Any], ...] = GENERATION if isinstance(work, GenerationWork) else LOG_LIKELIHOODS
    objections: dict[str, list[str]] = {}
    for candidate in table:
        reason = candidate.objection(model, work, budget)
        if not reason:
            return Choice(candidate.name, "; ".join([candidate.purpose, *_rejections(objections)]), candidate.engine)
        objections.setdefault(reason, []).append(candidate.name)
    return Choice("plain", "; ".join(_rejections(objections)), None)


def _rejections(objections: Mapping[str, list[str]]) -> list[str]:
    return [f"not {' or '.join(names)}: {reason}" for reason, names in objections.items()]


def _objection_to_batched(model: PreTrainedModel, work: LogLikelihoodWork, budget: int) -> str:
    if reason := why_no_tree_mask(model.config):
        return reason
    if work.longest > budget:
        return f"the logits of a sequence of {work.longest} tokens are more than those of {budget} tokens, which a forward pass may have"
    nodes, tokens = len(work.trie.tokens), work.tokens
    return "" if nodes > BATCHED_FROM_SHARE * tokens else f"only {nodes} of {tokens} tokens are left where shared prefixes are read once"


def _objection_to_tree(model: PreTrainedModel, work: LogLikelihoodWork, budget: int) -> str:  # noqa: ARG001
    return why_no_tree_mask(model.config)


def _objection_to_branched(model: PreTrainedModel, work: LogLikelihoodWork, budget: int) -> str:
    if reason := why_no_cache_copy(model.config):
        return reason
    if model.device.type != "cpu":
        return f"on {model.device.type} one short forward pass takes as long as a batch of long ones"
    count = sum(1 for _ in branched.branches(work.trie, budget))
    return "" if work.tokens >= MIN_TOKENS_PER_BRANCH * count else f"{count} branches of {work.tokens} tokens are too short to be faster"


def _objection_to_shared(model: PreTrainedModel, work: GenerationWork, budget: int) -> str:  # noqa: ARG001
    if reason := why_no_tree_mask(model.config):
        return reason
    if window := outgrown_window(model.config, work.longest):
        return f"a sequence of {work.longest} tokens outgrows its attention window of {window}"
    if changed := [name for name in LOGITS_CHANGES if getattr(model.generation_config, name, None) not in (None, LOGITS_CHANGES[name])]:
        return f"the model's generation_config has {', '.join(changed)}"
    return next((reason for prompt in work.prompts if (reason := _objection_to_settings(prompt.other_settings))), "")


def _objection_to_settings(settings: Mapping[str, object]) -> str:
    if settings.get("do_sample") or settings.get("temperature"):
        return "a task asks for random draws"
    others = sorted(set(settings) - {"do_sample", "temperature"})
    return f"a task asks for generation with {', '.join(others)}" if others else ""


LOG_LIKELIHOODS: tuple[Candidate[LogLikelihoodWork, LogLikelihood], ...] = (
    Candidate("batched", batched.log_likelihoods, "requests share nearly nothing", _objection_to_batched),
    Candidate("tree", tree.log_likelihoods, "requests share prefixes", _objection_to_tree),
    Candidate("branched", branched.log_likelihoods, "requests share long prefixes", _objection_to_branched),
)
GENERATION: tuple[Candidate[GenerationWork, list[int]], ...] = (
    Candidate("shared", generation.generate, "greedy decoding", _objection_to_shared),
)
