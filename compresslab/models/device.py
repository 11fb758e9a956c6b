"""Where models live: on the accelerator if there is one, else on the processor."""

from __future__ import annotations

from typing import Any

import torch


def device_name() -> str:
    """ "cuda:0" (which is what ROCm calls it, too) or "cpu". Asked in the worker, never while a module is imported."""
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def placement() -> dict[str, Any]:
    """Arguments for `from_pretrained` that put a model there; none on a processor, where it is anyway."""
    return {"device_map": device_name()} if torch.cuda.is_available() else {}
