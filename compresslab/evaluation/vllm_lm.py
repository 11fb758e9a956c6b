"""`VllmLM`: lm-eval's `vllm` model for a variant, which uses vLLM's kernels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM

from compresslab.errors import BadInput, RunFailed
from compresslab.evaluation import scores
from compresslab.evaluation.engines import limits
from compresslab.models.device import visible_devices
from compresslab.records.compute import Compute


class VllmLM(TemplateLM):  # type: ignore[misc]
    """lm-eval's `vllm` model, which would silently truncate prompts that do not fit. Here they are refused or counted.

    The attributes are those of `TreeLM`; `engine` is always "vllm".
    """

    engine = "vllm"

    def __init__(self, inner: Any, *, truncate: bool, compute: dict[str, str] | None = None) -> None:
        """Wrap lm-eval's model `inner`, whose dtype and backend are `compute`."""
        super().__init__()
        self.inner, self.truncate, self.compute = inner, truncate, compute or {}
        self.progress: Callable[[float], None] = lambda _share: None
        self.truncated: set[tuple[str, str]] = set()
        self.lengths: dict[tuple[str, str], int] = {}
        self.cut: dict[tuple[str, str], bool] = {}  # lm-eval's `vllm` does not tell how an answer ended
        self.tokenizer = inner.tokenizer
        self.bos = self.tokenizer.bos_token_id is not None and self.tok_encode("a")[:1] == [self.tokenizer.bos_token_id]

    @property
    def eot_token_id(self) -> int:
        return int(self.inner.eot_token_id)

    @property
    def prefix_token_id(self) -> int:
        return int(self.inner.prefix_token_id)

    def tok_encode(self, string: str, *args: Any, **kwargs: Any) -> list[int]:
        ids: list[int] = self.inner.tok_encode(string, *args, **kwargs)
        return ids

    def _loglikelihood_tokens(self, requests: list[limits.LmEvalRequest], **kwargs: Any) -> list[tuple[float, bool]]:
        # vLLM generates one token that is not used but must fit.
        max_length = self.inner.max_length - 1
        self._record_truncated(limits.too_long(requests, max_length - 1), max_length)
        self.lengths |= {pair: len(tail) for pair, _, tail in requests if pair is not None}
        answers: list[tuple[float, bool]] = self.inner._loglikelihood_tokens(requests, **kwargs)
        self.progress(1.0)
        return answers

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        found: list[float] = self.inner.loglikelihood_rolling(requests, disable_tqdm)
        return found

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The inner model's answers, after prompts that do not fit are refused or counted."""
        max_length = self.inner.max_length
        too_long = set()
        for request in requests:
            max_new_tokens = int(request.args[1].get("max_gen_toks", self.inner.max_gen_toks))
            if max_new_tokens >= max_length:
                raise RunFailed(f"a task asks for up to {max_new_tokens} new tokens, which leaves no room for a prompt in {max_length}")
            if len(self.tok_encode(request.args[0])) + max_new_tokens > max_length:
                too_long.add(scores.pair(request.args))
        self._record_truncated(too_long, max_length)
        texts: list[str] = self.inner.generate_until(requests, disable_tqdm)
        self.progress(1.0)
        return texts

    def _record_truncated(self, pairs: set[tuple[str, str]], max_length: int) -> None:
        if not self.truncate:
            limits.refuse(pairs, max_length)
        self.truncated |= pairs


def load(folder: Path, compute: Compute, *, truncate: bool) -> VllmLM:
    """The variant of a folder on all accelerators of this machine, with the kernels that vLLM chooses for its weights."""
    import torch
    from lm_eval.models.vllm_causallms import VLLM

    if compute.backend == "cpu" and torch.accelerator.is_available():
        raise BadInput("evaluate.backend vllm computes on this machine's accelerators; with --device cpu take backend tree or hf")
    # vLLM divides a model among all of them.
    inner = VLLM(pretrained=str(folder), dtype=compute.dtype, tensor_parallel_size=visible_devices(), batch_size="auto")
    return VllmLM(inner, truncate=truncate, compute=compute.decides())
