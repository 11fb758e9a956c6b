"""Devices by torch's own names: CUDA, ROCm, XPU and MPS through `torch.accelerator`, and the processor."""

from __future__ import annotations

from typing import Any

import torch

from compresslab.errors import BadInput
from compresslab.records.compute import Backend, Compute


def find_device(asked: str | None = None) -> torch.device:
    """The device `asked` for by torch's name, or this machine's accelerator, or the processor. Never asked while a module is imported.

    Raises:
        BadInput: there is no such device here; the message names those that there are.
    """
    there = devices()
    if asked is None:
        return torch.device(there[0])
    name = f"{asked}:0" if any(device == f"{asked}:0" for device in there) else asked
    if name not in there:
        raise BadInput(f"--device {asked}: this machine has no such device; there is: {', '.join(there)}")
    return torch.device(name)


def devices() -> list[str]:
    """All devices by torch's names, accelerators first."""
    kind = torch.accelerator.current_accelerator(check_available=True) if torch.accelerator.is_available() else None
    if kind is None:
        return ["cpu"]
    count = torch.accelerator.device_count()
    return [*([kind.type] if kind.type == "mps" else [f"{kind.type}:{number}" for number in range(count)]), "cpu"]


def backend_of(device: torch.device) -> Backend:
    """Whose kernels run on a device.

    Raises:
        BadInput: an accelerator that compresslab was never tried on.
    """
    if device.type == "cuda":
        return "rocm" if torch.version.hip else "cuda"
    if device.type in ("cpu", "xpu", "mps"):
        return device.type  # type: ignore[return-value]  # one of the literals
    raise BadInput(f"compresslab runs on cpu, cuda, rocm, xpu and mps, and this device is {device.type}; take --device cpu")


def computed(dtype: torch.dtype, device: torch.device) -> dict[str, str]:
    """What a record says of passes in `dtype` on `device`: the same two words that `Compute.decides` gives."""
    return {"dtype": str(dtype).removeprefix("torch."), "backend": backend_of(device)}


def torch_dtype(compute: Compute) -> torch.dtype:
    """The compute dtype as torch's own."""
    dtype: torch.dtype = getattr(torch, compute.dtype)
    return dtype


def placement(device: torch.device | str) -> dict[str, Any]:
    """Arguments for `from_pretrained` that put a model on a device; none for the processor, where it is anyway."""
    return {"device_map": str(device)} if torch.device(device).type != "cpu" else {}


def synchronize(device: torch.device | str) -> None:
    """Wait until a device has computed what it was given; a processor has already."""
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize(torch.device(device))


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of the random generators that a computation on a device draws from, by name."""
    states = {"random.cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states["random.accelerator"] = _generators(device).get_rng_state(*_which(device))
    return states


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Put random generators into states that `random_states` gave."""
    torch.set_rng_state(states["random.cpu"])
    if "random.accelerator" in states and device.type != "cpu":
        _generators(device).set_rng_state(states["random.accelerator"], *_which(device))


def _generators(device: torch.device) -> Any:
    return torch.get_device_module(device)


def _which(device: torch.device) -> tuple[torch.device, ...]:
    """MPS has one device and its functions take none."""
    return () if device.type == "mps" else (device,)
