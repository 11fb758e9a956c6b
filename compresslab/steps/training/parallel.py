"""Training by several processes, one a device: what each of them takes, and weights in shards (FSDP2).

Source: Zhao et al. 2023, "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel", arXiv 2304.11277; `fully_shard` of torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from transformers import PreTrainedModel

from compresslab.errors import BadInput
from compresslab.models.ranks import Ranks

T = TypeVar("T")
# Parts of the names of settings by which a model draws random numbers in training: dropout of activations and of layers, and noise on what
# the router of a mixture of experts reads.
RANDOM = ("drop", "jitter")
# Heads that a causal language model does not have.
OTHER_TASKS = ("classifier", "summary")


class NotFirst(BaseException):
    """The end of the work of a process that is not the first one: the model is trained, and the first process has all of it."""


class Whole:
    """Modules of which this process has all weights."""

    def __call__(self, work: Callable[[], T]) -> T:
        """The result of `work`, which makes a forward pass through the modules."""
        return work()

    def look(self, work: Callable[[], T]) -> T:
        """The result of `work`, which makes forward passes without gradients."""
        with torch.no_grad():
            return work()


class Sharded(nn.Module):
    """Modules in shards: each process holds a part of each parameter's rows. A decoder layer's are gathered while it computes.

    All processes must make the same passes. A pass goes through `__call__`, in which the weights outside of the decoder layers (embeddings,
    head) are gathered; they stay so until the backward pass has gone through, or until the end of `look`.

    Trained parameters are held in float32 and gathered in the compute dtype. The gradients of a micro-batch have the compute dtype, even
    where they are sums (of the head, over chunks of logits); they are summed over micro-batches and processes in float32.
    """

    def __init__(self, modules: Sequence[nn.Module], compute: torch.dtype) -> None:
        super().__init__()
        # A hidden state that a model gives may be a view; nothing here changes one in place.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
        self.parts = nn.ModuleList(modules)
        self.mesh = mesh()
        # Inputs have the compute dtype already.
        policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for module in [*blocks(modules), self]:
            for parameter in module.parameters():
                if parameter.requires_grad and not isinstance(parameter, DTensor):
                    parameter.data = parameter.data.float()
            fully_shard(module, mesh=self.mesh, mp_policy=policy)
        for module in self.modules():
            if isinstance(module, FSDPModule):
                # The losses are shares of the mean over the global batch, so gradients are summed and not averaged.
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)  # gloo has no sum with a factor
                # Experts that no token of this process went to have no gradient here, and one in other processes.
                module.set_reduce_scatter_unused_params(True, recurse=False)

    def forward(self, work: Callable[[], T]) -> T:
        """The result of `work`, which makes a forward pass through the modules."""
        return work()

    def look(self, work: Callable[[], T]) -> T:
        """The result of `work`, which makes forward passes without gradients."""
        with torch.no_grad():
            result: T = self(work)
        self.unload()  # the optimizer changes the shards alone
        return result

    def unload(self) -> None:
        """Free what is gathered. This must follow a pass without gradients before the shards change."""
        for module in self.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def spread(model: PreTrainedModel, compute: torch.dtype, ranks: Ranks) -> Whole | Sharded:
    """A model whose weights stay as they are, in shards if there are several processes. It is not restored."""
    return Sharded([model.requires_grad_(False)], compute) if ranks.size > 1 else Whole()


def mesh() -> DeviceMesh:
    """All processes of the group, with the devices that their shards are on."""
    kind = "cpu" if distributed.get_backend() == "gloo" else torch.accelerator.current_accelerator().type  # type: ignore[union-attr]
    return init_device_mesh(kind, (distributed.get_world_size(),))


def own_shard(whole: Tensor, devices: DeviceMesh) -> DTensor:
    """The shard of a tensor that all processes have, as `fully_shard` divides it."""
    return distribute_tensor(whole.to(devices.device_type), devices, [Shard(0)], src_data_rank=None)


def refuse_random(model: PreTrainedModel) -> None:
    """Refuse a model that draws random numbers while it trains: what it draws would depend on the number of processes.

    Raises:
        BadInput: the message names the setting.
    """
    for name, value in _settings(model.config.get_text_config().to_dict()):
        own = name.rpartition(".")[2]
        if isinstance(value, float) and value > 0 and any(word in own for word in RANDOM) and not own.startswith(OTHER_TASKS):
            raise BadInput(
                f"{model.config.model_type}: its config has {name} {value}, and what it draws at random in training would depend on the "
                "number of devices; take devices: 1"
            )


def _settings(config: Mapping[Any, Any], inside: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of a config and of its parts (DBRX's `ffn_config.moe_jitter_eps`), by name."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _settings(value, f"{inside}{name}.")
        else:
            yield f"{inside}{name}", value


def blocks(modules: Sequence[nn.Module]) -> list[nn.Module]:
    """The decoder layers of the models among `modules`, by the names that transformers gives the parts that must not be divided."""
    models = [module for module in modules if isinstance(module, PreTrainedModel)]
    return [block for model in models for block in model.modules() if type(block).__name__ in (model._no_split_modules or ())]
