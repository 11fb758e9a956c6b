"""Float32 weights behind the ones that a model computes with while it is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compresslab.steps.training.sparsity import pruned_zeros


class MasterWeights:
    """What the optimizer updates, and what the forward and the backward pass use.

    Where that is bfloat16 or float16, the model computes in it throughout and the masters stand beside it in float32. Casting float32
    weights in every forward pass (autocast) gives the same products and costs 7% of the time. Each micro-batch's gradient comes in the
    compute dtype, as under autocast, and is added up in float32. Source of the scheme: Micikevicius et al. 2017, "Mixed Precision
    Training", arXiv 1710.03740. Where it is float32, the weights are their own masters, and nothing is kept twice.

    Attributes:
        weights: the masters, float32, one for each parameter that is trained.
    """

    def __init__(self, modules: list[nn.Module], compute: torch.dtype) -> None:
        """Take over the parameters of `modules`: those that require gradients are trained, all compute in `compute` from here on."""
        zeros: dict[Tensor, Tensor] = {}
        for model in (module for module in modules if isinstance(module, PreTrainedModel)):
            zeros |= {model.get_submodule(name).weight: mask for name, mask in pruned_zeros(model).items()}
        parameters = [parameter for module in modules for parameter in module.parameters() if parameter.is_floating_point()]
        self.copies = [parameter for parameter in parameters if parameter.requires_grad]
        self._frozen = [_Frozen(parameter, compute) for parameter in parameters if not parameter.requires_grad]
        self._apart = compute != torch.float32
        self.weights: list[Tensor] = [copy.data.to(torch.float32, copy=True) for copy in self.copies] if self._apart else list(self.copies)
        self._zeros = [(master, zeros[copy]) for copy, master in zip(self.copies, self.weights, strict=True) if copy in zeros]
        self._of: dict[Tensor, Tensor] = dict(zip(self.copies, self.weights, strict=True))
        self._hooks = [copy.register_post_accumulate_grad_hook(self._collect) for copy in self.copies] if self._apart else []  # type: ignore[no-untyped-call]
        for parameter in parameters:
            parameter.data = parameter.data.to(compute)

    def _collect(self, copy: Tensor) -> None:
        """Add a gradient that is complete to the master's, and free it."""
        master, gradient = self._of[copy], copy.grad
        assert gradient is not None
        if master.grad is None:
            master.grad = gradient.float()
        else:
            master.grad.add_(gradient)
        copy.grad = None

    def updated(self) -> None:
        """After the masters have changed: pruned weights are zero again, the copies follow, gradients start anew."""
        for master, mask in self._zeros:
            master.data.masked_fill_(mask, 0.0)
        self.refresh()
        for master in self.weights:
            master.grad = None

    def refresh(self) -> None:
        """Round the masters into the copies, where there are any."""
        if self._apart:
            torch._foreach_copy_([copy.data for copy in self.copies], self.weights)

    def release(self) -> None:
        """Give the parameters back to the model: the trained ones in float32, the frozen ones as they were."""
        for hook in self._hooks:
            hook.remove()
        for copy, master in zip(self.copies, self.weights, strict=True):
            copy.data, copy.grad = master.detach(), None
        for frozen in self._frozen:
            frozen.release()


class _Frozen:
    """A parameter that is not trained. Its values are kept beside only where the compute dtype does not hold them."""

    def __init__(self, parameter: Tensor, compute: torch.dtype) -> None:
        self.parameter, self.dtype = parameter, parameter.dtype
        exact = compute in (torch.float32, parameter.dtype)
        self.original = None if exact else parameter.data

    def release(self) -> None:
        self.parameter.data = self.parameter.data.to(self.dtype) if self.original is None else self.original
