"""Float32 master weights in shards, one shard a process."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from compresslab.steps.training.parallel import Sharded, blocks, own_shard
from compresslab.steps.training.sparsity import pruned_zeros


class ShardedWeights:
    """The counterpart of `MasterWeights` for several processes.

    Attributes:
        passes: the modules in shards. parameters: their trained parameters, in shards, float32. weights: the same, which are updated.
    """

    def __init__(self, modules: list[nn.Module], compute: torch.dtype) -> None:
        self._models = [module for module in modules if isinstance(module, PreTrainedModel)]
        zeros = [(model, name, mask) for model in self._models for name, mask in pruned_zeros(model).items()]
        self._device = next(modules[0].parameters()).device
        self._plain = [_PlainBlock(block) for block in blocks(modules)]
        self._places = [
            (owner, name)
            for module in modules
            for owner in module.modules()
            for name, held in owner._parameters.items()
            if held is not None
        ]
        self.passes = Sharded(modules, compute)
        self.parameters: list[Tensor] = [parameter for parameter in self.passes.parameters() if parameter.requires_grad]
        self.weights = self.parameters
        self._zeros = [
            (_shard(model.get_submodule(name).weight), own_shard(mask, self.passes.mesh).to_local()) for model, name, mask in zeros
        ]

    def after_step(self) -> None:
        """After an optimizer step: set pruned weights to zero, and remove the gradients."""
        for weight, mask in self._zeros:
            weight.masked_fill_(mask, 0.0)
        for weight in self.weights:
            weight.grad = None

    def refresh(self) -> None:
        """Nothing: the copies in the compute dtype are made anew in each pass."""

    def release(self, *, first: bool) -> None:
        """Make the modules plain again, with whole parameters where this process is the `first` one, and without values elsewhere."""
        whole: dict[int, nn.Parameter] = {}
        self.passes.unload()
        for owner, name in self._places:
            held = owner._parameters[name]
            assert isinstance(held, DTensor)
            if id(held) not in whole:
                gathered = held.full_tensor().detach()  # all processes take part
                kept = gathered.to(self._device) if first else torch.empty(0)
                whole[id(held)] = nn.Parameter(kept, requires_grad=held.requires_grad)
        for owner, name in self._places:
            owner._parameters[name] = whole[id(owner._parameters[name])]
        for block in self._plain:
            block.restore()
        for model in self._models:
            model.to(self._device)  # its buffers were on the device of the shards


class _PlainBlock:
    """What `fully_shard` changes of a module beside its parameters."""

    def __init__(self, block: nn.Module) -> None:
        self.block, self.kind = block, type(block)
        self.hooks = [
            (hooks, set(hooks)) for hooks in (block._forward_pre_hooks, block._forward_pre_hooks_with_kwargs, block._forward_hooks)
        ]

    def restore(self) -> None:
        """Undo it."""
        self.block.__class__ = self.kind
        for hooks, before in self.hooks:
            for key in set(hooks) - before:
                del hooks[key]


def _shard(weight: Tensor) -> Tensor:
    assert isinstance(weight, DTensor)
    part: Tensor = weight.to_local().detach()
    return part
