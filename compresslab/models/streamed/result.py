"""The result of a step on a model of which one layer is in memory: written, digested, counted and tried part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compresslab.models.anatomy import decoder_layers, parameters_of
from compresslab.models.calibration.blockwise import Blockwise, forward_replaced
from compresslab.models.computing import computing_temporarily
from compresslab.models.documents.boundaries import ModelInput
from compresslab.models.load import Loaded, probe_ids
from compresslab.models.save import SHARD_BYTES, Packed, PackedTensors, save_settings
from compresslab.models.streamed.digests import TensorDigest, digest_of
from compresslab.models.streamed.shards import ShardWriter


class Result:
    """Writes the layers of a result into `folder` as they are finished; without a folder, they are only digested, counted and tried.

    Attributes:
        digests: of every tensor of the result by its name in memory, as `tensor_digests` has them.
        nonzero: number of parameters that are not zero.
    """

    def __init__(self, loaded: Loaded, folder: Path | None, compute: torch.dtype) -> None:
        assert loaded.weights is not None
        self._loaded, self._weights, self._folder, self._compute = loaded, loaded.weights, folder, compute
        self._model = loaded.model
        self._layers = decoder_layers(self._model)
        self._inside = next(name for name, module in self._model.named_modules() if module is self._layers) + "."
        self._packs = False
        self.digests: dict[str, str] = {}
        self.nonzero = 0
        self._writer: ShardWriter | None = None

    def layers(self, packed: PackedTensors | None = None, unpack: Callable[[nn.Module], None] | None = None) -> Iterator[nn.Module]:
        """The decoder layers, each with its weights in memory while it is the current one, and written when the next one is asked for.

        Args:
            packed: receives the tensors that are stored in place of weights, as `Packed` has them; those of a written layer are removed.
            unpack: makes the weights of a layer plain, in place, when it is written and still has to compute.
        """
        self._packs = packed is not None
        self._begin()
        for number, layer in enumerate(self._layers):
            with self._weights.held(layer):
                yield layer
                self._add_layer(f"{self._inside}{number}.", layer, packed if packed is not None else {})
                if unpack is not None:
                    unpack(layer)
                self.nonzero += self._nonzero(f"{self._inside}{number}.", layer)
                self._advance(number, layer)

    def finish(self, packed: Packed | None) -> Tensor:
        """Write what comes after the layers, and the settings; gives the logits of the probe.

        Args:
            packed: its settings; its tensors are written already.
        """
        for name in self._outside(after=True):
            self._add(name)
        if self._writer is not None:
            self._writer.finish(self._parameters)
        for name, buffer in self._model.named_buffers():
            self.digests[name] = digest_of(buffer, self._model.dtype)
        for name in self._model.state_dict():
            if name not in self.digests and not name.startswith(self._inside):  # a tied output head, or embedding
                self.digests[name] = self.digests[self._weights.name_of(self._model.get_submodule(name.rpartition(".")[0]))]
        if self._folder is not None:
            save_settings(self._loaded, self._folder, packed)
        return self._logits()

    def _begin(self) -> None:
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._writer = ShardWriter(self._folder, SHARD_BYTES)
        self._parameters = parameters_of(self._model)
        for name in self._outside(after=False):
            self._add(name)
        with computing_temporarily(self._model, self._compute):
            self._probe = Blockwise(self._model, ModelInput(probe_ids(self._model)), self._weights)

    def _outside(self, *, after: bool) -> list[str]:
        """The names of the stored parameters that are in no layer, of those before the layers or of those after them.

        The order is that of transformers, which sorts tensors by name before it divides them among files.
        """
        names = sorted(name for name in self._weights.places if not name.startswith(self._inside))
        return [name for name in names if (self._stored_name(name) > self._inside) == after]

    def _stored_name(self, name: str) -> str:
        """The name of a parameter in the files: as in those that it was read from, but for packed models."""
        return name if self._packs or name not in self._weights.places else self._weights.places[name].name

    def _add(self, name: str) -> None:
        """Write a parameter that is in no layer."""
        parameter = self._model.get_parameter(name)
        digest = TensorDigest(parameter.dtype, tuple(parameter.shape))

        def noted(parts: Iterator[Tensor]) -> Iterator[Tensor]:
            for part in parts:
                digest.update(part)
                self.nonzero += int(torch.count_nonzero(part))
                yield part

        parts = self._weights.parts(name) if parameter.is_meta else iter([parameter.data])
        self._write(self._stored_name(name), parameter.shape, noted(parts))
        self.digests[name] = digest.hexdigest()

    def _add_layer(self, prefix: str, layer: nn.Module, packed: PackedTensors) -> None:
        """Write a finished layer, with the tensors of `packed` in place of the weights of the same modules."""
        for own, tensor in sorted(layer.state_dict().items()):
            name = prefix + own
            self.digests[name] = digest_of(tensor, self._model.dtype)
            module, _, attribute = name.rpartition(".")
            if attribute != "weight" or module not in packed:
                self._write(self._stored_name(name), tensor.shape, [tensor])
                continue
            for suffix, part in packed.pop(module).items():
                self._write(f"{module}.{suffix}", part.shape, [part])

    def _write(self, name: str, shape: Iterable[int], parts: Iterable[Tensor]) -> None:
        if self._writer is not None:
            self._writer.add(name, shape, parts)
            return
        for _ in parts:
            pass

    def _nonzero(self, prefix: str, layer: nn.Module) -> int:
        parameters = ((prefix + name, parameter) for name, parameter in layer.named_parameters())
        return sum(int(torch.count_nonzero(parameter)) for name, parameter in parameters if name in self._weights.places)

    def _advance(self, number: int, layer: nn.Module) -> None:
        """Pass the probe through a layer in the compute dtype."""
        stored = {parameter: parameter.data for parameter in layer.parameters()}
        try:
            for parameter in stored:
                parameter.data = parameter.data.to(self._compute)
            for _ in self._probe.outputs_of(number):
                pass
        finally:
            for parameter, data in stored.items():
                parameter.data = data

    @torch.no_grad()
    def _logits(self) -> Tensor:
        last: Tensor = self._probe.hidden[0]

        def outputs(*_: Any, **__: Any) -> Any:
            return self._probe.returned(last)

        with computing_temporarily(self._model, self._compute), self._weights.rows_on_demand(), forward_replaced(self._layers, outputs):
            ids = probe_ids(self._model).to(self._weights.device)
            logits: Tensor = self._model(input_ids=ids, use_cache=False).logits
        return logits.float().cpu()
