"""The loaders as targets of the mutation fuzzer: tiny models of several formats, really loaded.

The libraries of the loaders take seconds and hundreds of megabytes to import, so one process imports them once and forks for each try. The
seconds and the memory of a try are those beyond that process.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from faults.ground import Command, Target

if TYPE_CHECKING:
    from faults.mutations import Ended

LOADS = Path("loads")
LONGEST_MESSAGE = 1500
# Methods whose folders are loaded, one of each format.
PACKED = ("rtn", "gptq", "awq", "bnb-nf4", "torchao-int8")


def load_plain() -> None:
    """A folder of plain weights in shards, as the base of a study."""
    from compresslab.models.load import load

    _one_line(lambda: load(str(LOADS / "plain"), "float32"))


def load_gguf() -> None:
    """A GGUF file, and what its record says of it."""
    from compresslab.models.formats.gguf_origin import origin_details
    from compresslab.models.load import load

    def both() -> None:
        load(str(LOADS / "model.gguf"), "float32")
        origin_details(str(LOADS / "model.gguf"))

    _one_line(both)


def read_texts() -> None:
    """Texts for calibration."""
    from compresslab.models.text import documents

    def both() -> None:
        for name in ("text.txt", "text.jsonl"):
            list(documents(str(LOADS / name), 0))

    _one_line(both)


def _packed(name: str) -> Callable[[], None]:
    """A folder of packed weights, checked as a base is and then unpacked for scoring."""

    def command() -> None:
        import torch

        from compresslab.models.formats.dequantize import load_for_scoring
        from compresslab.models.formats.foreign import loadable
        from compresslab.recipe.model_folder import check_model
        from compresslab.recipe.source import parse_source

        def checked() -> None:
            check_model(parse_source(str(LOADS / name)))
            load_for_scoring(loadable(LOADS / name), torch.float32)

        _one_line(checked)

    return command


COMMANDS: dict[str, Callable[[], None]] = {
    "plain": load_plain,
    "gguf": load_gguf,
    "text": read_texts,
    **{name: _packed(name) for name in (*PACKED, "auto-gptq")},
}


def _one_line(load: Callable[[], object]) -> None:
    """Load something. Raises ValueError if it is refused in more than one line."""
    from compresslab.errors import CompresslabError

    try:
        load()
    except CompresslabError as error:
        if "\n" in str(error) or len(str(error)) > LONGEST_MESSAGE:
            raise ValueError("a message of several lines, or a very long one") from error
        raise


def targets() -> dict[str, Target]:
    """Every file that is mutated for a loader."""
    plain = LOADS / "plain"
    files = {
        "config": plain / "config.json",
        "generation": plain / "generation_config.json",
        "tokenizer": plain / "tokenizer.json",
        "tokenizer-config": plain / "tokenizer_config.json",
        "special-tokens": plain / "special_tokens_map.json",
        "template": plain / "chat_template.jinja",
        "index": plain / "model.safetensors.index.json",
        "shard": min(plain.glob("model-*.safetensors")),
    }
    found = {f"load {name}": Target(str(file), (("plain",),), loads=True) for name, file in files.items()}
    found["load gguf"] = Target(str(LOADS / "model.gguf"), (("gguf",),), loads=True)
    found |= {f"load {name}": Target(str(LOADS / f"text.{name}"), (("text",),), loads=True) for name in ("txt", "jsonl")}
    for name in PACKED:
        found[f"{name} config"] = Target(str(LOADS / name / "config.json"), ((name,),), loads=True)
        found[f"{name} weights"] = Target(str(LOADS / name / "model.safetensors"), ((name,),), loads=True)
    found["auto-gptq"] = Target(str(LOADS / "auto-gptq" / "quantize_config.json"), (("auto-gptq",),), loads=True)
    return found


def make() -> None:
    """Write the files of all targets below `LOADS`."""
    import torch
    from models.test_gguf_file import folder as llama
    from models.tiny import make as tiny
    from models.tiny import make_tokenizer, text

    from compresslab.methods.registry import method
    from compresslab.models.formats.gguf import write_gguf
    from compresslab.steps.contract import Context, run

    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    source = llama(LOADS / "source", **sizes)
    write_gguf(source, LOADS / "model.gguf", "a name", "a description")
    plain = tiny("llama", torch.float32, hidden_size=32, num_hidden_layers=2)
    plain.model.generation_config.update(temperature=0.7, do_sample=True, eos_token_id=[1, 2])
    plain.model.save_pretrained(LOADS / "plain", max_shard_size=100_000)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}<s>{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained(LOADS / "plain")
    (LOADS / "plain" / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<s>", "pad_token": {"content": "</s>"}}))
    for name in PACKED:
        entry = method("quantize", name)
        run("quantize", entry.config(method=name), tiny("llama"), Context(text(4, 32)), LOADS / name)
    auto = LOADS / "auto-gptq"
    shutil.copytree(LOADS / "gptq", auto)
    config = json.loads((auto / "config.json").read_text())
    (auto / "quantize_config.json").write_text(json.dumps(config.pop("quantization_config")))
    (auto / "config.json").write_text(json.dumps(config))
    (auto / "model.safetensors").rename(auto / "gptq_model-4bit-128g.safetensors")
    (LOADS / "text.txt").write_text("One text.\n\n\nAnother, of é and \u4e2d.\n" * 20)
    (LOADS / "text.jsonl").write_text("".join(json.dumps({"text": f"line {number}", "id": number}) + "\n" for number in range(40)))


class Preloaded:
    """The process that has the libraries of the loaders. `call` runs one command in a fork of it."""

    def __init__(self, folder: Path) -> None:
        """Start it, and have it write the files of all targets below `folder`."""
        context = get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, str(folder)))
        self._process.start()
        there.close()

    def ready(self) -> None:
        """Wait until the files are written and the unchanged ones were loaded. Raises EOFError if that failed."""
        self._pipe.recv()

    def call(self, command: Command) -> Ended:
        """How a command of `COMMANDS` ended. Its memory is that beyond the libraries'."""
        self._pipe.send(command)
        ended: Ended = self._pipe.recv()
        return ended

    def __enter__(self) -> Preloaded:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join(10)
        self._process.kill()


def _serve(pipe: Connection, folder: str) -> None:
    os.chdir(folder)
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    import torch
    from faults import mutations

    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    make()
    for command in COMMANDS.values():  # imports what the commands need, and shows that the unchanged files are valid
        command()
    # A process forked from this one has its memory, without what is mapped from files and not looked at.
    before = mutations.call(lambda: None).megabytes
    pipe.send("ready")
    with contextlib.suppress(EOFError):
        while True:
            (name,) = pipe.recv()
            ended = mutations.call(COMMANDS[name])
            # What libraries print goes into a run's log. Only the message reaches a terminal.
            said = ended.said if ended.code not in (0, 1, 2) else "".join(ended.said.partition("error: ")[1:])
            pipe.send(ended._replace(megabytes=ended.megabytes - before, said=said))
