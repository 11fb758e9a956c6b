"""This machine: its identity, and the speed of its devices by dtype, probed once and cached."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from pydantic import ValidationError

from compresslab.children import python
from compresslab.errors import BadInput, RunFailed
from compresslab.files import atomic_write
from compresslab.machine.processor import processor, processor_flags, threads
from compresslab.pins import cache_folder
from compresslab.records import RunNote, StudyNote, UnreadableRecord, read_record
from compresslab.records.compute import Compute, ComputeChoice, Dtype, Probe
from compresslab.versions import version

# Variables that hide instructions from the libraries' kernels, and devices from torch.
INSTRUCTION_VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
DEVICE_VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
# Files that identify the drivers of accelerators without their libraries.
DRIVER_FILES = ("/proc/driver/nvidia/version", "/sys/module/amdgpu/version", "/sys/module/xe/version", "/sys/module/i915/version")
DEVICE_FILES = (
    "/proc/driver/nvidia/gpus/*/information",
    "/sys/class/kfd/kfd/topology/nodes/*/name",
    # Devices that this process may open: a container or a job may have fewer than the driver lists.
    "/dev/nvidia[0-9]*",
    "/dev/dxg",
    "/dev/kfd",
    "/dev/dri/renderD*",
)
# Packages whose kernels a measured time depends on.
KERNEL_LIBRARIES = ("torch", "transformers", "bitsandbytes", "compressed-tensors", "gptqmodel", "torchao")
PROBE = "import sys; sys.argv[1:] = given; from compresslab.models.probe import main; main()"
PROBE_TIMEOUT = 300  # seconds; importing torch from a cold network disk takes minutes
EMULATION_SLOWDOWN = 2.0  # time over that in float32 from which the device is assumed to have no units for a dtype


class Machine(NamedTuple):
    """The machine of a plan.

    Attributes:
        compute: dtype and device of a study's computation. facts: properties that determine measured times. name: for people.
        probe: measured speeds; `None` for a machine that is known only from a store's note. warning: about an emulated dtype, or "".
    """

    compute: Compute
    facts: dict[str, Any]
    name: str
    probe: Probe | None = None
    warning: str = ""


class ProbedMachine(NamedTuple):
    """What of a machine does not depend on a recipe, as `Machine` has it. Its identity, for another one, is to be asked there."""

    probe: Probe
    facts: dict[str, Any]
    name: str


def probed(device: str | None = None) -> ProbedMachine:
    """This machine. Raises like `probe_device`."""
    probe = probe_device(device)
    return ProbedMachine(probe, machine_identity(probe), machine_name(probe))


def machine_for(choice: ComputeChoice, storage: Dtype, machine: ProbedMachine) -> Machine:
    """A machine for a recipe's `compute` and weights stored in `storage`."""
    compute = resolve_compute(choice, storage, machine.probe)
    return Machine(compute, machine.facts, machine.name, machine.probe, emulation_warning(choice, storage, machine.probe))


def last_run(note: StudyNote, choice: ComputeChoice) -> RunNote | None:
    """The last run in a study's note that the recipe's `compute` allows, or `None`."""
    last = [note.last, *sorted(note.runs)]
    for run in (note.runs[key] for key in last if key in note.runs):
        if choice in ("auto", run.compute.dtype):
            return run
    return None


def probe_device(device: str | None = None) -> Probe:
    """The probe of a device, by default the accelerator if there is one. Later calls read it from the user's cache.

    Raises:
        BadInput: there is no such device.
        RunFailed: the probe's process ended without an answer.
    """
    path = cache_folder() / "machines" / f"{_fingerprint(device)}.json"
    with contextlib.suppress(UnreadableRecord):
        probe = read_record(path, Probe, "it is made again")
        if probe.count < 2 or probe.memory:  # one of an earlier version does not know the memory, which `devices: auto` needs
            return probe
    probe = _run_probe(device)
    with contextlib.suppress(OSError):  # without a writable cache each run probes again, which takes two seconds
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, probe.model_dump_json())
    return probe


def resolve_compute(choice: ComputeChoice, storage: Dtype, probe: Probe) -> Compute:
    """The dtype and device of a recipe's `compute` on the probed device, for weights stored in `storage`."""
    return Compute(probe.dtype_for(storage) if choice == "auto" else choice, probe.device, probe.backend)


def emulation_warning(choice: ComputeChoice, storage: Dtype, probe: Probe) -> str:
    """A warning if the device has no units for the chosen dtype, else ""."""
    if choice == "auto" or (slowdown := probe.slowdown.get(choice, float("inf"))) < EMULATION_SLOWDOWN:
        return ""
    name = probe.accelerator or processor()
    if slowdown == float("inf"):
        return f"compute: {choice}: {name} has no matrix product in it; compute: auto takes {probe.dtype_for(storage)}"
    measured = f"a product in it takes {slowdown:.0f} times as long as in float32 (measured)"
    return f"compute: {choice} is emulated on {name}: {measured}; compute: auto takes {probe.dtype_for(storage)}"


def machine_identity(probe: Probe) -> dict[str, Any]:
    """Properties that determine measured times, for content keys: processor, threads, memory, accelerator, libraries with kernels."""
    return {
        "processor": processor(),
        "threads": threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "libraries": {name: version(name) for name in KERNEL_LIBRARIES},
        "accelerator": [probe.backend, probe.accelerator, probe.driver, probe.count],
        "drivers": [_file_text(Path(name)) for name in DRIVER_FILES] if probe.accelerator else [],
        "instructions": {name: os.environ[name] for name in INSTRUCTION_VARIABLES if name in os.environ},
    }


def machine_name(probe: Probe) -> str:
    """The machine's name for people: its accelerators, if any, and its processor."""
    if not probe.accelerator:
        return processor()
    driver = f", driver {probe.driver}" if probe.driver else ""
    return f"{probe.count} x {probe.accelerator} ({probe.backend}{driver}), {processor()}"


def _run_probe(device: str | None) -> Probe:
    """Probe in another process, so that planning imports no torch."""
    command = python(PROBE, str(threads()), *([device] if device else []))
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PROBE_TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise RunFailed(
            f"the probe of this machine gave no answer within {PROBE_TIMEOUT} s; run again, or name another --device"
        ) from error
    last = (process.stderr.strip().splitlines() or ["it printed nothing"])[-1]
    if process.returncode == BadInput.exit_code:
        raise BadInput(last)
    try:
        return Probe.model_validate_json(process.stdout.strip().splitlines()[-1])
    except (ValidationError, IndexError) as error:
        raise RunFailed(f"the probe of this machine failed (exit code {process.returncode}): {last}; try another --device") from error


def _fingerprint(device: str | None) -> str:
    """A digest of the properties that determine a probe, read without torch."""
    facts = {
        "device": device,
        "processor": processor(),
        "flags": sorted(processor_flags()),
        "threads": threads(),
        "torch": version("torch"),
        "variables": {name: os.environ.get(name) for name in INSTRUCTION_VARIABLES + DEVICE_VARIABLES},
        "drivers": [_file_text(Path(name)) for name in DRIVER_FILES],
        "devices": [_file_text(path) for pattern in DEVICE_FILES for path in sorted(Path("/").glob(pattern.lstrip("/")))],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _file_text(path: Path) -> str:
    """The text of a small file, or the name of a device file."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if path.is_file():
            return path.read_text()
    return path.name if path.exists() else ""
