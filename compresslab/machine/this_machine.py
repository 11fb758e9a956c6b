"""This machine: what identifies it, and how fast each of its devices multiplies in each dtype, probed once and remembered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from pydantic import ValidationError

from compresslab.errors import BadInput, RunFailed
from compresslab.files import atomic_write
from compresslab.machine.processor import processor, processor_flags, threads
from compresslab.pins import cache_folder
from compresslab.records import StudyNote, UnreadableRecord, read_record
from compresslab.records.compute import Compute, ComputeChoice, Dtype, Probe
from compresslab.versions import version

# What hides instructions from the libraries' kernels, and devices from torch.
INSTRUCTION_VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
DEVICE_VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
# Where the drivers of accelerators tell of themselves, without their libraries.
DRIVER_FILES = ("/proc/driver/nvidia/version", "/sys/module/amdgpu/version", "/sys/module/xe/version", "/sys/module/i915/version")
DEVICE_FILES = (
    "/proc/driver/nvidia/gpus/*/information",
    "/sys/class/kfd/kfd/topology/nodes/*/name",
    # Those that this process may open: a container or a job may see fewer than the drivers tell of.
    "/dev/nvidia[0-9]*",
    "/dev/dxg",
    "/dev/kfd",
    "/dev/dri/renderD*",
)
# Packages whose kernels a measured time depends on.
KERNEL_LIBRARIES = ("torch", "transformers", "bitsandbytes", "compressed-tensors", "gptqmodel", "torchao")
PATIENCE = 300  # seconds; importing torch from a cold network disk takes minutes
EMULATED = 2.0  # times as long as in float32: the machine has no units for the dtype


class Machine(NamedTuple):
    """A machine as a plan needs it.

    Attributes:
        compute: what a study computes in there, and on what. facts: what decides measured times. name: in words.
        probe: what was measured; `None` of a machine that is known from a store's note alone. warning: what a user should know.
    """

    compute: Compute
    facts: dict[str, Any]
    name: str
    probe: Probe | None = None
    warning: str = ""


def this_machine_for(choice: ComputeChoice, storage: Dtype, device: str | None = None) -> Machine:
    """This machine, for a recipe's `compute` and weights stored in `storage`. Raises like `probed`."""
    found = probed(device)
    compute = compute_of(choice, storage, found)
    return Machine(compute, machine_identity(found), machine_name(found), found, emulation_warning(choice, storage, found))


def ran_on(note: StudyNote, choice: ComputeChoice) -> Machine | None:
    """The machine of the last run that a study's note tells of, and that the recipe's `compute` allows; `None` if it tells of none."""
    last = [note.last, *sorted(note.runs)]
    for run in (note.runs[key] for key in last if key in note.runs):
        if choice in ("auto", run.compute.dtype):
            return Machine(run.compute, run.facts, run.machine)
    return None


def probed(device: str | None = None) -> Probe:
    """What the probe found on a device, or on this machine's own choice of one; from the user's cache after the first time.

    Raises:
        BadInput: there is no such device.
        RunFailed: the probe's process ended without an answer.
    """
    place = cache_folder() / "machines" / f"{_fingerprint(device)}.json"
    with contextlib.suppress(UnreadableRecord):
        return read_record(place, Probe, "it is made again")
    found = _probe(device)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs two seconds a run and nothing else
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(place, found.model_dump_json())
    return found


def compute_of(choice: ComputeChoice, storage: Dtype, found: Probe) -> Compute:
    """What a recipe's `compute` comes to on the probed device, for weights stored in `storage`."""
    return Compute(found.dtype_for(storage) if choice == "auto" else choice, found.device, found.backend)


def emulation_warning(choice: ComputeChoice, storage: Dtype, found: Probe) -> str:
    """What a user should know who asks for a dtype that the device has no units for; empty if there is nothing to say."""
    if choice == "auto" or (times := found.slowdown.get(choice, float("inf"))) < EMULATED:
        return ""
    name = found.accelerator or processor()
    if times == float("inf"):
        return f"compute: {choice}: {name} has no matrix product in it; compute: auto takes {found.dtype_for(storage)}"
    takes = f"a product in it takes {times:.0f} times as long as in float32 (measured)"
    return f"compute: {choice} is emulated on {name}: {takes}; compute: auto takes {found.dtype_for(storage)}"


def machine_identity(found: Probe) -> dict[str, Any]:
    """What decides measured times, for content keys: processor, threads, memory, the accelerator, and the libraries with kernels."""
    return {
        "processor": processor(),
        "threads": threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "libraries": {name: version(name) for name in KERNEL_LIBRARIES},
        "accelerator": [found.backend, found.accelerator, found.driver, found.count],
        "drivers": [_text(Path(name)) for name in DRIVER_FILES] if found.accelerator else [],
        "instructions": {name: os.environ[name] for name in INSTRUCTION_VARIABLES if name in os.environ},
    }


def machine_name(found: Probe) -> str:
    """The machine in words: what computes, and how much of it there is."""
    if not found.accelerator:
        return processor()
    driver = f", driver {found.driver}" if found.driver else ""
    return f"{found.count} x {found.accelerator} ({found.backend}{driver}), {processor()}"


def _probe(device: str | None) -> Probe:
    """Probe in a process of its own: whoever plans imports no torch."""
    command = [sys.executable, "-m", "compresslab.models.probe", str(threads()), *([device] if device else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise RunFailed(f"the probe of this machine gave no answer within {PATIENCE} s; run again, or name another --device") from error
    last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
    if done.returncode == BadInput.exit_code:
        raise BadInput(last)
    try:
        return Probe.model_validate_json(done.stdout.strip().splitlines()[-1])
    except (ValidationError, IndexError) as error:
        raise RunFailed(f"the probe of this machine failed (exit code {done.returncode}): {last}; try another --device") from error


def _fingerprint(device: str | None) -> str:
    """A digest of what decides a probe, asked without torch: whoever has the same one has the same machine."""
    facts = {
        "device": device,
        "processor": processor(),
        "flags": sorted(processor_flags()),
        "threads": threads(),
        "torch": version("torch"),
        "variables": {name: os.environ.get(name) for name in INSTRUCTION_VARIABLES + DEVICE_VARIABLES},
        "drivers": [_text(Path(name)) for name in DRIVER_FILES],
        "devices": [_text(path) for pattern in DEVICE_FILES for path in sorted(Path("/").glob(pattern.lstrip("/")))],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _text(path: Path) -> str:
    """A small file's text; of a device its name."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if path.is_file():
            return path.read_text()
    return path.name if path.exists() else ""
