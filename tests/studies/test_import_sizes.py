"""Sizes of imported models: stated or counted, with the stored bits of a weight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compresslab.studies.imported.study import ImportRequest, import_study

from .lm_eval_results import SIZES, Results, refused


def test_a_size_that_nobody_states_is_asked_for_with_all_others(results: Results) -> None:
    refused([results("a"), results("b")], r"the size of a, b is not known.* add --size a=… --size b=…", sizes=())
    refused([results("a"), results("b")], "--size c=1e9: no model is called c", sizes=["c=1e9"])
    refused([results("a"), results("b")], "--size a=7: 7 is no number of parameters; write them in full", sizes=["a=7", "b=2e9"])
    refused([results("a"), results("b")], "--size a=nowhere: there is neither such a file or folder", sizes=["a=nowhere", "b=2e9"])


@pytest.mark.parametrize(
    ("model", "arguments", "said"),
    [
        ("b", "pretrained=b,load_in_4bit=True", "lm-eval loaded the model with load_in_4bit:true|load_in_4bit=True"),
        ("b", {"pretrained": "b", "gguf_file": "b.gguf"}, "with gguf_file"),
        ("b", {"pretrained": "b", "quantization": "awq"}, "with quantization:awq"),
        ("x/b-GPTQ-Int4", {"pretrained": "x"}, r"the name b says|the name b-GPTQ-Int4 says that weights are quantized \(GPTQ\)"),
    ],
)
def test_a_quantized_model_is_not_sized_as_16_bits(results: Results, model: str, arguments: Any, said: str) -> None:
    files = [results("a"), f"b={results(model, config={'model_args': arguments})}"]
    refused(files, rf"--size b=2e9 has 16 bits a weight, and .*({said}).*: --size b=2e9@4\.25 \(@16 if it is not")
    record = import_study(ImportRequest(files, ["a"], ["a=4e9", "b=2e9@4.25"]))
    assert record.variants[1].size is not None
    assert record.variants[1].size.stored_bytes == round(2e9 * 4.25 / 8)
    import_study(ImportRequest(files, ["a"], ["a=4e9", "b=2e9@16"]))


def test_a_size_that_is_not_what_lm_eval_counted(results: Results) -> None:
    files = [results("a"), results("b", config={"model_num_parameters": 2_100_000_000})]
    import_study(ImportRequest(files, ["a"], SIZES))
    refused(files, r"--size b=2e12: these are 2e\+12 parameters, and lm-eval counted 2.1e\+09", sizes=["a=4e9", "b=2e12"])
    refused(files, "correct the number, or, if its weights are packed", sizes=["a=4e9", "b=2e6"])


def test_a_folder_of_gguf_files_is_not_sized_by_its_config(results: Results, tmp_path: Path) -> None:
    (folder := tmp_path / "model").mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.gguf").write_bytes(b"GGUF")
    said = r"its weights in \.gguf files, which are not counted here; add their stored bits: --size b=.*model@4\.5"
    refused([results("a"), results("b")], said, sizes=["a=4e9", f"b={folder}"])


LLAMA = {"model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16, "vocab_size": 32000, "num_attention_heads": 16}
LLAMA |= {"num_key_value_heads": 8, "intermediate_size": 8192, "tie_word_embeddings": False}


def test_the_bits_of_a_weight_are_stated_beside_a_config(results: Results, tmp_path: Path) -> None:
    (folder := tmp_path / "packed").mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA | {"quantization_config": {"quant_method": "gptq", "bits": 4}}))
    files = [results("a"), results("b")]
    said = r"not how many bits a weight takes with its scales; state them as --size b=.*config\.json@4\.25"
    refused(files, said, sizes=["a=4e9", f"b={folder / 'config.json'}"])
    refused(files, "400 bits a weight are not possible", sizes=["a=4e9", f"b={folder}@400"])
    for size in (f"{folder / 'config.json'}@4.25", f"{folder}@4.25"):
        record = import_study(ImportRequest(files, ["a"], ["a=4e9", f"b={size}"]))
        found = record.variants[1]
        assert found.size is not None
        decoder, small = 16 * (3 * 2048 * 8192 + 2 * 2048 * 2048 + 2 * 2048 * 1024), (16 * 2 + 1) * 2048
        assert found.size.stored_bytes == round((decoder * 4.25 + (small + 2 * 32000 * 2048) * 16) / 8)
        assert found.size.counted == decoder + small + 32000 * 2048
        assert any(
            "N of b: counted from config.json, with 4.25 bits a weight as stated, and 16 of embeddings" in one for one in record.notes
        )
    timed = import_study(ImportRequest(files, ["a"], [f"a={folder}@16", f"b={folder}@4.25"], hardware=["rtx-4090"]))
    assert timed.variants[1].density is not None
    assert "rtx-4090" in timed.variants[1].density.modelled_seconds
    arguments = {"model_args": "pretrained=b,load_in_4bit=True"}
    (folder / "config.json").write_text(json.dumps(LLAMA))
    refused([files[0], results("b", config=arguments)], r"--size b=.*packed@4\.25 \(@16 if it is", sizes=["a=4e9", f"b={folder}"])


def test_a_path_that_ends_like_bits_is_a_path(results: Results, tmp_path: Path) -> None:
    (folder := tmp_path / "model@4").mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    record = import_study(ImportRequest([results("a"), results("b")], ["a"], ["a=4e9", f"b={folder}"]))
    assert record.variants[1].size is not None
    assert record.variants[1].size.effective_bits == 16
