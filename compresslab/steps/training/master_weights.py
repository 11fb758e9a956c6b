"""Float32 master weights of a model that is trained in another compute dtype."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compresslab.steps.training.sparsity import pruned_zeros


class MasterWeights:
    """The float32 weights that the optimizer updates, and their copies in the compute dtype for forward and backward passes.

    Casting float32 weights in every forward pass (autocast) gives the same products and takes 7% more time. The gradient of each
    micro-batch has the compute dtype, as with autocast, and is accumulated in float32. Source: Micikevicius et al. 2017, "Mixed Precision
    Training", arXiv 1710.03740. If the compute dtype is float32, the model's parameters are the master weights and there are no copies.

    Attributes:
        parameters: the trained parameters, which are the copies if there are any.
        weights: the master weights, one float32 tensor for each trained parameter.
    """

    def __init__(self, modules: list[nn.Module], compute: torch.dtype) -> None:
        """Cast all parameters of `modules` to `compute`. Those that require gradients are trained."""
        zeros: dict[Tensor, Tensor] = {}
        for model in (module for module in modules if isinstance(module, PreTrainedModel)):
            zeros |= {model.get_submodule(name).weight: mask for name, mask in pruned_zeros(model).items()}
        parameters = [parameter for module in modules for parameter in module.parameters() if parameter.is_floating_point()]
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._frozen = [_Frozen(parameter, compute) for parameter in parameters if not parameter.requires_grad]
        self._has_copies = compute != torch.float32
        self.weights: list[Tensor] = (
            [copy.data.to(torch.float32, copy=True) for copy in self.parameters] if self._has_copies else list(self.parameters)
        )
        self._zeros = [(master, zeros[copy]) for copy, master in zip(self.parameters, self.weights, strict=True) if copy in zeros]
        self._master_of: dict[Tensor, Tensor] = dict(zip(self.parameters, self.weights, strict=True))
        self._hooks = [copy.register_post_accumulate_grad_hook(self._collect) for copy in self.parameters] if self._has_copies else []  # type: ignore[no-untyped-call]
        for parameter in parameters:
            parameter.data = parameter.data.to(compute)

    def _collect(self, copy: Tensor) -> None:
        """Add the gradient of a copy to that of its master weight, and free it."""
        master, gradient = self._master_of[copy], copy.grad
        assert gradient is not None
        if master.grad is None:
            master.grad = gradient.float()
        else:
            master.grad.add_(gradient)
        copy.grad = None

    def after_step(self) -> None:
        """After an optimizer step: set pruned weights to zero, update the copies, and remove the gradients."""
        for master, mask in self._zeros:
            master.data.masked_fill_(mask, 0.0)
        self.refresh()
        for master in self.weights:
            master.grad = None

    def refresh(self) -> None:
        """Round the master weights into the copies, if there are any."""
        if self._has_copies:
            torch._foreach_copy_([copy.data for copy in self.parameters], self.weights)

    def release(self) -> None:
        """Restore the model's parameters: the trained ones in float32, the frozen ones with their original values."""
        for hook in self._hooks:
            hook.remove()
        for copy, master in zip(self.parameters, self.weights, strict=True):
            copy.data, copy.grad = master.detach(), None
        for frozen in self._frozen:
            frozen.release()


class _Frozen:
    """A parameter that is not trained. Its original values are stored only if the compute dtype cannot represent them."""

    def __init__(self, parameter: Tensor, compute: torch.dtype) -> None:
        self.parameter, self.dtype = parameter, parameter.dtype
        exact = compute in (torch.float32, parameter.dtype)
        self.original = None if exact else parameter.data

    def release(self) -> None:
        self.parameter.data = self.parameter.data.to(self.dtype) if self.original is None else self.original
