"""What runs on the hosts of a Ray cluster: the look at a host before anything runs, and an attempt to make a node."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import socket
from pathlib import Path
from typing import NamedTuple

import compresslab
from compresslab.errors import CompresslabError
from compresslab.machine.this_machine import DEVICE_VARIABLES, Machine, ProbedMachine, probed
from compresslab.plan.build import build
from compresslab.plan.graph import Plan
from compresslab.runner.attempt import Outcome, attempt
from compresslab.runner.messages import Share
from compresslab.runner.processes import Listener
from compresslab.store.store import Store
from compresslab.versions import version

# What two hosts must have in the same version, or one key would stand for two results.
COMPARED = ("torch", "transformers", "lm-eval", "safetensors")


class HostFacts(NamedTuple):
    """What a host says of itself.

    Attributes:
        name: of the host. versions: of Python, of the packages that decide results, and of this package's code, by name.
        machine: what it computes on; `None` if it cannot tell. trouble: why it cannot run nodes, empty if it can.
    """

    name: str
    versions: dict[str, str]
    machine: ProbedMachine | None
    trouble: str = ""


def versions() -> dict[str, str]:
    """The versions that decide results, of this host."""
    # A build for other devices ("2.13.0+cu130") counts as the same version, as it does in content keys.
    installed = {name: version(name).partition("+")[0] for name in COMPARED}
    return {"Python": platform.python_version(), **installed, "compresslab": f"{compresslab.__version__} (code {_code()})"}


@functools.cache
def _code() -> str:
    """A digest of the package's code: results of other code must not have the same keys."""
    root, digest = Path(compresslab.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def look(token: Path, answer: str, device: str | None) -> HostFacts:
    """Look whether this host can run nodes: it reads the token in the store, and writes an answer beside it.

    Args:
        token: a file in the store that the driver has just written. answer: what this host is to write, in a file of that name.
        device: the device to compute on, by torch's name; without it, the one that the host chooses.
    """
    name, machine, trouble = socket.gethostname(), None, ""
    try:
        told = token.read_text(encoding="utf-8")
    except OSError as error:
        return HostFacts(name, versions(), None, f"does not see the store {token.parent.parent} ({error.strerror}); mount it there")
    try:
        (token.parent / answer).write_text(told, encoding="utf-8")
    except OSError as error:
        return HostFacts(name, versions(), None, f"cannot write into the store {token.parent.parent} ({error.strerror})")
    try:
        machine = probed(device)
    except CompresslabError as error:
        trouble = str(error)
    return HostFacts(name, versions(), machine, trouble)


def other_nodes(plan: Plan, directory: Path) -> list[str]:
    """The nodes of a plan that would be others here, because a model, a text, a package or code is another one on this host.

    Args:
        directory: the working folder of the command, from which the recipe's paths may be.

    Raises:
        BadInput: the recipe cannot be planned here, because what it names does not exist. OSError: the folder does not exist.
    """
    os.chdir(directory)
    machine = Machine(plan.compute, plan.machine_facts, plan.machine, plan.probe)
    own = {node.key for node in build(plan.recipe, machine, trust_code=plan.trust_code).nodes}
    return [node.label for node in plan.nodes if node.key not in own]


def try_node(plan: Plan, key: str, root: Path, threads: int, directory: Path, asked: str) -> Outcome:
    """Try to make a node on this host, with the accelerators that Ray has given to this task.

    Args:
        directory: as in `other_nodes`. asked: what tells this attempt from others.
    """
    os.chdir(directory)
    # Ray shows a task its accelerators by these variables. A process that waits for tasks keeps its workers' parent, which has others.
    environment = {name: os.environ[name] for name in DEVICE_VARIABLES if name in os.environ}
    devices = tuple(name for value in environment.values() for name in value.split(",") if name)
    return attempt(plan.node(key), plan, _store(root), Share(threads, environment, devices, asked), Listener)


@functools.cache
def _store(root: Path) -> Store:
    """The store, which remembers which files it has read in this process."""
    return Store(root)
