"""Measures this machine for the roofline model: the rates of its memory and of its matrix products."""

from __future__ import annotations

import torch

from compresslab.models.device import torch_dtype
from compresslab.models.probe import fastest
from compresslab.records import MachineSpeed
from compresslab.records.compute import Compute

# Larger than any cache of a processor, small enough for a laptop.
BUFFER_BYTES = 512 * 2**20
# Sizes of square matrices. At the largest one, the launch takes no noticeable time. A machine that would exceed `BUDGET` is measured with
# a smaller one.
PRODUCTS = (768, 1536, 3072)
# An accelerator reaches its rate at larger ones only: an H100 580 TFLOP/s at 3,072 and 720 at 4,096.
LARGE_PRODUCTS = (4096, 8192)
ROUNDS = 7
# Seconds for all rounds of one product, and for those of the copy.
BUDGET = 4.0
GROWTH = 8  # of the operations from one size to the next


def measure_machine(compute: Compute) -> MachineSpeed:
    """Bandwidth of a large copy (bytes read and written) and operations per second of a matrix product in the compute dtype.

    Both are the best of several rounds, since other programs can only make a round slower.
    """
    device, dtype = torch.device(compute.device), torch_dtype(compute)
    source = torch.ones(BUFFER_BYTES // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    copy = fastest(lambda: target.copy_(source), device, ROUNDS, BUDGET)
    flops, seconds = 0.0, 0.0
    for size in PRODUCTS if device.type == "cpu" else PRODUCTS + LARGE_PRODUCTS:
        if seconds * GROWTH > BUDGET:
            break
        left, right = torch.randn(2, size, size, device=device).to(dtype)
        seconds = fastest(lambda: left @ right, device, ROUNDS, BUDGET)  # noqa: B023
        flops = max(flops, 2 * size**3 / seconds)
    threads = torch.get_num_threads()
    return MachineSpeed(bandwidth=2 * BUFFER_BYTES / copy, flops=flops, threads=threads, device=compute.device, dtype=compute.dtype)
