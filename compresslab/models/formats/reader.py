"""What a worker does with the packed weights of a format: its heavy half, beside `methods.format.Format`."""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compresslab.errors import UnsupportedModel
from compresslab.methods.format import Format, Quantization
from compresslab.methods.registry import format_of


class Reader:
    """How a format's weights are unpacked, counted, digested and saved. What a format does not say is as with plain weights.

    Attributes:
        counts_in_memory: non-zero weights can be counted by `plain_weight` on a model before its first use; else on `plain_model`.
        names_as_stored: names in memory are those of the files, and transformers cannot undo its loading.
        packs_anew: its kernels lay weights out anew as they load them, so that a model is saved by copying the files that it came from.
    """

    counts_in_memory = False
    names_as_stored = False
    packs_anew = False

    def plain_model(self, folder: Path, device: torch.device) -> PreTrainedModel:  # noqa: ARG002, what every reader is given
        """The model of a folder with plain weights, read from its files again.

        Raises:
            UnsupportedModel: there is no way to unpack it here.
        """
        packer = method_name(quantization_of(folder) or {})
        raise UnsupportedModel(f"{folder}: weights packed by {packer} are not unpacked here; take a model of plain weights")

    def plain_weight(self, parameter: Tensor) -> Tensor:
        """A parameter of a model in memory, zero where its weight is zero."""
        return parameter

    def tensors(self, model: PreTrainedModel) -> dict[str, Any]:
        """What tells a model in memory from another, by name: parameters and buffers, those that no file holds too."""
        return {**dict(model.named_buffers()), **model.state_dict()}


def reader() -> Reader:
    """That of formats without one of their own."""
    return Reader()


def quantization_of(folder: Path) -> dict[str, Any] | None:
    """The `quantization_config` of a folder, `None` for plain weights."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config.get("quantization_config")


def quantization_in(model: PreTrainedModel) -> Quantization | None:
    """The `quantization_config` of a model in memory, `None` for plain weights."""
    found = getattr(model.config, "quantization_config", None)
    quantization = found if found is None or isinstance(found, Mapping) else found.to_dict()
    return None if quantization is None else {**quantization, "quant_method": method_name(quantization)}


def method_name(quantization: Quantization) -> str:
    """What a `quantization_config` calls its format. transformers keeps an enumeration's member in memory."""
    name = quantization.get("quant_method")
    return str(getattr(name, "value", name))


def known_format(quantization: Quantization) -> Format:
    """The format, or one that is known by name alone."""
    return format_of(quantization) or Format(method_name(quantization))


def reader_of(quantization: Quantization | None) -> Reader:
    """The reader of a format; of plain weights, and of formats that nobody here knows, the plain one."""
    known = format_of(quantization) if quantization is not None else None
    return Reader() if known is None else _reader(known.reader)


@functools.cache
def _reader(module: str) -> Reader:
    made: Reader = importlib.import_module(module).reader()
    return made


def register_format(folder: Path) -> None:
    """Make the reader of a folder's format: one that transformers does not know registers its quantizer there as it is made."""
    if not (folder / "config.json").is_file():
        return
    try:
        quantization = quantization_of(folder)
    except (ValueError, AttributeError):
        return  # no configuration; transformers says what is wrong with it
    if isinstance(quantization, dict):
        reader_of(quantization)
