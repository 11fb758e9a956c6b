"""Devices by torch's own names: CUDA, ROCm, XPU and MPS through `torch.accelerator`, and the processor."""

from __future__ import annotations

from typing import Any

import torch

from compresslab.errors import BadInput
from compresslab.records.compute import Backend, Compute


def find_device(requested: str | None = None) -> torch.device:
    """The device with torch's name `requested`, or else this machine's accelerator, or else the processor. Must not run at import.

    Raises:
        BadInput: this machine has no such device; the message names the existing ones.
    """
    available = devices()
    if requested is None:
        return torch.device(available[0])
    name = f"{requested}:0" if any(device == f"{requested}:0" for device in available) else requested
    if name not in available:
        raise BadInput(f"--device {requested}: this machine has no such device; there is: {', '.join(available)}")
    return torch.device(name)


def devices() -> list[str]:
    """Names of all devices in torch, accelerators first."""
    kind = torch.accelerator.current_accelerator(check_available=True) if torch.accelerator.is_available() else None
    if kind is None:
        return ["cpu"]
    count = torch.accelerator.device_count()
    return [*([kind.type] if kind.type == "mps" else [f"{kind.type}:{number}" for number in range(count)]), "cpu"]


def visible_devices() -> int:
    """The number of accelerators that this process sees, at least 1."""
    return max(1, torch.accelerator.device_count())


def backend_of(device: torch.device) -> Backend:
    """The backend whose kernels run on a device.

    Raises:
        BadInput: the accelerator is not supported.
    """
    if device.type == "cuda":
        return "rocm" if torch.version.hip else "cuda"
    if device.type in ("cpu", "xpu", "mps"):
        return device.type  # type: ignore[return-value]  # one of the literals
    raise BadInput(f"compresslab runs on cpu, cuda, rocm, xpu and mps, and this device is {device.type}; take --device cpu")


def computed(dtype: torch.dtype, device: torch.device) -> dict[str, str]:
    """Dtype and backend of passes in `dtype` on `device`, as `Compute.decides` returns them for records."""
    return {"dtype": str(dtype).removeprefix("torch."), "backend": backend_of(device)}


def torch_dtype(compute: Compute) -> torch.dtype:
    """The compute dtype as a `torch.dtype`."""
    dtype: torch.dtype = getattr(torch, compute.dtype)
    return dtype


def placement(device: torch.device | str) -> dict[str, Any]:
    """Arguments for `from_pretrained` that put a model on a device; none for the processor, which is the default."""
    return {"device_map": str(device)} if torch.device(device).type != "cpu" else {}


def synchronize(device: torch.device | str) -> None:
    """Wait until a device has finished its queued work. A processor queues none."""
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize(torch.device(device))


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of the random generators that computations on a device use, by name."""
    states = {"random.cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states["random.accelerator"] = _generators(device).get_rng_state(*_device_arguments(device))
    return states


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Restore the states that `random_states` returned."""
    torch.set_rng_state(states["random.cpu"])
    if "random.accelerator" in states and device.type != "cpu":
        _generators(device).set_rng_state(states["random.accelerator"], *_device_arguments(device))


def _generators(device: torch.device) -> Any:
    return torch.get_device_module(device)


def _device_arguments(device: torch.device) -> tuple[torch.device, ...]:
    """The device argument of generator functions. MPS has one device, so its functions take none."""
    return () if device.type == "mps" else (device,)
