"""The cases of the contract suite: every method, some with several settings, and every refused pair with its reason."""

from __future__ import annotations

import torch
from models.tiny import ARCHITECTURES, make, text

from compresslab.methods.awq import QuantizeAWQ
from compresslab.methods.bitsandbytes import Quantize4Bit, QuantizeInt8
from compresslab.methods.depth import PruneDepth
from compresslab.methods.distill import Distill
from compresslab.methods.gptq import QuantizeGPTQ
from compresslab.methods.retrain import RetrainFull, RetrainLoRA
from compresslab.methods.rtn import QuantizeRTN
from compresslab.methods.settings import Optimizer, StepConfig
from compresslab.methods.sparse import PruneSparse
from compresslab.methods.torchao import QuantizeTorchAO
from compresslab.methods.width import PruneWidth
from compresslab.steps.contract import Context

SHORT = Optimizer(batch_tokens=64, micro_batch_tokens=32)
# Names: that of the method and of its special settings.
METHOD_CONFIGS: dict[str, tuple[str, StepConfig]] = {
    "depth": ("prune", PruneDepth(method="depth", keep=2)),
    "depth angular-distance": ("prune", PruneDepth(method="depth", keep=2, by="angular-distance")),
    "depth loss": ("prune", PruneDepth(method="depth", keep=2, by="loss")),
    "depth parameters": ("prune", PruneDepth(method="depth", parameters=0.7)),
    "width": ("prune", PruneWidth(method="width", keep=64)),
    "width groups": ("prune", PruneWidth(method="width", groups=1)),
    "width hidden": ("prune", PruneWidth(method="width", hidden=32)),
    "width all": ("prune", PruneWidth(method="width", keep=0.5, groups=1, hidden=40, multiple=8)),
    "width parameters": ("prune", PruneWidth(method="width", parameters=0.5, axes=["neurons", "groups", "hidden"], multiple=4)),
    "magnitude": ("prune", PruneSparse(method="magnitude", sparsity=0.5)),
    "wanda": ("prune", PruneSparse(method="wanda", sparsity=0.5)),
    "sparsegpt": ("prune", PruneSparse(method="sparsegpt", pattern="2:4")),
    "forward-kl": ("distill", Distill(tokens=128, optimizer=SHORT)),
    "reverse-kl": ("distill", Distill(method="reverse-kl", tokens=128, cross_entropy=0.3, optimizer=SHORT)),
    "jsd": ("distill", Distill(method="jsd", tokens=128, on_policy=0.5, prompt=8, optimizer=SHORT)),
    "skewed-kl": ("distill", Distill(method="skewed-kl", tokens=128, hidden=1.0, optimizer=SHORT)),
    "forward-kl stored logits": ("distill", Distill(tokens=128, top_k=8, optimizer=SHORT)),
    "rtn": ("quantize", QuantizeRTN(method="rtn")),
    "gptq": ("quantize", QuantizeGPTQ(method="gptq")),
    "gptq 3 bits asymmetric": ("quantize", QuantizeGPTQ(method="gptq", bits=3, symmetric=False, activation_order=False)),
    "awq": ("quantize", QuantizeAWQ(method="awq")),
    "bnb-nf4": ("quantize", Quantize4Bit(method="bnb-nf4")),
    "bnb-fp4": ("quantize", Quantize4Bit(method="bnb-fp4")),
    "bnb-int8": ("quantize", QuantizeInt8(method="bnb-int8")),
    "torchao-int8": ("quantize", QuantizeTorchAO(method="torchao-int8")),
    "torchao-int4": ("quantize", QuantizeTorchAO(method="torchao-int4")),
    "full": ("retrain", RetrainFull(method="full", tokens=128, optimizer=SHORT)),
    "lora": ("retrain", RetrainLoRA(method="lora", tokens=128, rank=4, optimizer=SHORT)),
    "qlora": ("retrain", RetrainLoRA(method="qlora", tokens=128, rank=4, optimizer=SHORT)),
}
SPARSE = ("magnitude", "wanda", "sparsegpt")
# Written by this package, computed by a library's kernel: weights are equal, logits are equal up to the kernel's rounding.
OTHER_KERNEL = ("gptq", "gptq 3 bits asymmetric", "awq")
QUANTIZING = ("rtn", *OTHER_KERNEL, "bnb-nf4", "bnb-fp4", "bnb-int8", "torchao-int8", "torchao-int4")
FUSED = r"\d\d% of .* in Qwen3MoeExperts"
# Regular expressions of the messages of refused pairs. All other pairs must pass.
REFUSED = {
    ("width", "gpt-neox"): "gpt_neox: width pruning needs gate_proj, up_proj, down_proj .*; layer 0 has GPTNeoXMLP",
    **{
        (method, "gpt-neox"): "gpt_neox: width pruning needs q_proj, k_proj, .*; layer 0 has no module named self_attn"
        for method in ("width groups", "width hidden")
    },
    **{
        (method, "gpt-neox"): "gpt_neox: width pruning needs gate_proj, .*; layer 0 has GPTNeoXMLP"
        for method in ("width all", "width parameters")
    },
    **{
        (method, "qwen3-moe"): "qwen3_moe: width pruning needs gate_proj, up_proj, .*; layer 0 has Qwen3MoeSparseMoeBlock"
        for method in ("width", "width hidden", "width all", "width parameters")
    },
    **{(method, "qwen3-moe"): f"qwen3_moe: {method} prunes linear layers, and {FUSED}" for method in SPARSE},
    **{(method, "qwen3-moe"): f"qwen3_moe: {method.split()[0]} quantizes linear layers, and {FUSED}" for method in QUANTIZING},
    ("qlora", "qwen3-moe"): f"qwen3_moe: qlora quantizes linear layers, and {FUSED}",
    ("awq", "gpt-neox"): "gpt_neox: transformers' AWQ loader puts scales of its own behind this architecture's activation functions",
    **{("torchao-int4", name): "torchao-int4: torchao packs int4 weights on a GPU only" for name in ARCHITECTURES if name != "qwen3-moe"},
}
PAIRS = [(method, name) for method in METHOD_CONFIGS for name in ARCHITECTURES]
PASSING = [pair for pair in PAIRS if pair not in REFUSED]


def context(method: str, name: str, dtype: torch.dtype = torch.bfloat16) -> Context:
    """What a step of `method` needs on a tiny model of the architecture `name`."""
    return Context(text(4, 32), make(name, dtype, seed=1) if METHOD_CONFIGS[method][0] == "distill" else None)
