"""Checks a saved folder with plain transformers without holding the model: it loads a few layers, or rows of the vocabulary, at a time."""

from __future__ import annotations

import contextlib
import gc
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from compresslab.errors import RunFailed
from compresslab.methods.layerwise import PART_PARAMETERS, WHOLE_PARAMETERS
from compresslab.models.anatomy import backbone, decoder_layers, parameters_of
from compresslab.models.calibration.blockwise import first_output
from compresslab.models.computing import computing
from compresslab.models.counting.size import plain_skeleton
from compresslab.models.device import find_device, placement, torch_dtype
from compresslab.models.formats.reader import register_format
from compresslab.models.load import probe_ids, quiet
from compresslab.models.save import is_rounding, reload_difference
from compresslab.models.streamed.digests import TensorDigest, tensor_digests
from compresslab.models.streamed.tensor_files import TensorFile
from compresslab.recipe.stored_weights import loaded_files
from compresslab.records.compute import Compute

CONFIG = "config.json"
TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id")


class Check(NamedTuple):
    """The largest absolute difference of a probe logit, as `reload_difference` gives it, and whether the folder was loaded by parts."""

    difference: float
    by_parts: bool


class Reloaded(NamedTuple):
    """The logits of a folder's probe, in float32, and the digests of its tensors as transformers has them in memory, by name."""

    logits: Tensor
    tensors: dict[str, str]


def check_reload(folder: Path, expected: Tensor, tensors: Mapping[str, str], compute: Compute | None = None) -> Check:
    """Compare a saved folder with the model that was saved, as plain transformers loads it: whole if it is small, else by parts.

    A folder that is not equal by parts, or does not load so, is loaded whole: what that gives counts.

    Args, Raises:
        as of `reload_difference`.
    """
    if parameters_of(plain_skeleton(folder)) > WHOLE_PARAMETERS:
        with contextlib.suppress(Exception):
            found = reload_by_parts(folder, torch_dtype(compute) if compute else None, find_device(compute and compute.device))
            if found.tensors == tensors and is_rounding(found.logits, expected):
                return Check(0.0, by_parts=True)
    return Check(reload_difference(folder, expected, tensors, compute), by_parts=False)


def reload_by_parts(folder: Path, compute: torch.dtype | None, device: torch.device) -> Reloaded:
    """What plain transformers makes of a saved folder, of which it loads one part after the other.

    A part is a folder of its own: some decoder layers without a vocabulary, or some rows of the vocabulary without layers. transformers
    maps its names, makes its modules, unpacks its weights by the format's quantizer and computes. A rule of an architecture that depends on
    the number of a layer otherwise than by a list in its config is not seen; then the logits differ from those of the whole model.

    Args:
        compute: the dtype of the passes; without it, the folder's own.

    Raises:
        RunFailed: a tensor is missing, belongs to no part, or has another shape.
        Exception: whatever a library raises that cannot load a part.
    """
    return _Parts(folder, compute, device).run()


class _Parts:
    def __init__(self, folder: Path, compute: torch.dtype | None, device: torch.device) -> None:
        register_format(folder)
        self.skeleton = plain_skeleton(folder)
        self.compute, self.device = compute, device
        self.config: dict[str, Any] = json.loads((folder / CONFIG).read_text())
        self.layers = decoder_layers(self.skeleton)
        self.inside = next(name for name, module in self.skeleton.named_modules() if module is self.layers) + "."
        self.vocabulary: int = self.config["vocab_size"]
        files = [TensorFile(file) for file in loaded_files(folder)]
        self.files = {name: file for file in files for name in file.names}
        self.digests: dict[str, str] = {}

    def run(self) -> Reloaded:
        hidden = self._looked_up()
        each = max(1, PART_PARAMETERS // max(map(parameters_of, self.layers)))
        for start in range(0, len(self.layers), each):
            hidden = self._advanced(hidden, range(start, min(start + each, len(self.layers))))
        return Reloaded(self._logits(hidden), self.digests)

    def _looked_up(self) -> Tensor:
        numbers, places = torch.unique(probe_ids(self.skeleton), return_inverse=True)
        part = self._part(range(0), lambda file, name: file.rows(name, numbers.tolist()), len(numbers))
        self._computing(part)
        with torch.no_grad():
            hidden: Tensor = part.get_input_embeddings()(places.to(self.device))
        return hidden

    def _advanced(self, hidden: Tensor, numbers: range) -> Tensor:
        """The hidden states after the layers with these numbers."""
        part = self._part(numbers, lambda file, name: file.range(name, 0, 1), 1, plain=False)
        buffers = {name for name, _ in part.named_buffers()}
        for name, digest in tensor_digests(part).items():
            if name.startswith(self.inside):
                number, _, own = name.removeprefix(self.inside).partition(".")
                self.digests[f"{self.inside}{numbers[int(number)]}.{own}"] = digest
            elif name in buffers:  # some are of one kind of layers alone (Gemma 3's rotary frequencies)
                self.digests[name] = digest
        self._computing(part)
        found: list[Tensor] = []
        layers = decoder_layers(part)
        layers[0].register_forward_pre_hook(lambda _, inputs: (hidden, *inputs[1:]))
        layers[-1].register_forward_hook(lambda _, __, output: found.append(first_output(output)))
        with torch.no_grad():
            backbone(part)(input_ids=torch.zeros(hidden.shape[:2], dtype=torch.long, device=self.device), use_cache=False)
        return found[0]

    def _logits(self, hidden: Tensor) -> Tensor:
        """The logits from the hidden states after the last layer, some rows of the vocabulary after the other."""
        width = self.skeleton.get_input_embeddings().weight.shape[1]
        rows = max(1, PART_PARAMETERS // (2 * width))
        logits, digests = [], dict[str, TensorDigest]()
        for start in range(0, self.vocabulary, rows):
            end = min(start + rows, self.vocabulary)
            part = self._part(range(0), partial(_range, start=start, end=end), end - start)
            embeddings = (part.get_input_embeddings(), part.get_output_embeddings())
            for name, tensor in part.state_dict().items():
                if part.get_submodule(name.rpartition(".")[0]) in embeddings and name.endswith("weight"):
                    digests.setdefault(name, TensorDigest(tensor.dtype, (self.vocabulary, *tensor.shape[1:]))).update(tensor)
            self.digests |= {name: digest for name, digest in tensor_digests(part).items() if name not in digests}
            self._computing(part)
            embeddings[0].register_forward_hook(lambda *_: hidden)
            with torch.no_grad():
                ids = torch.zeros(hidden.shape[:2], dtype=torch.long, device=self.device)
                logits.append(part(input_ids=ids, use_cache=False).logits.float().cpu())
        self.digests |= {name: digest.hexdigest() for name, digest in digests.items()}
        return torch.cat(logits, dim=-1)

    def _computing(self, part: PreTrainedModel) -> None:
        if self.compute is not None:
            computing(part, self.compute)

    def _part(
        self, numbers: range, of_vocabulary: Callable[[TensorFile, str], Tensor], rows: int, *, plain: bool = True
    ) -> PreTrainedModel:
        """The model that transformers loads from a part.

        Args:
            of_vocabulary: the part of a matrix over the vocabulary, which has `rows`. plain: whether nothing of the part is packed.
        """
        gc.collect()
        config = {**self.config, "num_hidden_layers": len(numbers), "vocab_size": rows}
        for name, value in self.config.items():
            if isinstance(value, list) and len(value) == len(self.layers):
                config[name] = [value[number] for number in numbers]
        config |= dict.fromkeys(TOKENS)  # last, since there may be as many of them as layers
        if plain:
            config.pop("quantization_config", None)
        with tempfile.TemporaryDirectory(prefix="compresslab-part-") as scratch, quiet():
            Path(scratch, CONFIG).write_text(json.dumps(config))
            tensors = dict(self._tensors(numbers, of_vocabulary))
            save_file(tensors, Path(scratch, "model.safetensors"), {"format": "pt"})
            del tensors
            model, found = AutoModelForCausalLM.from_pretrained(
                scratch,
                dtype="auto",
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **placement(self.device),
            )
        if wrong := sorted(str(name) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in found[kind]):
            raise RunFailed(f"the saved variant does not load in plain transformers: {wrong[0]} is missing or belongs to no part of it")
        loaded: PreTrainedModel = model.eval()
        return loaded

    def _tensors(self, numbers: range, of_vocabulary: Callable[[TensorFile, str], Tensor]) -> Iterator[tuple[str, Tensor]]:
        for name, file in self.files.items():
            if name.startswith(self.inside):
                number, _, own = name.removeprefix(self.inside).partition(".")
                if int(number) in numbers:
                    yield f"{self.inside}{int(number) - numbers.start}.{own}", file.tensor(name)
            elif file.shape(name)[0] == self.vocabulary:
                yield name, of_vocabulary(file, name)
            else:
                yield name, file.tensor(name)


def _range(file: TensorFile, name: str, start: int, end: int) -> Tensor:
    return file.range(name, start, end)
