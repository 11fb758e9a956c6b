"""What a run multiplies in, and on what device. A checkpoint's own dtype is another matter: it is kept whatever computes with it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from compresslab.records.base import StoredRecord

Dtype = Literal["bfloat16", "float32", "float16"]
ComputeChoice = Literal["auto", "bfloat16", "float32", "float16"]
Backend = Literal["cpu", "cuda", "rocm", "xpu", "mps"]


class Compute(NamedTuple):
    """The dtype that matrix products are computed in, and the device that computes them.

    Attributes:
        device: as torch names it: "cpu", "cuda:0", "xpu:1", "mps".
        backend: whose kernels run there. ROCm's devices are named "cuda", too, and round otherwise.
    """

    dtype: Dtype = "float32"
    device: str = "cpu"
    backend: Backend = "cpu"

    def decides(self) -> dict[str, str]:
        """What of it decides the result of a forward or backward pass, for content keys."""
        return {"dtype": self.dtype, "backend": self.backend}

    def for_training(self) -> Compute:
        """The same for a step that trains: float16 gradients of a mean over many tokens are zero, so it computes in float32 instead."""
        return self._replace(dtype="float32") if self.dtype == "float16" else self


PROCESSOR = Compute()


class Probe(StoredRecord):
    """What a short probe of one device of this machine found.

    Attributes:
        accelerator: the device's name as its driver tells it; empty for the processor. driver: its version. count: devices of its kind.
        rates: operations per second of a square matrix product, by dtype; the largest product that the probe had time for.
        slowdown: how many times as long as in float32 a product of the same size takes, by dtype.
        bandwidth: bytes per second of a copy, read and written. memory: bytes of an accelerator's own memory; 0 where it has none.
    """

    version: Literal[1] = 1
    device: str
    backend: Backend
    accelerator: str = ""
    driver: str = ""
    count: int = 0
    rates: dict[str, float]
    slowdown: dict[str, float]
    bandwidth: float
    memory: int = 0

    def dtype_for(self, storage: Dtype) -> Dtype:
        """The compute dtype for weights stored in `storage`: that one if the device multiplies in it at least as fast as in float32.

        Weights of 16 bits are exact in float32, so the other choice costs memory and no accuracy.
        """
        return storage if self.slowdown.get(storage, float("inf")) <= 1 else "float32"
