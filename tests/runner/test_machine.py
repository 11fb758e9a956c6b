"""This machine: probed once, remembered by what decides it, and chosen for by what was measured."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from compresslab.errors import BadInput, RunFailed
from compresslab.machine import control_groups, processor
from compresslab.machine import this_machine as machine
from compresslab.records.compute import Compute, Probe

PROBE = Probe(
    device="cpu",
    backend="cpu",
    rates={"float32": 1e11, "bfloat16": 1e9},
    slowdown={"float32": 1.0, "bfloat16": 80.0},
    bandwidth=1e10,
)
GPU = PROBE.model_copy(
    update={
        "device": "cuda:1",
        "backend": "cuda",
        "accelerator": "NVIDIA H100",
        "driver": "12080",
        "count": 8,
        "slowdown": {"bfloat16": 0.1},
    }
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMPRESSLAB_CACHE", str(tmp_path))
    return tmp_path / "machines"


def test_a_machine_is_probed_once(cache: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(machine, "_run_probe", lambda device: asked.append(device) or PROBE)
    assert machine.probe_device() == machine.probe_device() == PROBE
    assert asked == [None]
    assert len(list(cache.iterdir())) == 1


@pytest.mark.usefixtures("cache")
def test_another_machine_another_device_and_other_instructions_are_probed_anew(monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(machine, "_run_probe", lambda device: asked.append(device) or PROBE)
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    machine.probe_device()
    machine.probe_device("cpu")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    machine.probe_device()
    monkeypatch.setattr(machine, "processor", lambda: "another one")
    machine.probe_device()
    assert len(asked) == 4


@pytest.mark.parametrize(
    "left", ["", "{", '{"device": "cpu"}', '{"version": 1}', PROBE.model_dump_json().replace('"version":1', '"version":2')]
)
def test_a_damaged_memory_is_probed_anew(cache: Path, monkeypatch: pytest.MonkeyPatch, left: str):
    monkeypatch.setattr(machine, "_run_probe", lambda _: PROBE)
    machine.probe_device()
    [file] = cache.iterdir()
    file.write_text(left)
    assert machine.probe_device() == PROBE
    assert Probe.model_validate_json(file.read_text()) == PROBE


@pytest.mark.slow
def test_the_probe_runs_in_a_process_of_its_own_and_refuses_a_device_in_one_sentence(cache: Path):
    with pytest.raises(BadInput, match=r"^--device cuda:9: this machine has no such device; there is: .*cpu"):
        machine.probe_device("cuda:9")
    assert not cache.exists()


@pytest.mark.usefixtures("cache")
def test_a_probe_that_dies_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], -9, "", "what it said last\n"))
    with pytest.raises(RunFailed, match=r"the probe of this machine failed \(exit code -9\): what it said last; try another --device"):
        machine.probe_device()


def test_auto_takes_what_the_probe_found_and_a_name_what_it_names():
    assert machine.resolve_compute("auto", "bfloat16", PROBE) == Compute("float32", "cpu", "cpu")
    assert machine.resolve_compute("bfloat16", "bfloat16", PROBE) == Compute("bfloat16", "cpu", "cpu")
    assert machine.resolve_compute("auto", "bfloat16", GPU) == Compute("bfloat16", "cuda:1", "cuda")


def test_an_emulated_dtype_is_warned_of_with_the_measured_ratio():
    said = machine.emulation_warning("bfloat16", "bfloat16", PROBE)
    assert "is emulated" in said
    assert "80 times as long as in float32 (measured); compute: auto takes float32" in said
    assert "no matrix product in it" in machine.emulation_warning("float16", "bfloat16", PROBE)
    assert machine.emulation_warning("auto", "bfloat16", PROBE) == machine.emulation_warning("float32", "bfloat16", PROBE) == ""
    assert machine.emulation_warning("bfloat16", "bfloat16", GPU) == ""


def test_times_of_another_accelerator_driver_or_number_of_devices_are_not_shared():
    others = [GPU, *(GPU.model_copy(update=change) for change in ({"accelerator": "NVIDIA A100"}, {"driver": "12090"}, {"count": 4}))]
    identities = [machine.machine_identity(found) for found in (PROBE, *others)]
    assert all(one != two for number, one in enumerate(identities) for two in identities[:number])
    assert machine.machine_name(GPU).startswith("8 x NVIDIA H100 (cuda, driver 12080), ")


def test_planning_and_the_look_at_the_machine_import_no_torch():
    code = (
        "import sys, compresslab.machine.this_machine as m; m.probe_device(); m._fingerprint(None); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0


V2, V1 = "0::/job/step\n", "3:cpu,cpuacct:/job/step\n4:memory:/job/step\n"


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict[str, str]], None]:
    """Control groups: what the process's own are called, and the files of all."""
    monkeypatch.setattr(control_groups, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(control_groups, "CGROUP_OF_THIS", tmp_path / "own")

    def made(own: str, files: dict[str, str]) -> None:
        (tmp_path / "own").write_text(own)
        for name, content in files.items():
            (tmp_path / "groups" / name).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / "groups" / name).write_text(content + "\n")

    return made


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000"}, 1),
        ("0::/\n", {"cpu.max": "max 100000"}, 8),
        (V2, {"job/step/cpu.max": "max 100000", "job/cpu.max": "300000 100000"}, 3),
        (V2, {"cpu.max": "300000 100000"}, 3),  # of a container, where the path is the host's
        (V2, {"other/cpu.max": "300000 100000"}, 8),
        (V1, {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        (V1, {"cpu/job/cpu.cfs_quota_us": "200000", "cpu/job/cpu.cfs_period_us": "100000"}, 2),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("", {}, 8),
    ],
)
def test_a_container_with_a_quota_has_no_more_threads_than_it_pays_for(
    groups: Callable[[str, dict[str, str]], None], monkeypatch: pytest.MonkeyPatch, own: str, files: dict[str, str], expected: int
):
    groups(own, files)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert processor.threads() == expected


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        (V2, {"job/step/memory.max": "max", "job/memory.max": "3000"}, 3000),
        (V2, {"job/step/memory.max": "2000", "job/memory.max": "3000"}, 2000),
        (V2, {"memory.max": "3000"}, 3000),
        (V1, {"memory/job/memory.limit_in_bytes": "3000", "memory/memory.limit_in_bytes": "9223372036854771712"}, 3000),
        (V1, {"memory/memory.limit_in_bytes": "9223372036854771712"}, 10_000),
        (V2, {"memory.max": "no number"}, 10_000),
        ("", {}, 10_000),
    ],
)
def test_a_container_has_no_more_memory_than_its_groups_allow(
    groups: Callable[[str, dict[str, str]], None], monkeypatch: pytest.MonkeyPatch, own: str, files: dict[str, str], expected: int
):
    groups(own, files)
    monkeypatch.setattr(control_groups.psutil, "virtual_memory", lambda: SimpleNamespace(total=10_000))
    assert control_groups.memory() == expected


@pytest.mark.slow
def test_the_fork_server_asks_no_accelerator_anything():
    code = (
        "import sys, torch; asked = []; torch.cuda.is_available = lambda: asked.append(1); import compresslab.runner.preload; "
        "sys.exit('bitsandbytes' in sys.modules or bool(asked) or torch.cuda.is_initialized() or torch.xpu.is_initialized())"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=os.environ, check=False).returncode == 0


def test_a_worker_drops_what_would_round_float32_products(tmp_path: Path):
    code = (
        "import os, sys; from pathlib import Path; from compresslab.runner.worker import LOWERS_PRECISION, _settle; "
        "os.environ.update(dict.fromkeys(LOWERS_PRECISION, 'BF16')); "
        f"_settle(Path({str(tmp_path / 'logs' / 'node.log')!r}), 1); "
        "sys.exit(any(name in os.environ for name in LOWERS_PRECISION))"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=os.environ, check=False).returncode == 0
