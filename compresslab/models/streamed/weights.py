"""The weights of a model that stay in its files and are read one module at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from compresslab.models.streamed.tensor_files import TensorFile

# Bytes of the part of an embedding or an output head that is in memory at a time.
PART_BYTES = 64 * 2**20


class Place(NamedTuple):
    """Where a tensor is stored: the safetensors file, and the tensor's name in it."""

    file: Path
    name: str


class StoredWeights:
    """The weights of a model whose matrices are on the meta device.

    Vectors (norms, biases) are in memory, since they are a thousandth of a model and several methods look at all of them. Matrices are
    read when they are used.

    Attributes:
        device: where modules compute.
        places: where each parameter is stored, by its name in the model; a tied parameter has one name.
        change: what becomes of a matrix, or of some of its rows, when it is read: width pruning keeps some rows and columns.
    """

    def __init__(self, model: PreTrainedModel, places: dict[str, Place], device: torch.device) -> None:
        self.model, self.places, self.device = model, places, device
        self.change: Callable[[str, Tensor], Tensor] = lambda _, tensor: tensor
        self._dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._files: dict[Path, TensorFile] = {}
        for name, parameter in list(model.named_parameters()):
            if parameter.dim() < 2:
                self._set(name, self._read(name))

    def read(self, name: str) -> Tensor:
        """A matrix in the dtype in which the model has it now."""
        return self._converted(name, self._read(name))

    def parts(self, name: str) -> Iterator[Tensor]:
        """A matrix in parts of consecutive rows."""
        file, stored = self._stored(name)
        shape = file.shape(stored)
        rows = max(1, PART_BYTES // (shape[1] * self._dtypes[name].itemsize))
        for start in range(0, shape[0], rows):
            yield self._converted(name, file.range(stored, start, min(start + rows, shape[0])).to(self._dtypes[name]))

    def rows(self, name: str, numbers: Tensor) -> Tensor:
        """The rows of a matrix with the given numbers (n,)."""
        file, stored = self._stored(name)
        return self._converted(name, file.rows(stored, numbers.tolist()).to(self._dtypes[name]))

    @contextlib.contextmanager
    def held(self, module: nn.Module) -> Iterator[None]:
        """A context in which the matrices of a module of the model are in memory."""
        path = self._paths[id(module)]
        names = [f"{path}.{name}" for name, parameter in module.named_parameters() if parameter.is_meta]
        try:
            for name in names:
                self._set(name, self.read(name))
            yield
        finally:
            for inner in module.modules():
                for name, parameter in inner.named_parameters(recurse=False):
                    if parameter.dim() > 1:
                        inner.register_parameter(name, nn.Parameter(parameter.data.to("meta"), requires_grad=False))

    @contextlib.contextmanager
    def rows_on_demand(self) -> Iterator[None]:
        """A context in which embeddings read the rows that they look up, and the output head multiplies by a part of its rows at a time."""
        handles = []
        head = self.model.get_output_embeddings()
        for path, module in self.model.named_modules():
            if module is self.model.get_input_embeddings() or looks_up_rows(module):
                take, give_back = self._lookup(f"{path}.weight")
                handles += [module.register_forward_pre_hook(take), module.register_forward_hook(give_back)]
        name = self.name_of(head)
        head.forward = lambda hidden: _by_parts(hidden, (part.to(hidden.device) for part in self.parts(name)), head.bias)
        try:
            yield
        finally:
            del head.forward
            for handle in handles:
                handle.remove()

    def name_of(self, module: nn.Module) -> str:
        """The name under which a module's weight is stored, which is that of the embedding for a tied output head."""
        weight = module.get_parameter("weight")
        return next(str(name) for name, parameter in self.model.named_parameters() if parameter is weight)

    def _lookup(self, name: str) -> tuple[Callable[..., tuple[Tensor, ...]], Callable[..., None]]:
        """Hooks before and after an embedding's forward pass, in which its weight has only the rows that are looked up."""
        before: list[tuple[nn.Parameter, int | None]] = []

        def take(module: nn.Embedding, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            numbers, places = torch.unique(inputs[0], return_inverse=True)
            before.append((module.get_parameter("weight"), module.padding_idx))
            module.register_parameter("weight", nn.Parameter(self.rows(name, numbers).to(inputs[0].device), requires_grad=False))
            module.padding_idx = None  # the number of a row that may not be there; it decides gradients alone
            return (places, *inputs[1:])

        def give_back(module: nn.Embedding, inputs: Any, output: Any) -> None:
            del inputs, output
            module._parameters["weight"], module.padding_idx = before.pop()

        return take, give_back

    def _converted(self, name: str, stored: Tensor) -> Tensor:
        """A stored tensor in the model's dtype, changed, on the device. The dtype of a narrower type in between is passed through."""
        return self.change(name, stored).to(self.model.get_parameter(name).dtype).to(self.device)

    def _read(self, name: str) -> Tensor:
        """A tensor as transformers loads it."""
        file, stored = self._stored(name)
        return file.tensor(stored).to(self._dtypes[name])

    def _stored(self, name: str) -> tuple[TensorFile, str]:
        """The file of a parameter, and its name there."""
        place = self.places[name]
        if place.file not in self._files:
            self._files[place.file] = TensorFile(place.file)
        return self._files[place.file], place.name

    def _set(self, name: str, tensor: Tensor) -> None:
        owner, _, attribute = name.rpartition(".")
        self.model.get_submodule(owner).register_parameter(attribute, nn.Parameter(tensor.to(self.device), requires_grad=False))


def looks_up_rows(module: nn.Module) -> bool:
    """Whether a module is an embedding whose input is the numbers of its rows. A subclass may compute them from something else."""
    return isinstance(module, nn.Embedding) and type(module).forward is nn.Embedding.forward


def _by_parts(hidden: Tensor, parts: Iterator[Tensor], bias: Tensor | None) -> Tensor:
    logits = torch.cat([F.linear(hidden, part) for part in parts], dim=-1)
    return logits if bias is None else logits + bias
