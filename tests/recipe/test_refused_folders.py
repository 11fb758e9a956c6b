"""Folders and files of models that are refused before anything reads them, at once and in one message."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from recipe.folders import identity, pipe, put, shards, socket_at, weights

from compresslab.errors import BadInput
from compresslab.plan.rules import start
from compresslab.recipe import model_folder

REFUSED = {
    "\ud800.safetensors": "cannot be the name of a file",
    "x\0.safetensors": "cannot be the name of a file",
    "../outside.safetensors": "outside of the model's folder",
    "/outside.safetensors": "outside of the model's folder",
    "a/../../b.safetensors": "outside of the model's folder",
    "linked/a.safetensors": "a link leads out of the model's folder",
    "pytorch_model.bin": "pickled weights are not loaded, because they can run code; save the model with `save_pretrained`",
    "a.pt": "pickled weights are not loaded",
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_index_names_safetensors_of_its_folder(folder: Path, tmp_path: Path, name: str):
    (folder / "linked").symlink_to(tmp_path)
    weights(tmp_path / "a.safetensors")
    index = shards(folder, name)
    with pytest.raises(BadInput, match=REFUSED[name]) as caught:
        start(str(folder))
    assert str(index) in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", '{"weight_map": []}', '{"weight_map": {"w": 1}}', '{"weight_map": ' * 50_000, "\x00"])
def test_a_damaged_index_is_one_message(folder: Path, content: str):
    shards(folder).write_text(content)
    with pytest.raises(BadInput, match=r"index\.json (cannot be read as an index|is no index) of shards.*again"):
        start(str(folder))


def test_a_folder_of_pickled_weights_is_refused(folder: Path):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"pytorch_model\.bin and no safetensors weights; pickled weights are not loaded"):
        start(str(folder))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (pipe, "a named pipe"),
        (socket_at, "a socket"),
        (lambda path: path.symlink_to("/dev/zero"), "a character device"),
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_files_that_are_not_regular_are_refused_at_once(
    folder: Path, name: str, make: Callable[[Path], None], kind: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(folder.parent)
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    begun = time.monotonic()
    with pytest.raises(BadInput, match=f"{name} is {kind}, not a regular file"):
        start(str(folder))
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("content", [b"", b"\xff" * 8 + b"{}", b"\x02" + b"\0" * 7 + b"[]", struct.pack("<Q", 10**6) + b"{" * 10])
def test_weights_that_are_cut_off_are_refused(folder: Path, content: bytes):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(BadInput, match=r"a weight file of .* is damaged: model\.safetensors: .*; download or save it again"):
        start(str(folder))


def test_weights_that_are_longer_than_their_header_says_are_refused_unread(folder: Path):
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(BadInput, match=r"it has 1,099,511,627,776 bytes, and its header says"):
        start(str(folder))


def test_a_huge_file_beside_the_weights_is_not_read(folder: Path):
    before = identity(folder)
    with (folder / "dump.raw").open("wb") as file:
        file.truncate(2**40)
    assert identity(folder) == before


def test_a_folder_of_everything_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model_folder, "MOST_FILES", 1)
    with pytest.raises(BadInput, match="more than 1 files; give the folder of one model"):
        start(str(folder))


def test_a_gguf_file_may_be_a_link_and_a_folder_may_be_named_like_one(folder: Path, tmp_path: Path):
    (tmp_path / "sha256-abc").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    (tmp_path / "m.gguf").symlink_to("sha256-abc")
    start(str(tmp_path / "m.gguf"))
    folder.rename(tmp_path / "x.gguf")
    (tmp_path / "m").symlink_to("x.gguf")
    assert start(str(tmp_path / "m")).origin == start(str(tmp_path / "x.gguf")).origin


def test_a_part_of_a_split_gguf_file_is_refused(tmp_path: Path):
    path = tmp_path / "m-00001-of-00002.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    with pytest.raises(BadInput, match=r"is one of 2 parts of a model; merge the parts with llama\.cpp's `gguf-split --merge`"):
        start(str(path))
    path = path.rename(tmp_path / "m-00001-of-00001.gguf")
    start(str(path))


@pytest.mark.parametrize(
    "start_of_file", [b"", b"GGUF", b"no gguf file" * 3, b"GGUF\x03\0\0\0" + b"\xff" * 16, b"GGUF\x09\0\0\0" + b"\0" * 16]
)
def test_a_file_that_cannot_be_gguf_is_refused(tmp_path: Path, start_of_file: bytes):
    (tmp_path / "m.gguf").write_bytes(start_of_file)
    with pytest.raises(BadInput, match=r"m\.gguf is (no|a damaged) GGUF file.*download it again"):
        start(str(tmp_path / "m.gguf"))


def test_a_vocabulary_that_claims_a_terabyte_is_refused_at_once(folder: Path) -> None:
    with (folder / "tokenizer.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(BadInput, match="no configuration or vocabulary is so large"):
        model_folder.files_of(folder)


def only(*names: str) -> Callable[[Path], object]:
    """Replaces the weights by files of these names."""

    def write(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        for name in names:
            weights(folder / name)

    return write


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (only(), r"has no weights: neither model\.safetensors nor model\.safetensors\.index\.json"),
        (
            only("model.fp16.safetensors"),
            r"has 'model\.fp16\.safetensors' and neither model\.safetensors nor .*; name it model\.safetensors",
        ),
        (only("a.safetensors", "b.safetensors"), r"has 2 files of weights \('a\.safetensors' is one\) and neither .*; download the index"),
        (only("adapter_model.safetensors"), r"has the weights of an adapter \(adapter_model\.safetensors\) and none of a model; merge it"),
        (only("model.pt"), r"has model\.pt and no safetensors weights; pickled weights are not loaded"),
        (only("optimizer.bin", "pytorch_model.bin"), r"has pytorch_model\.bin and no safetensors weights; pickled weights are not loaded"),
        (only("tf_model.h5"), r"has tf_model\.h5 and no safetensors weights; save the model with transformers"),
        (only("m.gguf"), r"has no safetensors weights; to read m\.gguf, give the file itself"),
    ],
)
def test_a_folder_of_which_transformers_loads_no_weights_is_refused_by_what_is_there(
    folder: Path, change: Callable[[Path], object], said: str
):
    change(folder)
    with pytest.raises(BadInput, match=said):
        start(str(folder))


def test_one_file_of_another_name_is_loaded_where_a_format_names_it_itself(folder: Path):
    only("gptq_model-4bit-128g.safetensors")(folder)
    (folder / "quantize_config.json").write_text('{"bits": 4, "group_size": 128}')
    start(str(folder))


def test_an_index_without_metadata_is_refused(folder: Path):
    weights(folder / "a.safetensors")
    index = shards(folder, "a.safetensors")
    index.write_text('{"weight_map": {"w": "a.safetensors"}}')
    with pytest.raises(BadInput, match=r"index\.json has no metadata, which transformers reads; download or save"):
        start(str(folder))


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json", "config.json", "tokenizer.json"])
def test_a_pointer_of_git_lfs_is_named_as_one(folder: Path, name: str):
    if name.endswith("index.json"):
        shards(folder, "a.safetensors")
    (folder / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 13452\n")
    with pytest.raises(BadInput, match=rf"{name}.*it is a pointer of Git LFS, not the file itself; run `git lfs pull`"):
        start(str(folder))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "has no tokenizer: neither tokenizer.json nor another vocabulary"),
        ('{"model": {"voc', "tokenizer.json cannot be read as a tokenizer"),
        ("{}", "tokenizer.json is no tokenizer: it has no model"),
    ],
)
def test_a_model_without_a_tokenizer_is_refused(folder: Path, content: str | None, said: str):
    (folder / "tokenizer.json").unlink()
    if content is not None:
        (folder / "tokenizer.json").write_text(content)
    with pytest.raises(BadInput, match=said):
        start(str(folder))


@pytest.mark.parametrize(
    "add",
    [put("tokenizer.model"), put("vocab.json"), put("qwen.tiktoken"), put("tokenizer_config.json", '{"tokenizer_class": "ByT5Tokenizer"}')],
)
def test_other_vocabularies_and_tokenizers_of_bytes_are_tokenizers(folder: Path, add: Callable[[Path], object]):
    (folder / "tokenizer.json").unlink()
    add(folder)
    start(str(folder))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{}", "config.json has no model_type, so its architecture is not known"),
        ('{"model_type": "llama9"}', r"is of the architecture 'llama9', which transformers [\d.]+ does not have"),
        ('{"model_type": "t5"}', "is of the architecture 't5', of which transformers loads no causal language model; take a model that"),
        (
            '{"model_type": "llava", "text_config": {"model_type": "llama"}}',
            r"'llava', of which transformers loads no causal language model; save its text model \(llama\) alone",
        ),
        ('{"model_type": "llama", "dtype": "bf16"}', "dtype is 'bf16', which torch does not have; it is float32, float16 or bfloat16"),
        ('{"model_type": "llama", "torch_dtype": "torch.float16"}', r"torch_dtype is 'torch\.float16', which torch does not have"),
        ("\ufeff{}", "config.json is UTF-16 or begins with a byte order mark"),
    ],
)
def test_a_configuration_of_which_transformers_makes_no_language_model_is_refused(folder: Path, config: str, said: str):
    (folder / "config.json").write_text(config)
    with pytest.raises(BadInput, match=said):
        start(str(folder))


def test_a_file_is_no_folder_and_a_folder_of_checkpoints_names_one(folder: Path):
    with pytest.raises(BadInput, match=r"model\.safetensors is a file, and a model is a folder or a \.gguf file"):
        start(str(folder / "model.safetensors"))
    with pytest.raises(BadInput, match=r"holds no config\.json, so it is not a model; a model is in its folder model"):
        start(str(folder.parent))
