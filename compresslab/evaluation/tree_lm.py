"""`TreeLM`: lm-eval's `hf` model with every shared prefix computed once.

Requests share the few-shot block, the question, or the beginning of an option. `TreeLM` finds that from the token ids,
lays all requests out as one trie (see `trie`) and runs its nodes through the model in pieces of a fixed number of
tokens, under a mask by which each node sees its ancestors only, at positions counted from its own root. The memory
needed is that of one piece and one path, whatever the task.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from compresslab.errors import RunFailed
from compresslab.evaluation import scores
from compresslab.evaluation.attention import tree as tree_attention
from compresslab.evaluation.attention.swapped import attending
from compresslab.evaluation.attention.tree import laid_out, layout
from compresslab.evaluation.engines import limits
from compresslab.evaluation.engines.batched import Answer, in_batches
from compresslab.evaluation.engines.branched import along_branches, pieces
from compresslab.evaluation.engines.cache_name import cache_name
from compresslab.evaluation.engines.encodings import Encodings, Ids
from compresslab.evaluation.engines.exactness import obstacle, outgrown_window, remembers
from compresslab.evaluation.engines.generation import Prompt, generate
from compresslab.evaluation.engines.journal import Journal
from compresslab.evaluation.engines.limits import Request
from compresslab.evaluation.engines.target_scores import target_scores
from compresslab.evaluation.engines.trie import Forward, Trie, ancestral, build, forwards
from compresslab.models.device import computed

BATCH = 8  # sequences a forward on the plain path
SLICE = 128  # requests between two progress reports on the plain path
# Where the trie saves less than this leaves, prompts go in batches of the model's own attention: at 0.98 (LAMBADA) that was a fifth faster;
# where the two cross has not been measured.
NOTHING_SHARED = 0.9
# A forward of one branch takes as long as this many tokens of lm-eval's batches: 143 were measured (SmolLM2 on two cores, arc_easy).
WORTH_BRANCHING = 150
LOGITS = 1 << 26  # most logits held at a time


class TreeLM(HFLM):  # type: ignore[misc]
    """lm-eval's `hf` for a model in memory, exact and several times faster wherever requests share prefixes.

    Attributes:
        engine: how the last answers were computed: "tree" (log-likelihoods), "batched" (of prompts that share nothing), "shared" (generated
            behind a shared prefix); where a mask of ours would not be exact for this model, "branched" (one branch after the other) or
            "plain" (lm-eval's own way). `why_plain` then says why.
        truncated: the (prompt, continuation) pairs that did not fit the context and were cut from the left.
        lengths: tokens of each pair's continuation, or of what was generated behind a shared prefix.
        bos: whether the tokenizer puts a beginning-of-sequence token first.
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
        plain: str = "",
    ) -> None:
        """Wrap `model`.

        Args:
            budget: new tokens a forward. progress: called with the share that is done.
            journals: folder for what is answered of this very model, to go on from after a stop.
            encodings: folder for token ids, to tokenize no task twice.
            truncate: cut prompts that do not fit the context from the left, as lm-eval does, instead of refusing them.
            plain: why everything is to go lm-eval's own way, if it is.
        """
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=BATCH)
        # On two cores 1024 was about a tenth faster than 512, and no slower than 2048.
        wanted = budget or (1024 if model.device.type == "cpu" else 2048)
        self.budget = max(1, min(wanted, LOGITS // model.config.get_text_config().vocab_size))
        self.progress: Callable[[float], None] = progress or (lambda _share: None)
        self.journals, self.truncate, self.plain = journals, truncate, plain
        self.encodings = Encodings(encodings, tokenizer)
        text = model.config.get_text_config()
        # Attention in chunks is for processors, and knows no capped scores.
        self.chunked = (
            model.device.type == "cpu" and text._attn_implementation == "sdpa" and getattr(text, "attn_logit_softcapping", None) is None
        )
        self.compute = computed(model.dtype, model.device)
        self.engine = "tree"
        self.why_plain = ""
        self.truncated: set[tuple[str, str]] = set()
        self.lengths: dict[tuple[str, str], int] = {}
        self.bos = self.tokenizer.bos_token_id is not None and self.tok_encode("a")[:1] == [self.tokenizer.bos_token_id]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Answer]:  # noqa: ARG002
        """Log-likelihood of each continuation and whether it is the greedy one; lm-eval's contract."""
        encoded = self.encode([request.args for request in requests])
        self.lengths |= {pair: len(tail) for pair, _, tail in encoded if pair is not None}
        return self._loglikelihood_tokens(encoded)

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[Request]:
        """Token ids of (context, continuation) pairs as `HFLM` splits them, each distinct string tokenized once.

        Spaces at the end of a context belong to the continuation, and a continuation is what the encoding of the whole
        has beyond the length of the context's own: also where the tokenizer merges across the boundary, so that a
        figure means the same as lm-eval's.
        """
        moved = [_spaces_moved(context, continuation) for context, continuation in pairs]
        heads = self._encoded({(context, "") for context, _ in moved if context})
        tails = self._encoded({pair for pair in moved if pair[0]}, behind=heads)
        bare = self._encoded({pair for pair in moved if not pair[0]}, add_special_tokens=False)
        encoded: list[Request] = []
        for pair, (context, continuation) in zip(pairs, moved, strict=True):
            if context:
                head, tail = heads[context, ""], tails[context, continuation]
            elif self.prefix_token_id is None:
                raise RunFailed("the tokenizer has neither a beginning- nor an end-of-sequence token to stand for an empty prompt")
            else:
                tail, prefix = bare["", continuation], array("i", [self.prefix_token_id])
                # An empty context is one beginning- or end-of-sequence token, unless the continuation brings its own.
                head, tail = (prefix, tail[1:]) if tail[:1] == prefix else (prefix, tail)
            encoded.append((pair, head, tail))
        return encoded

    def _encoded(
        self, pairs: Iterable[scores.Pair], behind: Mapping[scores.Pair, Ids] | None = None, **special: bool
    ) -> dict[scores.Pair, Ids]:
        """Encodings of the pairs' strings as `tok_encode` gives them: a string that begins with the BOS token does not get another one.

        Args:
            behind: encodings of the contexts; only what is behind them is kept.
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
                tokenized = partial(self._tokenized, special=kwargs, behind=behind)
                ids = self.encodings.encoded(group, f"{kwargs}{'' if behind is None else ', continuations'}", tokenized)
                encoded.update(zip(group, ids, strict=True))
        return encoded

    def _tokenized(
        self, pairs: Sequence[scores.Pair], special: dict[str, bool], behind: Mapping[scores.Pair, Ids] | None
    ) -> list[list[int]]:
        strings = ["".join(pair) for pair in pairs]
        tokenized = self.tokenizer(strings, padding=False, truncation=False, return_attention_mask=False, verbose=False, **special)
        ids: list[list[int]] = tokenized["input_ids"]
        return ids if behind is None else [row[len(behind[context, ""]) :] for (context, _), row in zip(pairs, ids, strict=True)]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002
        """The model's greedy continuation of each context up to a stop string; lm-eval's contract.

        Requests that draw at random, or ask for anything else, go lm-eval's own way.
        """
        contexts = self._encoded({(request.args[0], "") for request in requests})
        prompts, reasons = [], []
        for request in requests:
            until, most, why = self._wanted(request)
            ids = list(contexts[request.args[0], ""]) or [self.prefix_token_id]
            if len(ids) + most > self.max_length:
                self._cut({scores.pair(request.args)})
            prompts.append(Prompt(ids[-(self.max_length - most) :], most, self._enough(until), until))
            reasons.append(why)
        longest = max((len(prompt.ids) + prompt.max_new_tokens for prompt in prompts), default=0)
        window = outgrown_window(self.model.config, longest)
        hidden = f"a sequence of {longest} tokens outgrows its attention window of {window}" if window else ""
        self.why_plain = self.plain or obstacle(self.model.config) or hidden or next(filter(None, reasons), "")
        self.engine = "plain" if self.why_plain else "shared"
        if self.why_plain:
            answers: list[str] = super().generate_until(requests, disable_tqdm=True)
            return answers
        answers = []
        generated = generate(self.model, prompts, self.budget, self.progress, self.journals)
        for request, prompt, ids in zip(requests, prompts, generated, strict=True):
            text = postprocess_generated_text(self.tok_decode(ids), prompt.until, None)
            self.lengths[scores.pair(request.args)] = len(ids)
            self.cache_hook.add_partial("generate_until", request.args, text)
            answers.append(text)
        return answers

    def _wanted(self, request: Instance) -> tuple[list[str], int, str]:
        """Stop strings, most new tokens, and why the request is none of ours, if so.

        Raises:
            RunFailed: the context leaves no room for an answer.
        """
        settings = normalize_gen_kwargs(request.args[1], self.max_gen_toks)
        until = handle_stop_sequences(settings.pop("until", None), eos=self.tok_decode(self.eot_token_id, skip_special_tokens=False))
        most = int(settings.pop("max_gen_toks"))
        if most >= self.max_length:
            raise RunFailed(f"a task asks for up to {most} new tokens, which leaves no room for a prompt in {self.max_length}")
        drawn = bool(settings.pop("do_sample", False)) | bool(settings.pop("temperature", 0.0))
        if drawn or settings:
            return until, most, f"a task asks for {'random draws' if drawn else 'generation with ' + ', '.join(sorted(settings))}"
        return until, most, ""

    def _enough(self, until: list[str]) -> Callable[[list[int]], bool]:
        """Whether new tokens hold a stop string or the end of the text. Looks at as many of the last tokens as a stop string may take."""
        ends = self.model.generation_config.eos_token_id
        last = {self.eot_token_id, *(ends if isinstance(ends, list) else [ends])}
        look = max((len(self.tok_encode(stop, add_special_tokens=False)) for stop in until), default=0) + 2

        def enough(ids: list[int]) -> bool:
            if ids[-1] in last:
                return True
            text = self.tokenizer.decode(ids[-look:])
            return any(stop in text for stop in until)

        return enough

    def _loglikelihood_tokens(
        self,
        requests: Sequence[Request],
        disable_tqdm: bool = False,  # noqa: ARG002
        override_bs: int | None = None,
    ) -> list[Answer]:
        """Answers in the order of `requests`; the numbers do not depend on that order."""
        self._cut(limits.too_long(requests, self.max_length))
        self.why_plain = self.plain or obstacle(self.model.config)
        answers = None
        if not self.why_plain:
            answers = self._tree(requests)
        # On a GPU, where short inputs take as long as batches of long ones, lm-eval's own way is the faster.
        elif not self.plain and self.model.device.type == "cpu" and remembers(self.model.config):
            answers = self._branched(requests)
        if answers is None:
            self.engine = "plain"
            answers = self._plain(requests, override_bs)
        for (pair, _, _), answer in zip(requests, answers, strict=True):
            if pair is not None:  # rolling windows have no pair of their own
                self.cache_hook.add_partial("loglikelihood", pair, answer)
        return answers

    def _cut(self, pairs: set[tuple[str, str]]) -> None:
        """Note the requests that do not fit the context; refuse them where nobody allowed to cut them."""
        if not self.truncate:
            limits.refuse(pairs, self.max_length)
        self.truncated |= pairs

    def _plain(self, requests: Sequence[Request], override_bs: int | None) -> list[Answer]:
        """lm-eval's own way, sorted here so that batches do not depend on the order of the requests."""
        lists = [(list(head), list(tail)) for _, head, tail in requests]
        # lm-eval reads the logits of equal inputs once; but where one sequence is split in two ways, it scores wrong rows.
        splits = {(tuple(head + tail[:-1]), len(tail)) for head, tail in lists}
        self.logits_cache = len(splits) == len({tokens for tokens, _ in splits})
        order = sorted(range(len(requests)), key=lambda i: (-len(lists[i][0]) - len(lists[i][1]), *lists[i]))
        answers: list[Answer] = [(math.nan, False)] * len(requests)
        for start in range(0, len(order), SLICE):
            part = order[start : start + SLICE]
            got = super()._loglikelihood_tokens([(None, *lists[i]) for i in part], disable_tqdm=True, override_bs=override_bs)
            for i, answer in zip(part, got, strict=True):
                answers[i] = answer
            self.progress((start + len(part)) / len(order))
        return answers

    @torch.inference_mode()
    def _tree(self, requests: Sequence[Request]) -> list[Answer]:
        """All requests as one trie."""
        trie, asked = self._trie(requests)
        longest = int(trie.depth.max(initial=-1)) + 1
        # A sequence longer than a forward asks for more logits than may be held.
        if longest <= self.budget and len(trie.tokens) > NOTHING_SHARED * asked:
            self.engine = "batched"
            sequences, tails = [self._read(request) for request in requests], [tail for _, _, tail in requests]
            return in_batches(self.model, sequences, tails, self.budget, self.progress, self.journals)
        self.engine = "tree"
        logprobs = np.zeros(len(trie.score_node))
        greedy = np.zeros(len(trie.score_node), dtype=bool)
        journal = self._journal("tree", trie)
        known = len(journal.pieces)
        again = ancestral(trie, self.budget, known)
        cache = DynamicCache()  # without the config, so that layers with a window, too, keep the whole path
        window = outgrown_window(self.model.config, longest)
        chunked = self.chunked and window is None
        with attending(self.model, tree_attention.NAME, tree_attention.attend) if chunked else nullcontext():
            for number, forward in enumerate(forwards(trie, self.budget)):
                targets, rows, row = trie.scored(forward.start, forward.stop)
                if number < known:
                    logprobs[targets], greedy[targets] = journal.pieces[number]
                    if number not in again:
                        continue
                _select(cache, slice(forward.past))  # what a forward that was left out would not have kept
                sees = laid_out(layout(trie, forward)) if chunked else nullcontext()
                with sees:
                    logits = self._logits(trie, forward, cache, rows, None if chunked else self._masks(trie, forward, window))
                if number >= known:
                    found = target_scores(logits, torch.from_numpy(row), torch.from_numpy(trie.score_target[targets]))
                    logprobs[targets], greedy[targets] = found
                    journal.add([part.tolist() for part in found])
                _select(cache, torch.from_numpy(forward.keep).to(self.device))
                self.progress(forward.stop / len(trie.tokens))
        return trie.answers(logprobs, greedy)

    def _branched(self, requests: Sequence[Request]) -> list[Answer] | None:
        """All requests along the branches of one trie, or nothing if they have too little in common for that to be the faster way."""
        trie, asked = self._trie(requests)
        cut = list(pieces(trie, self.budget))
        if asked < WORTH_BRANCHING * len(cut):
            return None
        self.engine = "branched"
        return trie.answers(*along_branches(self.model, trie, cut, self.progress, self._journal("branched", trie)))

    def _trie(self, requests: Sequence[Request]) -> tuple[Trie, int]:
        """The trie of all requests, and how many tokens they are without it."""
        trie = build(map(self._read, requests), [tail for _, _, tail in requests])
        return trie, sum(min(len(head) + len(tail) - 1, self.max_length) for _, head, tail in requests)

    def _journal(self, engine: str, trie: Trie) -> Journal:
        parts = (trie.tokens, trie.parent, trie.score_node, trie.score_target)
        return Journal(self.journals, [engine.encode(), str(self.budget).encode(), *(part.tobytes() for part in parts)])

    def _read(self, request: Request) -> list[int]:
        """The sequence that the model reads. Its last token is only scored, never read, as in `HFLM`."""
        _, head, tail = request
        return [*head, *tail][-(self.max_length + 1) :][:-1]

    def _masks(self, trie: Trie, forward: Forward, window: int | None) -> Tensor | dict[str, Tensor]:
        """What each node sees, added to the attention scores: (1, 1, new, past + new), or one for each kind of layer."""
        if window is None:
            return self._added(forward.visible)
        depth = trie.depth[forward.start : forward.stop]
        near = np.concatenate([np.arange(forward.past), depth]) > depth[:, None] - window
        sliding = self._added(forward.visible & near)
        if not getattr(self.model.config.get_text_config(), "layer_types", None):
            return sliding
        return {"full_attention": self._added(forward.visible), "sliding_attention": sliding}

    def _added(self, visible: NDArray[np.bool_]) -> Tensor:
        mask = torch.zeros(visible.shape, dtype=self.model.dtype)
        mask.masked_fill_(~torch.from_numpy(visible), torch.finfo(self.model.dtype).min)
        return mask[None, None].to(self.device)

    def _logits(
        self, trie: Trie, forward: Forward, cache: DynamicCache, rows: NDArray[np.int64], masks: Tensor | dict[str, Tensor] | None
    ) -> Tensor:
        """One forward: (rows, vocabulary) after the nodes at `rows`. Without masks the nodes are laid out in chunks."""
        logits: Tensor = self.model(
            input_ids=torch.from_numpy(trie.tokens[forward.start : forward.stop])[None].to(self.device),
            # Attention in chunks reads none, but without one transformers would build its own.
            attention_mask=torch.zeros((1, 1, 1, 1), dtype=self.model.dtype, device=self.device) if masks is None else masks,
            position_ids=torch.from_numpy(trie.depth[forward.start : forward.stop])[None].to(self.device),
            use_cache=True,
            logits_to_keep=torch.from_numpy(rows).to(self.device),
            **{cache_name(self.model): cache},
        ).logits[0]
        return logits


def _select(cache: DynamicCache, positions: Tensor | slice) -> None:
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys[:, :, positions], layer.values[:, :, positions]


def _spaces_moved(context: str, continuation: str) -> tuple[str, str]:
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation
