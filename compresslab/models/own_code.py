"""A model's own code: where a recipe trusts it, transformers is made to know its classes, and saved folders carry it."""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig
from transformers.dynamic_module_utils import get_class_from_dynamic_module, get_relative_import_files
from transformers.models.auto.auto_factory import add_generation_mixin_to_remote_model
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import HF_MODULES_CACHE, TRANSFORMERS_DYNAMIC_MODULE_NAME

from compresslab.errors import BadInput, out_of_memory
from compresslab.recipe.model_config import code_problem, native_model_types, own_tokenizers, tokenizers_named
from compresslab.recipe.source import Source

AUTO_MAP = "auto_map"


def run_own_code(source: Source) -> None:
    """Run the code that a model brings, and make this process know its classes, so that all later loads find them without trust.

    Call it for models that a recipe trusts (`base.trust_remote_code`), and for folders that were saved from them. A model that names no
    code is left as it is. Of an architecture that transformers has, only the tokenizer's code is run.

    Raises:
        BadInput: the code does not run, gives no causal language model, or belongs to an architecture that transformers has itself.
    """
    if source.kind not in ("folder", "hub"):
        return
    options: dict[str, Any] = {"revision": source.revision, "local_files_only": source.kind == "folder"}
    try:
        config, _ = PreTrainedConfig.get_config_dict(source.name, **options)
        tokenizer = get_tokenizer_config(source.name, **options)
        if problem := code_problem(source.name, config, tokenizer, trusted=True):
            raise BadInput(problem)
        with _one_at_a_time():
            _register(source.name, config, tokenizer, options)
    except BadInput:
        raise
    except BaseException as error:  # it is anyone's code, and may raise anything
        if out_of_memory(error) or not isinstance(error, Exception | SystemExit):
            raise
        first = " ".join(str(error).split())[:300]
        raise BadInput(f"the code that {source.name} brings does not run here: {type(error).__name__}: {first}") from error


# What the tokenizers of known architectures are registered with. They are found by their own names, and other models keep theirs.
_NO_MODEL: Any = type("NoModelConfig", (PreTrainedConfig,), {"model_type": "compresslab-no-model"})


def _register(name: str, config: dict[str, Any], tokenizer: dict[str, Any], options: dict[str, Any]) -> None:
    config_class = _NO_MODEL
    named, references = config.get(AUTO_MAP), own_tokenizers(tokenizer)
    if isinstance(named, dict) and config["model_type"] not in native_model_types():
        config_class = get_class_from_dynamic_module(named["AutoConfig"], name, **options)
        model_class: Any = get_class_from_dynamic_module(named["AutoModelForCausalLM"], name, **options)
        AutoConfig.register(config["model_type"], config_class, exist_ok=True)
        AutoModelForCausalLM.register(config_class, add_generation_mixin_to_remote_model(model_class), exist_ok=True)
        references = references or tokenizers_named(tokenizer.get(AUTO_MAP, named))
    for reference in references:
        AutoTokenizer.register(config_class, get_class_from_dynamic_module(reference, name, **options), exist_ok=True)


class _one_at_a_time:  # noqa: N801 # a context
    """A context that one process of this user has at a time. transformers copies code to one place, and another may read half a copy."""

    def __enter__(self) -> None:
        folder = Path(HF_MODULES_CACHE)
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / ".compresslab.lock").open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._file.close()


def carry_code(model: Any, tokenizer: Any, folder: Path) -> None:
    """Put the code of a model and its tokenizer into a saved folder, and make the folder's `auto_map` name it and nothing else.

    Of what loads without code of its own, `auto_map` is removed: the code that it names is not there, and may be anywhere.

    Raises:
        BadInput: two files of code have one name.
    """
    own = {"AutoConfig": type(model.config), "AutoModelForCausalLM": type(model)}
    named = {auto: f"{file.stem}.{kind.__name__}" for auto, kind in own.items() for file in _carried(kind, folder)}
    _state(folder / "config.json", named)
    kind = type(tokenizer)
    slow_and_fast = [f"{file.stem}.{kind.__name__}" for file in _carried(kind, folder)]
    fast = [None, *slow_and_fast] if kind.__name__.endswith("Fast") else [*slow_and_fast, None]
    _state(folder / "tokenizer_config.json", {"AutoTokenizer": fast} if slow_and_fast else {})


def _carried(kind: type, folder: Path) -> Iterator[Path]:
    """Copy the file of a class, with what it imports from beside it, if it is a model's own code. Yields the copy."""
    for base in kind.__mro__:
        # transformers adds generation to a class in a class of the same name
        if base.__name__ == kind.__name__ and base.__module__.startswith(f"{TRANSFORMERS_DYNAMIC_MODULE_NAME}."):
            break
    else:
        return
    file = Path(str(sys.modules[base.__module__].__file__))
    for needed in [file, *map(Path, get_relative_import_files(file))]:
        copy = folder / needed.relative_to(file.parent)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if copy.exists() and copy.read_bytes() != needed.read_bytes():
            raise BadInput(
                f"two files of the model's code are named {copy.name}, from different folders; put all of its code into its folder"
            )
        shutil.copyfile(needed, copy)
    yield folder / file.name


def _state(config: Path, named: dict[str, Any]) -> None:
    if not config.exists():
        return
    content = json.loads(config.read_text())
    if named or AUTO_MAP in content:
        content.pop(AUTO_MAP, None)
        config.write_text(json.dumps({**content, **({AUTO_MAP: named} if named else {})}, indent=2, sort_keys=True) + "\n")
