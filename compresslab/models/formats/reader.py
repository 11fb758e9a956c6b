"""How a worker handles packed weights: the part of a format that needs torch, besides `methods.format.Format`."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compresslab.errors import UnsupportedModel
from compresslab.inputs import LARGEST_CONFIG, read_json
from compresslab.methods.format import Format, Quantization, stated_quantization
from compresslab.methods.registry import format_of


class Reader:
    """Unpacks, counts, digests and saves the weights of a format. The defaults are those of plain weights.

    Attributes:
        counts_in_memory: non-zero weights can be counted with `plain_weight` on a model before its first use; else on `plain_model`.
        names_as_stored: names in memory are those of the files, and transformers cannot revert its conversion on loading.
        repacks_on_load: its kernels change the layout of weights when they load them, so that a model is saved by copying its files.
    """

    counts_in_memory = False
    names_as_stored = False
    repacks_on_load = False

    def plain_model(self, folder: Path, device: torch.device) -> PreTrainedModel:  # noqa: ARG002, the signature of all readers
        """The model of a folder with plain weights, read from its files again.

        Raises:
            UnsupportedModel: compresslab cannot unpack the format.
        """
        packer = method_name(quantization_of(folder) or {})
        raise UnsupportedModel(f"{folder}: weights packed by {packer} are not unpacked here; take a model of plain weights")

    def plain_weight(self, parameter: Tensor) -> Tensor:
        """A parameter of a model in memory, zero where its weight is zero."""
        return parameter

    def rows_of(self, tensors: Mapping[str, Tensor], quantization: Quantization, rows: int) -> Tensor | None:  # noqa: ARG002
        """The first rows (rows, inputs) of the weight of a packed layer, by its stored tensors; `None` if they are not read here.

        Args:
            rows: a multiple of 32.
        """
        return None

    def tensors(self, model: PreTrainedModel) -> dict[str, Any]:
        """Parameters and buffers of a model in memory by name, including those that are in no file."""
        return {**dict(model.named_buffers()), **model.state_dict()}


def reader() -> Reader:
    """The reader of formats without their own one."""
    return Reader()


def quantization_of(folder: Path) -> Quantization | None:
    """The `quantization_config` of a folder, `None` for plain weights. Multimodal models may have it in `text_config`."""
    return stated_quantization(read_json(folder / "config.json", LARGEST_CONFIG))


def quantization_in(model: PreTrainedModel) -> Quantization | None:
    """The `quantization_config` of a model in memory, `None` for plain weights."""
    found = getattr(model.config, "quantization_config", None) or getattr(model.config.get_text_config(), "quantization_config", None)
    quantization = found if found is None or isinstance(found, Mapping) else found.to_dict()
    if quantization is None or quantization.get("quant_method") is None:  # older configurations of bitsandbytes name no method
        return quantization
    return {**quantization, "quant_method": method_name(quantization)}


def method_name(quantization: Quantization) -> str:
    """The name of the format in a `quantization_config`. In memory, transformers may have a member of an enumeration instead."""
    name = quantization.get("quant_method")
    return str(getattr(name, "value", name))


def known_format(quantization: Quantization) -> Format:
    """The registered format, or a `Format` with the name only."""
    return format_of(quantization) or Format(method_name(quantization))


def reader_of(quantization: Quantization | None) -> Reader:
    """The reader of a format; the plain reader for plain weights and for unknown formats."""
    known = format_of(quantization) if quantization is not None else None
    return Reader() if known is None else _reader(known.reader)


@functools.cache
def _reader(module: str) -> Reader:
    reader: Reader = importlib.import_module(module).reader()
    return reader


def register_format(folder: Path) -> None:
    """Create the reader of a folder's format. A format that transformers does not know registers its quantizer when it is created."""
    if not (folder / "config.json").is_file():
        return
    try:
        quantization = quantization_of(folder)
    except (ValueError, AttributeError):
        return  # transformers reports the damaged config
    if isinstance(quantization, dict):
        reader_of(quantization)
