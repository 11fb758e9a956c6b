"""Which kernels work on this machine: each is really run on something tiny, and what it gives is compared with plain arithmetic."""

from __future__ import annotations

import multiprocessing
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
from compresslab.runner import sessions

if TYPE_CHECKING:
    from torch import Tensor

    from compresslab.models.load import Loaded
    from compresslab.steps.contract import Context

Try = Callable[[], str]  # says how a kernel worked, or raises
Packing = QuantizeGPTQ | QuantizeAWQ | QuantizeRTN | Quantize4Bit | QuantizeInt8 | QuantizeTorchAO
# For one kernel. All of them take seconds, but some on a GPU are compiled at their first use, which takes minutes.
PATIENCE = 60
WIDTH = 128  # of the tiny model, in every direction; all kernels take it
# Of what a kernel gives to what plain weights give, root mean square. Rounding comes to hundredths.
LARGEST_DIFFERENCE = 0.1


def kernels() -> list[Finding]:
    """Every kernel that compresslab uses or writes weights for."""
    return outcomes(TRIES, PATIENCE)


def outcomes(tries: Mapping[str, Try], patience: float) -> list[Finding]:
    """How each try ended. They run in a process of their own: one that crashes, or takes too long, takes no other with it."""
    found: list[Finding] = []
    while len(found) < len(tries):
        found += _until_stopped(dict(list(tries.items())[len(found) :]), patience)
    return found


def _until_stopped(tries: Mapping[str, Try], patience: float) -> list[Finding]:
    """What a new process finds, up to the try that stops it."""
    spawning = multiprocessing.get_context("spawn")  # a GPU that was looked at does not survive a fork
    ours, theirs = spawning.Pipe()
    process = spawning.Process(target=_answer, args=(tries, theirs), daemon=False)
    process.start()
    sessions.started(process)
    theirs.close()
    found: list[Finding] = []
    try:
        for name in tries:
            if not ours.poll(patience):
                told = f"no answer within {patience:.0f} s; a kernel for a GPU may be compiled at its first use, which takes minutes"
                return [*found, _finding(name, False, told)]
            found.append(ours.recv())
        process.join(timeout=5)
    except (EOFError, ConnectionResetError):
        process.join()
        found.append(_finding(list(tries)[len(found)], False, f"its process ended without a word ({_ending(process.exitcode)})"))
    finally:
        sessions.finish(process, 0)
        ours.close()
    return found


def _ending(code: int | None) -> str:
    return f"exit code {code}" if code is None or code >= 0 else signal.Signals(-code).name


def _answer(tries: Mapping[str, Try], pipe: Connection) -> None:
    """Entry point of the process. What libraries print goes nowhere: gptqmodel prints a page."""
    sessions.lead(pipe)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    for name, attempt in tries.items():
        pipe.send(outcome(name, attempt))


def outcome(name: str, attempt: Try) -> Finding:
    """How one try ended, whatever it raises. What this machine or installation is not made for is neither good nor bad."""
    try:
        return _finding(name, True, attempt())
    except UnsupportedModel as reason:
        return _finding(name, None, str(reason))
    except CompresslabError as error:
        return _finding(name, False, str(error))
    except Exception as error:  # of any library
        return _finding(name, False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _finding(name: str, well: bool | None, said: str) -> Finding:
    return Finding(f"kernel: {name}", well, said)


def packed(config: Packing) -> str:
    """Quantize a tiny model as a recipe's step does, load the folder as plain transformers does, and run it.

    Raises:
        UnsupportedModel: a package is not installed, or the format is not for this machine.
        RunFailed: it runs, and its logits are not those of the weights that are stored.
    """
    if missing := missing_package(Step(quantize=config)):
        raise UnsupportedModel(missing)
    from compresslab.models.device import find_device
    from compresslab.models.formats.dequantize import dequantized, kernel_name
    from compresslab.models.load import load_folder, probe_logits
    from compresslab.steps.contract import run

    with tempfile.TemporaryDirectory(prefix="compresslab-") as scratch:
        folder = Path(scratch) / "model"
        run("quantize", config, _tiny(), _text(), folder)
        loaded = load_folder(folder)
        layer = type(loaded.model.get_submodule("model.layers.0.mlp.down_proj")).__name__
        logits = probe_logits(loaded.model)
        plain = probe_logits(dequantized(folder, loaded).model)
        kernel = kernel_name(folder)
    by = "" if layer == "Linear" else f", by {layer}"
    return f"{kernel}{by}, on {find_device()}: {_compared(logits, plain)}"


def _tiny() -> Loaded:
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


def _text() -> Context:
    """Something to calibrate on."""
    import torch

    from compresslab.models.text import TokenSequences
    from compresslab.steps.contract import Context

    return Context(TokenSequences(torch.randint(WIDTH, (4, 64), generator=torch.Generator().manual_seed(0)), ""))


def bf16() -> str:
    """A matrix product in bfloat16, beside one in float32.

    Raises:
        RunFailed: they are not the same product.
    """
    import torch

    from compresslab.models.device import find_device

    left, right = torch.randn(2, 512, 512, generator=torch.Generator().manual_seed(0)).to(find_device())
    seconds, products = [], []
    for dtype in (torch.bfloat16, torch.float32):
        pair = left.to(dtype), right.to(dtype)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            product = (pair[0] @ pair[1]).cpu()  # the copy waits for a GPU
            times.append(time.perf_counter() - start)
        seconds.append(min(times))
        products.append(product)
    compared = _compared(*products)
    return f"a 512 x 512 product on {find_device()} takes {seconds[0] / seconds[1]:.2f} times as long as in float32: {compared}"


def tree_attention() -> str:
    """The attention that scores are computed by, in bfloat16, beside plain attention under the tree's mask in float32.

    Raises:
        RunFailed: they do not attend to the same.
    """
    import torch
    from torch.nn import Module
    from torch.nn.functional import scaled_dot_product_attention

    from compresslab.evaluation.attention.tree import attend, layout, use_layout
    from compresslab.evaluation.engines.trie import build, forwards
    from compresslab.models.device import find_device

    device = find_device()
    sequences = [[*range(40), 100 + question, 200 + option] for question in range(6) for option in range(4)]
    trie = build(sequences, [[0]] * len(sequences))
    *_, last = forwards(trie, 20)
    new, seen = last.visible.shape
    mask = torch.from_numpy(last.visible).to(device)
    random = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, new, 64, generator=random).to(device)
    key, value = torch.randn(2, 1, 4, seen, 64, generator=random).to(device)
    plain = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    query, key, value = query.bfloat16(), key.bfloat16(), value.bfloat16()
    if device.type != "cpu":
        masked = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return f"attention under a tree's mask on {device}, in bfloat16: {_compared(masked, plain)}"
    with use_layout(layout(trie, last)):
        ours, _ = attend(Module(), query, key, value, None)
    return f"flash attention for processors, in chunks of a tree, in bfloat16: {_compared(ours.transpose(1, 2), plain)}"


def _compared(given: Tensor, plain: Tensor) -> str:
    """How far a kernel's numbers are from those of plain arithmetic.

    Raises:
        RunFailed: farther than rounding explains.
    """
    wanted = plain.float()
    difference = float((given.float() - wanted).square().mean().sqrt() / wanted.std())
    if not difference <= LARGEST_DIFFERENCE:  # NaN, too
        raise RunFailed(f"it runs, but its numbers are {difference:.0%} off those of plain arithmetic; do not trust them")
    return f"right to {difference:.1%}"


TRIES: dict[str, Try] = {
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
