"""The modules of a model of which something is asked, with the places of their tensors in files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import nn
from transformers import PreTrainedModel

from compresslab.errors import UnsupportedModel
from compresslab.models.anatomy import decoder_layers, quantizable
from compresslab.recipe.stored_weights import Location, location_of


class Linear(NamedTuple):
    """A linear layer: its name in memory, its outputs and its inputs."""

    name: str
    outputs: int
    inputs: int

    @property
    def weights(self) -> int:
        return self.outputs * self.inputs


class Modules(NamedTuple):
    """Parts of a model.

    Attributes:
        inside: what stands before the number of a decoder layer in memory.
        linears: plain linear layers inside the decoder layers. outside: all other linear layers but the output head.
        ends: input embeddings and output head, by name in memory.
    """

    inside: str
    linears: dict[Location, Linear]
    outside: dict[Location, Linear]
    ends: dict[Location, str]


def modules_of(model: PreTrainedModel) -> Modules:
    """The parts of a model, which may be without weights. Without a list of decoder layers, all linear layers of the text are inside."""
    inside = _inside(model)
    head, text = model.get_output_embeddings(), quantizable(model)
    ends = {id(module) for module in (head, model.get_input_embeddings())}
    modules = Modules(inside, {}, {}, {})
    for name, module in model.named_modules():
        location = location_of(name, inside)
        if id(module) in ends:
            modules.ends[location] = name
        elif isinstance(module, nn.Linear):
            inner = type(module) is nn.Linear and (name.startswith(inside) if inside else name in text)
            (modules.linears if inner else modules.outside)[location] = Linear(name, module.out_features, module.in_features)
    return modules


def _inside(model: PreTrainedModel) -> str:
    try:
        layers = decoder_layers(model)
    except UnsupportedModel:
        return ""
    return next(str(name) for name, module in model.named_modules() if module is layers) + "."


def reason_for(name: str, left_alone: Mapping[str, str]) -> str:
    """Why a method says that it leaves a module alone, or one that it is a part of; empty if it does not say so."""
    return next((reason for excused, reason in left_alone.items() if name == excused or name.startswith(f"{excused}.")), "")
