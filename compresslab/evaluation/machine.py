"""This machine as the roofline sees it: what its memory and its matrix products really reach, measured once."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from compresslab.records import MachineSpeed

# Larger than any cache of a processor, small enough for a laptop.
BUFFER_BYTES = 512 * 2**20
# Rows of activations against a square weight; large enough that the product, not its launch, is timed.
PRODUCT = 3072
ROUNDS = 7


def measure_machine(device: str) -> MachineSpeed:
    """Bandwidth of a large copy (bytes read and written) and operations per second of a bfloat16 matrix product.

    The best of several rounds: other programs can only make a round slower.
    """
    source = torch.ones(BUFFER_BYTES // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    copy = _best(lambda: target.copy_(source), device)
    left = torch.randn(PRODUCT, PRODUCT, device=device).to(torch.bfloat16)
    right = torch.randn(PRODUCT, PRODUCT, device=device).to(torch.bfloat16)
    product = _best(lambda: left @ right, device)
    return MachineSpeed(bandwidth=2 * BUFFER_BYTES / copy, flops=2 * PRODUCT**3 / product, threads=torch.get_num_threads(), device=device)


def _best(work: Callable[[], object], device: str) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        if device != "cpu":
            torch.accelerator.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)
