"""Root-mean-square norms of a model whose hidden channels are cut: their weights, and the epsilon under the root.

With n channels of which m stay, and zeros in the others, the mean of squares plus epsilon is m/n times (mean of squares of those that stay
plus epsilon n/m). So the norm of the narrow model has the weights times the root of n/m, and the epsilon times n/m. The config states one
epsilon for all norms. Norms of queries and keys, which keep their width, compute the same with the larger epsilon if their inputs are
larger by the root of n/m, which the projection before them makes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from compresslab.errors import UnsupportedModel

# The names that configs and modules give to the epsilon.
EPSILON_SETTINGS = ("rms_norm_eps", "norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")
EPSILON_ATTRIBUTES = ("eps", "variance_epsilon", "epsilon")
# Norms of queries and keys, and the projection beside each whose output it reads.
INNER_NORMS = {"q_norm": "q_proj", "k_norm": "k_proj", "query_layernorm": "q_proj", "key_layernorm": "k_proj"}
# Largest difference of a norm from a root-mean-square norm, relative to its largest output; rounding to bfloat16 makes 0.004.
NORM_TOLERANCE = 0.02


def scale_epsilons(text: PretrainedConfig, ratio: float) -> None:
    """Multiply the config's epsilon by `ratio`, under each name that the config gives to it."""
    for name in EPSILON_SETTINGS:
        if isinstance(value := getattr(text, name, None), float):
            setattr(text, name, value * ratio)


def channel_norms(model: PreTrainedModel, axes_of: Mapping[str, tuple[str | None, ...]]) -> Mapping[str, nn.Module]:
    """The modules other than linear layers with one weight per channel, by the name of that weight.

    Args:
        axes_of: the axis of each dimension of each parameter.
    """
    owners = {name: model.get_submodule(name.rpartition(".")[0]) for name, axes in axes_of.items() if axes == ("hidden",)}
    return {name: module for name, module in owners.items() if not isinstance(module, nn.Linear)}


def check_norms(model: PreTrainedModel, doubled: PreTrainedModel, norms: Mapping[str, nn.Module]) -> None:
    """Refuse a model whose norms cannot compute the same with fewer channels.

    Args:
        doubled: the model that transformers builds with twice as many channels and half the epsilon.

    Raises:
        UnsupportedModel: the message names the norm.
    """
    for name, norm in norms.items():
        _offset(model, name, norm)
        path = name.rpartition(".")[0]
        if epsilon_of(norm) != 2 * epsilon_of(doubled.get_submodule(path)):
            raise UnsupportedModel(
                f"{model.config.model_type}: width pruning cannot cut hidden channels past {path}: its epsilon, "
                f"{epsilon_of(norm):g}, is none that the config states"
            )
    inner_norm_linears(model, norms, doubled)


def epsilon_of(module: nn.Module) -> float:
    """The epsilon of a norm; 0 if the module has none."""
    found = (getattr(module, name, None) for name in EPSILON_ATTRIBUTES)
    return next((value for value in found if isinstance(value, float)), 0.0)


def inner_norm_linears(model: PreTrainedModel, norms: Mapping[str, nn.Module], rebuilt: PreTrainedModel) -> list[nn.Linear]:
    """The linear layers whose outputs a norm reads that has the config's epsilon and is none of `norms`, those of the hidden channels.

    Args:
        rebuilt: the model that transformers builds with another epsilon.

    Raises:
        UnsupportedModel: it is not known which module computes the input of such a norm.
    """
    ours = {id(norm) for norm in norms.values()}
    found: list[nn.Linear] = []
    for path, module in model.named_modules():
        if id(module) in ours or epsilon_of(rebuilt.get_submodule(path)) == epsilon_of(module):
            continue
        parent, _, name = path.rpartition(".")
        linear = getattr(model.get_submodule(parent), INNER_NORMS.get(name, ""), None)
        if not isinstance(linear, nn.Linear):
            raise UnsupportedModel(
                f"{model.config.model_type}: width pruning cannot cut hidden channels, since {path} has the same epsilon "
                "as the norms of the hidden channels, and what computes its input is not known"
            )
        found.append(linear)
    return found


@torch.no_grad()
def scale_norm(model: PreTrainedModel, name: str, norm: nn.Module, factor: float) -> None:
    """Multiply the factor that a norm applies to each channel, its weight `name` or, in Gemma, its weight plus 1."""
    weight, offset = norm.get_parameter(name.rpartition(".")[2]), _offset(model, name, norm)
    weight.copy_((weight.float() + offset) * factor - offset)


@torch.no_grad()
def _offset(model: PreTrainedModel, name: str, norm: nn.Module) -> int:
    """The number that a norm adds to its weights: 0, or 1 in Gemma.

    Raises:
        UnsupportedModel: it is no root-mean-square norm with one weight per channel, since it subtracts the mean, for example.
    """
    weight = norm.get_parameter(name.rpartition(".")[2])
    generator = torch.Generator().manual_seed(0)
    probe = (torch.randn(4, weight.numel(), generator=generator) + 1).to(weight.device, weight.dtype)
    output = norm(probe).float()
    plain = probe.float() / probe.float().square().mean(-1, keepdim=True).sqrt()
    for offset in (0, 1):
        reference = plain * (weight.float() + offset)
        if (output - reference).abs().max() <= NORM_TOLERANCE * reference.abs().max():
            return offset
    raise UnsupportedModel(
        f"{model.config.model_type}: width pruning cannot cut hidden channels past {name.rpartition('.')[0]}: "
        f"{type(norm).__name__} is no root-mean-square norm"
    )
