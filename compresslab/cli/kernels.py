"""Which kernels work on this machine: each runs on a tiny model, and its output is compared with that of plain arithmetic."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from compresslab.cli.findings import Finding
from compresslab.errors import CompresslabError, RunFailed, UnsupportedModel
from compresslab.methods.awq import QuantizeAWQ
from compresslab.methods.bitsandbytes import Quantize4Bit, QuantizeInt8
from compresslab.methods.gptq import QuantizeGPTQ
from compresslab.methods.rtn import QuantizeRTN
from compresslab.methods.torchao import QuantizeTorchAO
from compresslab.plan.packages import missing_package
from compresslab.recipe.steps import Step
from compresslab.runner.processes import TO_END, Worker

if TYPE_CHECKING:
    from torch import Tensor

    from compresslab.models.load import Loaded
    from compresslab.steps.contract import Context

KernelCheck = Callable[[], str]  # returns a message on success, else raises
PackedConfig = QuantizeGPTQ | QuantizeAWQ | QuantizeRTN | Quantize4Bit | QuantizeInt8 | QuantizeTorchAO
# Seconds for one kernel. Most take seconds, but some on a GPU are compiled at their first use, which takes minutes.
TIMEOUT = 60
WIDTH = 128  # all dimensions of the tiny model; every kernel accepts it
# Root mean square difference of the logits from those of plain weights, over their standard deviation. Rounding causes hundredths.
MAX_DIFFERENCE = 0.1


def kernels() -> list[Finding]:
    """Every kernel that compresslab uses or writes weights for."""
    return check_all(CHECKS, TIMEOUT)


def check_all(checks: Mapping[str, KernelCheck], timeout: float) -> list[Finding]:
    """The result of each check. Checks run in another process, so that one that crashes or takes too long does not stop the others."""
    findings: list[Finding] = []
    while len(findings) < len(checks):
        findings += _run_until_stopped(dict(list(checks.items())[len(findings) :]), timeout)
    return findings


def _run_until_stopped(checks: Mapping[str, KernelCheck], timeout: float) -> list[Finding]:
    """The findings of a new process, up to the check that stops it."""
    findings: list[Finding] = []
    with Worker(Path(os.devnull)) as worker:
        try:
            worker.start(_run_checks, checks)
            for name in checks:
                if not worker.pipe.poll(timeout):
                    message = f"no answer within {timeout:.0f} s; a kernel for a GPU may be compiled at its first use, which takes minutes"
                    return [*findings, _finding(name, False, message)]
                findings.append(worker.pipe.recv())
        except (EOFError, OSError):
            worker.wait(TO_END)
            findings.append(_finding(list(checks)[len(findings)], False, f"its process ended without a word ({_exit_reason(worker.code)})"))
        finally:
            worker.finish(0)
    return findings


def _exit_reason(code: int | None) -> str:
    return f"exit code {code}" if code is None or code >= 0 else signal.Signals(-code).name


def _run_checks(checks: Mapping[str, KernelCheck], pipe: Connection) -> None:
    """Entry point of the process. The output of libraries is discarded, because gptqmodel prints a page."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)
    for name, check in checks.items():
        pipe.send(check_one(name, check))


def check_one(name: str, check: KernelCheck) -> Finding:
    """The result of one check, for any exception. A kernel that this machine or installation does not support is neither good nor bad."""
    try:
        return _finding(name, True, check())
    except UnsupportedModel as reason:
        return _finding(name, None, str(reason))
    except CompresslabError as error:
        return _finding(name, False, str(error))
    except Exception as error:  # of any library
        return _finding(name, False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _finding(name: str, works: bool | None, message: str) -> Finding:
    return Finding(f"kernel: {name}", works, message)


def packed(config: PackedConfig) -> str:
    """Quantize a tiny model like a step of a recipe, load the folder with plain transformers, and run it.

    Raises:
        UnsupportedModel: a package is not installed, or the format is not for this machine.
        RunFailed: its logits differ from those of the stored weights.
    """
    if missing := missing_package(Step(quantize=config)):
        raise UnsupportedModel(missing)
    from compresslab.models.device import find_device
    from compresslab.models.formats.dequantize import dequantized, kernel_name
    from compresslab.models.load import load_folder, probe_logits
    from compresslab.steps.contract import run

    with tempfile.TemporaryDirectory(prefix="compresslab-") as scratch:
        folder = Path(scratch) / "model"
        run("quantize", config, _tiny_model(), _calibration_context(), folder)
        loaded = load_folder(folder)
        layer = type(loaded.model.get_submodule("model.layers.0.mlp.down_proj")).__name__
        logits = probe_logits(loaded.model)
        plain = probe_logits(dequantized(folder, loaded).model)
        kernel = kernel_name(folder)
    by = "" if layer == "Linear" else f", by {layer}"
    return f"{kernel}{by}, on {find_device()}: {_agreement(logits, plain)}"


def _tiny_model() -> Loaded:
    """A random Llama of one layer."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from compresslab.models.device import find_device
    from compresslab.models.load import Loaded, cast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=WIDTH,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=0.1,  # large enough that the layer moves the logits
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")))
    return Loaded(cast(LlamaForCausalLM(config).eval(), torch.bfloat16).to(find_device()), tokenizer)


def _calibration_context() -> Context:
    """Random tokens for calibration."""
    import torch

    from compresslab.models.text import TokenSequences
    from compresslab.steps.contract import Context

    return Context(TokenSequences(torch.randint(WIDTH, (4, 64), generator=torch.Generator().manual_seed(0)), ""))


def bf16() -> str:
    """Compare a matrix product in bfloat16 with one in float32.

    Raises:
        RunFailed: the products differ by more than rounding.
    """
    import torch

    from compresslab.models.device import find_device

    first, second = torch.randn(2, 512, 512, generator=torch.Generator().manual_seed(0)).to(find_device())
    seconds, products = [], []
    for dtype in (torch.bfloat16, torch.float32):
        pair = first.to(dtype), second.to(dtype)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            product = (pair[0] @ pair[1]).cpu()  # the copy waits for a GPU
            times.append(time.perf_counter() - start)
        seconds.append(min(times))
        products.append(product)
    agreement = _agreement(*products)
    return f"a 512 x 512 product on {find_device()} takes {seconds[0] / seconds[1]:.2f} times as long as in float32: {agreement}"


def tree_attention() -> str:
    """Compare the attention of the tree engine in bfloat16 with plain attention under the tree's mask in float32.

    Raises:
        RunFailed: the outputs differ by more than rounding.
    """
    import torch
    from torch.nn import Module
    from torch.nn.functional import scaled_dot_product_attention

    from compresslab.evaluation.attention.tree import attend, layout, use_layout
    from compresslab.evaluation.engines.trie import build, forward_at, forward_count
    from compresslab.models.device import find_device

    device = find_device()
    sequences = [[*range(40), 100 + question, 200 + option] for question in range(6) for option in range(4)]
    trie = build(sequences, [[0]] * len(sequences))
    last = forward_at(trie, 20, forward_count(trie, 20) - 1)
    new, keys = last.visible.shape
    mask = torch.from_numpy(last.visible).to(device)
    random = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, new, 64, generator=random).to(device)
    key, value = torch.randn(2, 1, 4, keys, 64, generator=random).to(device)
    plain = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    query, key, value = query.bfloat16(), key.bfloat16(), value.bfloat16()
    if device.type != "cpu":
        masked = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return f"attention under a tree's mask on {device}, in bfloat16: {_agreement(masked, plain)}"
    with use_layout(layout(trie, last)):
        output, _ = attend(Module(), query, key, value, None)
    return f"flash attention for processors, in chunks of a tree, in bfloat16: {_agreement(output.transpose(1, 2), plain)}"


def _agreement(measured: Tensor, plain: Tensor) -> str:
    """The difference of a kernel's output from that of plain arithmetic, as text.

    Raises:
        RunFailed: it is larger than rounding explains.
    """
    expected = plain.float()
    difference = float((measured.float() - expected).square().mean().sqrt() / expected.std())
    if not difference <= MAX_DIFFERENCE:  # also true for NaN
        raise RunFailed(f"it runs, but its numbers are {difference:.0%} off those of plain arithmetic; do not trust them")
    return f"right to {difference:.1%}"


CHECKS: dict[str, KernelCheck] = {
    "bfloat16": bf16,
    "tree attention": tree_attention,
    **{
        config.method: partial(packed, config)
        for config in (
            QuantizeGPTQ(method="gptq"),
            QuantizeAWQ(method="awq"),
            QuantizeRTN(method="rtn"),
            Quantize4Bit(method="bnb-nf4"),
            Quantize4Bit(method="bnb-fp4"),
            QuantizeInt8(method="bnb-int8"),
            QuantizeTorchAO(method="torchao-int8"),
            QuantizeTorchAO(method="torchao-int4"),
        )
    },
}
