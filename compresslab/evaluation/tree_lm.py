"""`TreeLM`: lm-eval's `hf` model with the fastest exact engine (`engines.choose`).

It implements lm-eval's interface: strings are tokenized like in `hf`, an engine computes the requests, and answers are in their order.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compresslab.errors import RunFailed
from compresslab.evaluation import scores
from compresslab.evaluation.engines import limits, plain
from compresslab.evaluation.engines.choose import Backend, Choice, choose_engine, tokens_per_forward
from compresslab.evaluation.engines.encodings import Encodings, Ids
from compresslab.evaluation.engines.journal import Journal
from compresslab.evaluation.engines.limits import LmEvalRequest
from compresslab.evaluation.engines.work import GenerationWork, LogLikelihood, LogLikelihoodRequest, LogLikelihoodWork, Prompt
from compresslab.models.device import computed
from compresslab.models.ranks import ALONE, Ranks
from compresslab.models.vocabulary import check_ids

_PlainRequest = tuple[tuple[int, ...], int, tuple[str, ...]]
"""Token ids of a prompt, its limit of new tokens, and its stop sequences."""

BATCH = 8  # sequences in one forward pass of lm-eval's `hf`
log = logging.getLogger(__name__)


class TreeLM(HFLM):  # type: ignore[misc]
    """lm-eval's `hf` for a model in memory, exact and several times faster if requests share prefixes.

    Attributes:
        engine: the name in `engines.choose` of the engine of the last answers; "plain" is lm-eval's `hf`. why: the reason for it.
        truncated: the (prompt, continuation) pairs that did not fit the context and were cut from the left.
        lengths: number of tokens of each pair's continuation, or of the text that was generated for it.
        cut: of each pair that was generated for, whether the text ended at its limit of tokens, with neither a stop sequence nor an end.
        bos: whether the tokenizer adds a beginning-of-sequence token.
        compute: dtype and backend of the forward passes, for the records.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        budget: int | None = None,
        progress: Callable[[float], None] | None = None,
        journals: Path | None = None,
        encodings: Path | None = None,
        truncate: bool = True,
        backend: Backend = "tree",
        ranks: Ranks = ALONE,
    ) -> None:
        """Wrap `model`.

        Args:
            budget: number of new tokens in one forward pass. progress: called with the share done.
            journals: folder for the journals of this model's answers, from which it resumes.
            encodings: folder for token ids, so that no task is tokenized twice.
            truncate: cut prompts that do not fit the context from the left, like lm-eval, instead of refusing them.
            backend: the recipe's backend; "hf" computes everything with lm-eval's `hf`.
            ranks: the processes that answer together. The first one is asked; the others `follow`, until it lets them go (`dismiss`).
        """
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=BATCH)
        self.budget = tokens_per_forward(model, budget)
        self.progress: Callable[[float], None] = progress or (lambda _share: None)
        self.journals, self.truncate, self.recipe_backend = journals, truncate, backend
        self.encodings, self.ranks = Encodings(encodings, tokenizer), ranks
        self.compute = computed(model.dtype, model.device)
        self.engine, self.why = "tree", ""
        self.truncated: set[tuple[str, str]] = set()
        self.lengths: dict[tuple[str, str], int] = {}
        self.cut: dict[tuple[str, str], bool] = {}
        self._plain_outputs: dict[_PlainRequest, set[tuple[int, ...]]] = {}
        self.bos = self.tokenizer.bos_token_id is not None and self.tok_encode("a")[:1] == [self.tokenizer.bos_token_id]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[LogLikelihood]:  # noqa: ARG002
        """Log-likelihood of each continuation and whether it is the greedy one, as lm-eval requires."""
        encoded = self.encode([request.args for request in requests])
        self.lengths |= {pair: len(continuation) for pair, _, continuation in encoded if pair is not None}
        return self._loglikelihood_tokens(encoded)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[LmEvalRequest],
        disable_tqdm: bool = False,  # noqa: ARG002
        override_bs: int | None = None,  # noqa: ARG002, lm-eval uses it if its batch size is "auto"
    ) -> list[LogLikelihood]:
        """Answers in the order of `requests`. The numbers do not depend on the order."""
        self._record_truncated(limits.too_long(requests, self.max_length))
        uncut = [LogLikelihoodRequest(context, continuation) for _, context, continuation in requests]
        self.ranks.shared(LogLikelihoodWork(uncut))
        answers = self._log_likelihoods(uncut)
        for (pair, _, _), answer in zip(requests, answers, strict=True):
            if pair is not None:  # rolling windows have no pair
                self.cache_hook.add_partial("loglikelihood", pair, answer)
        return answers

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002
        """The model's continuation of each context up to a stop sequence, as lm-eval requires."""
        work = GenerationWork(self._prompts(requests))
        self.ranks.shared(GenerationWork([prompt._replace(stop_reached=_never) for prompt in work.prompts]))
        if (generated := self._generated(work)) is None:
            return self._plain_texts(requests, work.prompts)
        texts = []
        for request, prompt, ids in zip(requests, work.prompts, generated, strict=True):
            text = postprocess_generated_text(self.tok_decode(ids), prompt.stop_sequences, None)
            self.lengths[scores.pair(request.args)] = len(ids)
            self.cut[scores.pair(request.args)] = _cut(prompt, ids)
            self.cache_hook.add_partial("generate_until", request.args, text)
            texts.append(text)
        return texts

    def _plain_texts(self, requests: list[Instance], prompts: Sequence[Prompt]) -> list[str]:
        """The texts of lm-eval's `hf`, which tells nothing of their tokens: these are noted where it generates (`_model_generate`)."""
        self._plain_outputs.clear()
        texts: list[str] = super().generate_until(requests, disable_tqdm=True)
        for request, prompt in zip(requests, prompts, strict=True):
            outputs = self._plain_outputs.get((tuple(prompt.input_ids), prompt.max_new_tokens, tuple(prompt.stop_sequences)), set())
            # Of equal requests that are answered by random draws, nobody knows whose output is whose.
            if len(outputs) == 1:
                [output] = outputs
                ids = _until_stop(prompt, output)
                self.lengths[scores.pair(request.args)], self.cut[scores.pair(request.args)] = len(ids), _cut(prompt, ids)
        self._plain_outputs.clear()
        return texts

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **settings: Any) -> Tensor:
        """As in `HFLM`. Notes the new tokens of each prompt, with what stands after the end of the shorter answers of a batch."""
        output: Tensor = super()._model_generate(context, max_length=max_length, stop=stop, **settings)
        width = context.shape[1]
        mask = settings.get("attention_mask")
        kept = [[True] * width] * len(context) if mask is None else mask.bool().tolist()
        if len(output) == len(context):
            for prompt, own, new in zip(context.tolist(), kept, output[:, width:].tolist(), strict=True):
                ids = tuple(token for token, real in zip(prompt, own, strict=True) if real)
                self._plain_outputs.setdefault((ids, max_length - width, tuple(stop)), set()).add(tuple(new))
        return output

    def follow(self) -> None:
        """Compute parts of what the first process is asked, until it lets this one go; it may be called again."""
        work: LogLikelihoodWork | GenerationWork | None
        while (work := self.ranks.shared(None)) is not None:
            if isinstance(work, LogLikelihoodWork):
                self._log_likelihoods(work.requests)
            else:
                prompts = [prompt._replace(stop_reached=self._stop_check(prompt.stop_sequences)) for prompt in work.prompts]
                self._generated(GenerationWork(prompts))

    def dismiss(self) -> None:
        """Let the other processes go."""
        self.ranks.shared(None)

    def _log_likelihoods(self, uncut: Sequence[LogLikelihoodRequest]) -> list[LogLikelihood]:
        work = LogLikelihoodWork([request.cut(self.max_length) for request in uncut])
        choice = choose_engine(self.model, work, self.budget, self.recipe_backend)
        self._record_engine(choice)
        if choice.engine is None:
            work = LogLikelihoodWork(uncut)  # lm-eval truncates requests itself
            return plain.log_likelihoods(self, work, self.budget, self.progress, self._journal(work))
        return choice.engine(self.model, work, self.budget, self.progress, self._journal(work))

    def _generated(self, work: GenerationWork) -> list[list[int]] | None:
        """The new tokens of each prompt; `None` if no engine computes them, so that lm-eval's `hf` must."""
        choice = choose_engine(self.model, work, self.budget, self.recipe_backend)
        self._record_engine(choice)
        if choice.engine is None:
            return None
        generated: list[list[int]] = choice.engine(self.model, work, self.budget, self.progress, self._journal(work))
        return generated

    def _record_engine(self, choice: Choice[Any, Any]) -> None:
        self.engine, self.why = choice.name, choice.why
        log.info("%s answers: %s", choice.name, choice.why)

    def _journal(self, work: LogLikelihoodWork | GenerationWork) -> Journal:
        """The journal of the engine's answers to this work."""
        return Journal(self.journals, chain([self.engine.encode(), str(self.budget).encode()], work.content()), self.ranks)

    def _record_truncated(self, pairs: set[tuple[str, str]]) -> None:
        """Record the requests that do not fit the context, or refuse them if the recipe does not allow truncation."""
        if not self.truncate:
            limits.refuse(pairs, self.max_length)
        self.truncated |= pairs

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[LmEvalRequest]:
        """Token ids of (context, continuation) pairs, split like in `HFLM`. Each distinct string is tokenized once.

        Spaces at the end of a context belong to the continuation. The continuation's ids are those after the length of the context's
        encoding in the encoding of both, even if the tokenizer merges across the boundary. The numbers are therefore those of lm-eval.
        """
        normalized = [_move_spaces(context, continuation) for context, continuation in pairs]
        contexts = self._encoded({(context, "") for context, _ in normalized if context})
        continuations = self._encoded({pair for pair in normalized if pair[0]}, contexts=contexts)
        continuations_only = self._encoded({pair for pair in normalized if not pair[0]}, add_special_tokens=False)
        encoded: list[LmEvalRequest] = []
        for pair, (context, continuation) in zip(pairs, normalized, strict=True):
            if context:
                ids = contexts[context, ""], continuations[context, continuation]
            else:
                ids = self._without_context(continuations_only["", continuation])
            encoded.append((pair, *ids))
        return encoded

    def _without_context(self, continuation: Ids) -> tuple[Ids, Ids]:
        """An empty context becomes one beginning- or end-of-sequence token, unless the continuation begins with it."""
        if self.prefix_token_id is None:
            raise RunFailed("the tokenizer has neither a beginning- nor an end-of-sequence token to stand for an empty prompt")
        prefix = array("i", [self.prefix_token_id])
        return (prefix, continuation[1:]) if continuation[:1] == prefix else (prefix, continuation)

    def _encoded(
        self, pairs: Iterable[scores.Pair], contexts: Mapping[scores.Pair, Ids] | None = None, **special: bool
    ) -> dict[scores.Pair, Ids]:
        """Encodings of the pairs' strings like those of `tok_encode`. A string that begins with the BOS token does not get another one.

        Args:
            contexts: encodings of the contexts; the result contains the ids after them only.
        """
        prefix = self.prefix_token_id
        bos = "" if special or prefix is None else self.tokenizer.decode(prefix)
        encoded: dict[scores.Pair, Ids] = {}
        ordered = sorted(pairs)
        for kwargs, group in (
            (special, [pair for pair in ordered if not (bos and "".join(pair).startswith(bos))]),
            ({"add_special_tokens": False}, [pair for pair in ordered if bos and "".join(pair).startswith(bos)]),
        ):
            if group:
                tokenized = partial(self._tokenized, special=kwargs, contexts=contexts)
                ids = self.encodings.encoded(group, f"{kwargs}{'' if contexts is None else ', continuations'}", tokenized)
                encoded.update(zip(group, ids, strict=True))
        if largest := max((max(ids, default=0) for ids in encoded.values()), default=0):
            check_ids(largest, self.model, self.tokenizer, "the text of a task")
        return encoded

    def _tokenized(
        self, pairs: Sequence[scores.Pair], special: dict[str, bool], contexts: Mapping[scores.Pair, Ids] | None
    ) -> list[list[int]]:
        strings = ["".join(pair) for pair in pairs]
        tokenized = self.tokenizer(strings, padding=False, truncation=False, return_attention_mask=False, verbose=False, **special)
        ids: list[list[int]] = tokenized["input_ids"]
        return ids if contexts is None else [row[len(contexts[context, ""]) :] for (context, _), row in zip(pairs, ids, strict=True)]

    def _prompts(self, requests: Sequence[Instance]) -> list[Prompt]:
        """The requests' contexts and settings, truncated so that the new tokens fit into the context.

        Raises:
            RunFailed: the maximum length of a task's answers is not below the context length.
        """
        contexts = self._encoded({(request.args[0], "") for request in requests})
        prompts, too_long = [], set()
        for request in requests:
            settings = normalize_gen_kwargs(request.args[1], self.max_gen_toks)
            stops = handle_stop_sequences(settings.pop("until", None), eos=self.tok_decode(self.eot_token_id, skip_special_tokens=False))
            max_new_tokens = int(settings.pop("max_gen_toks"))
            if max_new_tokens >= self.max_length:
                raise RunFailed(
                    f"a task asks for up to {max_new_tokens} new tokens, which leaves no room for a prompt in {self.max_length}"
                )
            ids = list(contexts[request.args[0], ""]) or [self.prefix_token_id]
            if len(ids) + max_new_tokens > self.max_length:
                too_long.add(scores.pair(request.args))
            prompts.append(Prompt(ids[-(self.max_length - max_new_tokens) :], max_new_tokens, self._stop_check(stops), stops, settings))
        self._record_truncated(too_long)
        return prompts

    def _stop_check(self, stop_sequences: list[str]) -> Callable[[list[int]], bool]:
        """A function that returns whether new tokens contain a stop sequence or end the text. It decodes the last few tokens only."""
        ends = self.model.generation_config.eos_token_id
        end_tokens = {self.eot_token_id, *(ends if isinstance(ends, list) else [ends])}
        window = max((len(self.tok_encode(stop, add_special_tokens=False)) for stop in stop_sequences), default=0) + 2

        def stop_reached(ids: list[int]) -> bool:
            if ids[-1] in end_tokens:
                return True
            text = self.tokenizer.decode(ids[-window:])
            return any(stop in text for stop in stop_sequences)

        return stop_reached


def _cut(prompt: Prompt, ids: list[int]) -> bool:
    """Whether an answer ended at its limit of tokens alone."""
    return len(ids) >= prompt.max_new_tokens and not (ids and prompt.stop_reached(ids))


def _until_stop(prompt: Prompt, output: Sequence[int]) -> list[int]:
    """The tokens of an answer up to the first at which it was complete."""
    ids: list[int] = []
    for token in output:
        ids.append(token)
        if prompt.stop_reached(ids):
            break
    return ids


def _never(_: list[int]) -> bool:
    """Takes the place of a prompt's `stop_reached` on its way to another process, which makes its own."""
    return False


def _move_spaces(context: str, continuation: str) -> tuple[str, str]:
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation
