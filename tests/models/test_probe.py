"""The probe: its decisions, also on a busy machine and for an emulated dtype."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compresslab.errors import BadInput
from compresslab.models import probe as probing
from compresslab.models.device import backend_of, devices, find_device, placement, random_states, set_random_states, torch_dtype
from compresslab.records.compute import Compute, Probe

CPU = torch.device("cpu")


def found(**slowdown: float) -> Probe:
    return Probe(device="cpu", backend="cpu", rates={"float32": 1e11}, slowdown={"float32": 1.0, **slowdown}, bandwidth=1e10)


def test_storage_that_is_at_least_as_fast_as_float32_is_computed_in():
    assert found(bfloat16=0.4).dtype_for("bfloat16") == "bfloat16"
    assert found(bfloat16=1.0).dtype_for("bfloat16") == "bfloat16"


def test_what_is_slower_than_float32_or_has_no_kernel_is_computed_in_float32():
    assert found(bfloat16=40.0).dtype_for("bfloat16") == "float32"
    assert found().dtype_for("float16") == "float32"


def test_weights_of_float32_are_never_computed_in_less():
    assert found(bfloat16=0.01).dtype_for("float32") == "float32"


def test_the_probe_measures_each_dtype_and_leaves_the_threads_as_they_were():
    before = torch.get_num_threads()
    made = probing.probe(CPU, threads=2)
    assert torch.get_num_threads() == before
    assert made.rates["float32"] > 1e8
    assert made.slowdown["float32"] == 1.0
    assert {"float32", "bfloat16"} <= made.slowdown.keys()
    assert made.bandwidth > 1e7
    assert (made.device, made.backend, made.accelerator, made.count) == ("cpu", "cpu", "", 0)


def test_an_emulated_dtype_is_stopped_by_its_time_and_compared_at_a_common_size(monkeypatch: pytest.MonkeyPatch):
    """A clock that advances with products only: float32 at 100 GFLOP/s, other dtypes at 0.2."""
    seconds, asked = [0.0], []

    def product(left: torch.Tensor, _right: torch.Tensor) -> torch.Tensor:
        rate = 1e11 if left.dtype == torch.float32 else 2e8
        seconds[0] += 2 * left.shape[0] ** 3 / rate
        asked.append((left.dtype, left.shape[0]))
        return left

    monkeypatch.setattr(torch.Tensor, "__matmul__", product)
    times = probing._times(probing.SIZES, CPU, lambda: seconds[0])
    assert max(times["float32"]) == 1024
    assert max(times["bfloat16"]) == 256
    assert seconds[0] < 2.0
    assert times["bfloat16"][256] / times["float32"][256] == pytest.approx(500)


def test_a_dtype_without_a_kernel_has_no_rate(monkeypatch: pytest.MonkeyPatch):
    plain = torch.Tensor.__matmul__

    def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        if left.dtype == torch.float16:
            raise RuntimeError("not implemented for 'Half'")
        return plain(left, right)

    monkeypatch.setattr(torch.Tensor, "__matmul__", product)
    made = probing.probe(CPU, threads=1)
    assert "float16" not in made.rates
    assert made.dtype_for("float16") == "float32"


def test_a_device_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(BadInput, match=rf"--device cuda:7: this machine has no such device; there is: .*{devices()[-1]}"):
        find_device("cuda:7")
    assert find_device("cpu") == CPU


def test_a_kind_of_device_means_the_first_of_its_kind(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("compresslab.models.device.devices", lambda: ["xpu:0", "xpu:1", "cpu"])
    assert find_device("xpu") == torch.device("xpu:0")
    assert find_device() == torch.device("xpu:0")
    assert find_device("xpu:1") == torch.device("xpu:1")


def test_accelerators_come_from_torch_whatever_their_kind(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    for kind, expected in (("cuda", ["cuda:0", "cuda:1", "cpu"]), ("xpu", ["xpu:0", "xpu:1", "cpu"]), ("mps", ["mps", "cpu"])):
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda kind=kind, **_: torch.device(kind))
        assert devices() == expected


def test_rocm_is_told_from_cuda_and_unknown_accelerators_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert backend_of(torch.device("cuda:0")) == "rocm"
    monkeypatch.setattr(torch.version, "hip", None)
    assert backend_of(torch.device("cuda:0")) == "cuda"
    with pytest.raises(BadInput, match="this device is hpu"):
        backend_of(torch.device("hpu:0"))


def test_models_are_placed_on_accelerators_alone():
    assert placement("cpu") == {}
    assert placement(torch.device("cuda:1")) == {"device_map": "cuda:1"}
    assert torch_dtype(Compute("float16")) == torch.float16


def test_random_states_of_a_device_come_back():
    states = random_states(CPU)
    first = torch.rand(3)
    set_random_states(states, CPU)
    assert torch.equal(torch.rand(3), first)


def test_an_accelerator_that_takes_long_to_start_is_not_measured_by_its_start(monkeypatch: pytest.MonkeyPatch):
    """The first product of the process takes a second; after it float32 is fast and bfloat16 twenty times slower."""
    seconds, started = [0.0], []

    def product(left: torch.Tensor, _right: torch.Tensor) -> torch.Tensor:
        seconds[0] += 0.0 if started else 1.0
        started.append(True)
        seconds[0] += 2 * left.shape[0] ** 3 / (1e13 if left.dtype == torch.float32 else 5e11)
        return left

    monkeypatch.setattr(torch.Tensor, "__matmul__", product)
    times = probing._times(probing.SIZES, CPU, lambda: seconds[0])
    assert max(times["float32"]) == max(times["bfloat16"]) == 1024
    assert times["bfloat16"][1024] / times["float32"][1024] == pytest.approx(20)


def test_dtypes_that_only_the_smallest_product_compares_are_not_compared(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probing, "SIZES", (64,))
    made = probing.probe(CPU, threads=1)
    assert made.slowdown == {}
    assert made.dtype_for("bfloat16") == "float32"


def test_float16_trains_in_float32():
    assert Compute("float16", "cuda:0", "cuda").for_training() == Compute("float32", "cuda:0", "cuda")
    assert Compute("bfloat16").for_training() == Compute("bfloat16")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build\nGCC version: 12.2.0\n", "580.159.04"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  Tue Jun  6 22:20:39 UTC 2023\n", "535.54.03"),
        ("something else\n", ""),
    ],
)
def test_the_driver_of_cuda_is_that_of_the_kernel_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, version: str):
    monkeypatch.setattr(probing, "NVIDIA_DRIVER", tmp_path / "version")
    assert probing._cuda_driver() == ""
    (tmp_path / "version").write_text(text)
    assert probing._cuda_driver() == version
