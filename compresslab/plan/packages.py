"""Packages that a method or a backend needs and that a plain installation may lack."""

from __future__ import annotations

from compresslab.recipe.steps import Step
from compresslab.versions import version

EXTRAS = {"gptqmodel": "gptq", "torchao": "torchao"}


def missing_package(step: Step) -> str:
    """Why the step cannot run on this installation and what to do, or nothing."""
    for package in step.method.libraries:
        if version(package) == "absent":
            wanted = f"'compresslab[{EXTRAS[package]}]'" if package in EXTRAS else package
            return f"{step.method.name} needs {package}, which is not installed: pip install {wanted}"
    return ""


def missing_backend(backend: str) -> str:
    """Why nothing can be evaluated by this backend on this installation and what to do, or nothing."""
    if backend == "vllm" and version("vllm") == "absent":
        return "vllm is not installed: pip install vllm where there is a GPU that it serves, or take backend: tree"
    return ""
