"""What a method or a backend needs of packages: that they are installed, and that they serve this machine's device."""

from __future__ import annotations

from collections.abc import Iterator

from compresslab.methods.settings import Optimizer
from compresslab.recipe.places import Complaint
from compresslab.recipe.schema import Recipe
from compresslab.recipe.steps import Step
from compresslab.records.compute import Backend
from compresslab.versions import version

EXTRAS = {"gptqmodel": "gptq", "torchao": "torchao", "ray": "ray"}


def missing_package(step: Step) -> str:
    """Why the step cannot run on this installation and what to do; empty if it can."""
    for package in (*step.method.libraries, *step.config.libraries):
        if version(package) == "absent":
            target = f"'compresslab[{EXTRAS[package]}]'" if package in EXTRAS else package
            return f"{step.method.name} needs {package}, which is not installed: pip install {target}"
    return ""


def states_that_no_kernel_updates(recipe: Recipe, backend: Backend) -> Iterator[Complaint]:
    """A complaint about each step whose optimizer has states that bitsandbytes cannot update on this machine's device."""
    if backend != "mps":
        return
    for name, variant in recipe.variants.items():
        for number, step in enumerate(variant.steps):
            optimizer = getattr(step.config, "optimizer", None)
            if isinstance(optimizer, Optimizer) and optimizer.state_bits == 8:
                reason = "bitsandbytes has no 8-bit optimizer for Apple's GPU; take state_bits: 32, or --device cpu"
                yield Complaint(("variants", name, "steps", number, step.kind, "optimizer", "state_bits"), reason)


def missing_backend(backend: str) -> str:
    """Why the backend cannot run on this installation and what to do; empty if it can."""
    if backend == "vllm" and version("vllm") == "absent":
        return "vllm is not installed: pip install vllm where there is a GPU that it serves, or take backend: tree"
    return ""
