"""Packages that a method or a backend needs and that a plain installation may lack."""

from __future__ import annotations

from compresslab.recipe.steps import Step
from compresslab.versions import version

EXTRAS = {"gptqmodel": "gptq", "torchao": "torchao", "ray": "ray"}


def missing_package(step: Step) -> str:
    """Why the step cannot run on this installation and what to do; empty if it can."""
    for package in step.method.libraries:
        if version(package) == "absent":
            target = f"'compresslab[{EXTRAS[package]}]'" if package in EXTRAS else package
            return f"{step.method.name} needs {package}, which is not installed: pip install {target}"
    return ""


def missing_backend(backend: str) -> str:
    """Why the backend cannot run on this installation and what to do; empty if it can."""
    if backend == "vllm" and version("vllm") == "absent":
        return "vllm is not installed: pip install vllm where there is a GPU that it serves, or take backend: tree"
    return ""
