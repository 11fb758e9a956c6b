"""Measures how fast a device multiplies in each dtype, in less than two seconds.

`python -m compresslab.models.probe [THREADS [DEVICE]]` prints it as JSON.
"""

from __future__ import annotations

import contextlib
import math
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from compresslab.errors import BadInput
from compresslab.models.device import backend_of, find_device, synchronize
from compresslab.records.compute import Dtype, Probe

DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16", "float16")
# Sizes of square matrices. For the fourth, a processor that emulates a dtype takes a fifth of a second and one with units for it takes
# milliseconds. An accelerator reaches its rate at the large sizes only.
SIZES = (64, 128, 256, 512, 1024)
LARGE_SIZES = (2048, 4096)
# The smallest size at which dtypes are compared; below it, the launch of the product dominates.
COMPARABLE = 128
# Seconds for all products of one dtype, and the share of them for one size.
BUDGET = 0.45
SHARE = 0.2
REPEATS = 5
COPIED_BYTES = 64 * 2**20
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
# Expected growth of the time of a product from one size to the next. Operations grow eightfold; emulated products also leave the cache.
GROWTH = 12

Clock = Callable[[], float]


def probe(device: torch.device, threads: int) -> Probe:
    """Measure products of growing size in each dtype within `BUDGET`, and the bandwidth of a copy.

    A dtype is compared with float32 at the largest size that was measured for both. A dtype in which the device cannot multiply has no
    rate. On a processor one thread is measured by its own processor time, so that other programs do not influence the choice of a dtype,
    which is stored. (Two threads that waited for each other while other programs ran took a thousand times as long for a small product.)

    Args:
        threads: number of threads of a run; the rate of one is multiplied by it.
    """
    on_processor = device.type == "cpu"
    clock = time.thread_time if on_processor else time.perf_counter
    with _threads(1 if on_processor else threads):
        times = _times(SIZES if on_processor else SIZES + LARGE_SIZES, device, clock)
        bandwidth = _bandwidth(device, clock)
    parallel = threads if on_processor else 1
    rates = {dtype: parallel * 2 * max(found) ** 3 / found[max(found)] for dtype, found in times.items() if found}
    common = {dtype: max(found.keys() & times["float32"], default=0) for dtype, found in times.items()}
    slowdown = {dtype: times[dtype][size] / times["float32"][size] for dtype, size in common.items() if size >= COMPARABLE}
    name, driver, count = accelerator(device)
    return Probe(
        device=str(device),
        backend=backend_of(device),
        accelerator=name,
        driver=driver,
        count=count,
        rates=rates,
        slowdown=slowdown,
        bandwidth=bandwidth,
        memory=memory_of(device),
    )


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def accelerator(device: torch.device) -> tuple[str, str, int]:
    """An accelerator's name, its driver's version, and the number of accelerators; empty for a processor."""
    if device.type == "cpu":
        return "", "", 0
    count = torch.accelerator.device_count()
    if device.type == "mps":
        import platform

        return platform.processor(), f"macOS {platform.mac_ver()[0]}", count
    properties = torch.get_device_module(device).get_device_properties(device)
    driver = getattr(properties, "driver_version", "") or torch.version.hip or _cuda_driver() or torch.version.cuda or ""
    return str(properties.name), str(driver), count


def memory_of(device: torch.device) -> int:
    """Bytes of an accelerator's own memory; 0 for a processor and where the accelerator shares the processor's."""
    if device.type in ("cpu", "mps"):
        return 0
    return int(torch.get_device_module(device).get_device_properties(device).total_memory)


def _cuda_driver() -> str:
    """The version of NVIDIA's driver, which torch does not tell; empty if the system does not list it."""
    try:
        found = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)\s", NVIDIA_DRIVER.read_text())
    except OSError:
        return ""
    return found[1] if found else ""


def _times(sizes: tuple[int, ...], device: torch.device, clock: Clock) -> dict[Dtype, dict[int, float]]:
    """For each dtype, the seconds of the fastest product of each size that was measured."""
    found: dict[Dtype, dict[int, float]] = {dtype: {} for dtype in DTYPES}
    spent = dict.fromkeys(DTYPES, 0.0)
    _start_libraries(sizes[0], device)
    for size in sizes:
        for dtype in DTYPES:
            smaller = found[dtype].get(size // 2, math.inf if size > sizes[0] else 0.0)
            if spent[dtype] + GROWTH * smaller > BUDGET:
                continue
            try:
                left, right = torch.randn(2, size, size, device=device).to(getattr(torch, dtype))
                start = clock()
                found[dtype][size] = fastest(lambda: left @ right, device, REPEATS, SHARE * BUDGET, clock)  # noqa: B023
                spent[dtype] += clock() - start
            except (RuntimeError, TypeError):  # no kernel for the dtype, or no memory for the size
                spent[dtype] = math.inf
    return found


def _start_libraries(size: int, device: torch.device) -> None:
    """Compute one untimed product in each dtype, since the first use of an accelerator's library may take seconds."""
    for dtype in DTYPES:
        with contextlib.suppress(RuntimeError, TypeError):
            left, right = torch.randn(2, size, size, device=device).to(getattr(torch, dtype))
            _ = left @ right
            synchronize(device)


def _bandwidth(device: torch.device, clock: Clock) -> float:
    source = torch.ones(COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED_BYTES / fastest(lambda: target.copy_(source), device, REPEATS, SHARE * BUDGET, clock)


def fastest(work: Callable[[], object], device: torch.device, repeats: int, budget: float, clock: Clock = time.perf_counter) -> float:
    """Seconds of the fastest of at most `repeats` runs of `work` within `budget` seconds. Other programs disturb it least."""
    times: list[float] = []
    while len(times) < repeats and sum(times) < budget:
        start = clock()
        work()
        synchronize(device)
        times.append(clock() - start)
    return min(times)


def main() -> None:
    """Print the probe of the device in the arguments, or of this machine's default device, as JSON.

    If there is no such device, the last line of the standard error states it, and the exit code is that of bad input.
    """
    threads, device, *_ = [*sys.argv[1:], "", ""]
    try:
        print(probe(find_device(device or None), int(threads or torch.get_num_threads())).model_dump_json())
    except BadInput as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
