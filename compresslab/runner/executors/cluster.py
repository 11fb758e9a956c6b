"""A Ray cluster: connecting to it, and what must hold of its hosts before anything runs on them."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from compresslab.errors import BadInput
from compresslab.files import make_folder
from compresslab.machine.this_machine import ProbedMachine
from compresslab.runner.executors import host_tasks
from compresslab.runner.executors.host_tasks import HostFacts
from compresslab.versions import version

# Seconds in which a host tells about itself: a worker process of Ray starts, imports this package, and may probe its devices.
TO_LOOK = 600
TO_CHECK = 60  # seconds in which it must say that it is Ray
TO_ANSWER = 10  # seconds in which the head of a cluster answers
INSTALL = "Ray is not installed: pip install 'compresslab[ray]' on every host"


class ClusterHost(NamedTuple):
    """A host of the cluster that can run nodes.

    Attributes:
        node: Ray's id of it. processors, accelerators, memory: what Ray may give to tasks there; memory in bytes.
    """

    node: str
    facts: HostFacts
    processors: int
    accelerators: int
    memory: float

    @property
    def machine(self) -> ProbedMachine:
        """What it computes on."""
        assert self.facts.machine is not None
        return self.facts.machine

    @property
    def kind(self) -> tuple[str, str]:
        """Its backend and the name of its accelerator, by which hosts are alike; the name is empty for a processor."""
        return self.machine.probe.backend, self.machine.probe.accelerator

    @property
    def usable_accelerators(self) -> int:
        """The accelerators that nodes compute on: none if it computes on its processor."""
        return self.accelerators if self.machine.probe.accelerator else 0


class Cluster(NamedTuple):
    """A cluster whose hosts share a store.

    Attributes:
        hosts: those that can run nodes, all of one kind: with accelerators, if any host has one.
        machine: the machine that plans are made for, which is that of the first host; times are measured on its like alone.
        left_out: why other hosts run nothing, a sentence each.
    """

    hosts: tuple[ClusterHost, ...]
    machine: ProbedMachine
    left_out: tuple[str, ...]

    def told(self) -> list[str]:
        """The cluster in sentences, for people."""
        processors, accelerators = sum(host.processors for host in self.hosts), sum(host.usable_accelerators for host in self.hosts)
        counts = f"accelerators: {accelerators}" if accelerators else f"processors: {processors}"
        return [f"cluster: {', '.join(host.facts.name for host in self.hosts)}; {counts}", *self.left_out]


@contextlib.contextmanager
def connected(address: str | None, store: Path, device: str | None = None) -> Iterator[Cluster]:
    """The cluster at an address, for the time of a `with` block.

    Args:
        address: `host:port` of its head. Default: $RAY_ADDRESS, or a cluster that runs on this machine.
        store: the folder of results, which every host must see under this path.
        device: the device to compute on, by torch's name ("cpu"); without it, the hosts' accelerators, if any has one.

    Raises:
        BadInput: Ray is not installed, nobody answers, a host does not reach the store, or its versions are others.
    """
    if version("ray") == "absent":
        raise BadInput(INSTALL)
    if device is not None and ":" in device:
        raise BadInput(f"--device {device}: Ray gives each node its accelerator; name its kind alone ({device.partition(':')[0]}), or cpu")
    import ray

    where = address or os.environ.get("RAY_ADDRESS") or "auto"
    if where.startswith("ray://"):
        raise BadInput(f"--address {where}: Ray's client is not supported; run on a host of the cluster, with host:port of its head")
    if ray.is_initialized():
        raise BadInput("this process is connected to a Ray cluster already; let compresslab connect, or call ray.shutdown() first")
    _check_answer(where)
    try:
        with _own_signals():
            ray.init(address=where, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise BadInput(_unanswered(where, error)) from error
    try:
        _silence()
        yield _examined(*_looked_at(store.absolute(), device), device)
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this command's handling of SIGTERM, which Ray replaces when it connects."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)


def _silence() -> None:
    """Let Ray not print the last lines of a lost host's log into the progress of a run. It has no setting for that."""
    with contextlib.suppress(ImportError):
        from ray._private import worker

        vars(worker)["print_to_stdstream"] = lambda *_, **__: None


def _check_answer(where: str) -> None:
    """Look whether the head of a cluster answers at an address: Ray itself tries for minutes.

    Raises:
        BadInput: it does not.
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    # For "auto" Ray looks up the address, which may be that of a cluster that is gone.
    if where != "auto":
        host, _, port = where.rpartition(":")
        if not host or not port.isdecimal():
            raise BadInput(f"--address {where}: give the head of the cluster as host:port, as `ray start --head` prints it")
        try:
            socket.create_connection((host, int(port)), TO_ANSWER).close()
        except (OSError, OverflowError) as error:
            raise BadInput(_unanswered(where, error)) from error
        command += ["--address", where]  # something else may listen there
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TO_CHECK)
    except subprocess.TimeoutExpired as error:
        raise BadInput(_unanswered(where, error)) from error
    if asked.returncode:
        said = (asked.stderr.strip().splitlines() or ["something else listens there"])[-1]
        raise BadInput(_unanswered(where, RuntimeError(said)))


def _unanswered(where: str, error: Exception) -> str:
    said = " ".join(str(error).split())[:200]
    if where == "auto":
        return (
            f"no Ray cluster runs here ({said}); start one with `ray start --head`, after `ray stop` where one has died, or name one with "
            "--address host:port"
        )
    return f"--address {where}: no Ray cluster answers there ({said}); `ray status --address {where}` must find it from here"


def alive() -> dict[str, dict[str, Any]]:
    """The nodes of the cluster that live, as Ray describes them, by id."""
    import ray

    return {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]


def on(node: str, **resources: Any) -> dict[str, Any]:
    """Options of a Ray task that runs on one node and nowhere else, and is not tried again by Ray."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=node, soft=False), "max_retries": 0, **resources}


def _looked_at(store: Path, device: str | None) -> tuple[list[ClusterHost], list[str]]:
    """All hosts, each after a look at itself and at the store; and the names of those that were lost meanwhile."""
    import ray

    folder = store / "hosts"
    make_folder(folder)
    token, secret = folder / f"{secrets.token_hex(8)}.token", secrets.token_hex(16)
    token.write_text(secret, encoding="utf-8")
    try:
        nodes = alive()
        task = ray.remote(host_tasks.look)
        asked = {node: task.options(**on(node, num_cpus=0)).remote(token, f"{token.stem}.{node}", device) for node in nodes}
        ray.wait(list(asked.values()), num_returns=len(asked), timeout=TO_LOOK)
        found = {node: _answer(nodes[node], reference) for node, reference in asked.items()}
        living = alive()
        # What a host has answered is no use when it is gone.
        hosts = [_host(nodes[node], facts, folder / f"{token.stem}.{node}", secret) for node, facts in found.items() if node in living]
        return hosts, [facts.name for node, facts in found.items() if node not in living]
    finally:
        for file in folder.glob(f"{token.stem}.*"):
            file.unlink(missing_ok=True)


def _answer(described: Mapping[str, Any], reference: Any) -> HostFacts:
    import ray

    name = described["NodeManagerHostname"]
    try:
        facts: HostFacts = ray.get(reference, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return HostFacts(name, {}, None, f"gave no answer within {TO_LOOK} s")
    except ray.exceptions.RayError as error:
        said = (str(error).strip().splitlines() or ["no reason given"])[-1]
        return HostFacts(name, {}, None, f"cannot run compresslab ({said[:300]}); install the same version of it there")
    return facts


def _host(described: Mapping[str, Any], facts: HostFacts, answer: Path, secret: str) -> ClusterHost:
    resources = described["Resources"]
    if not facts.trouble and (not answer.is_file() or answer.read_text(encoding="utf-8") != secret):
        facts = facts._replace(trouble=f"wrote into another folder than {answer.parent.parent} of this host; mount the same store there")
    count = int(resources.get("GPU", 0))
    return ClusterHost(described["NodeID"], facts, int(resources.get("CPU", 0)), count, resources.get("memory", float("inf")))


def _examined(hosts: Sequence[ClusterHost], lost: Sequence[str] = (), device: str | None = None) -> Cluster:
    """The cluster of these hosts, without those that were lost.

    Hosts with accelerators are taken before others, and of several kinds of them the one of which there are most.

    Args:
        device: as in `connected`.

    Raises:
        BadInput: one of them cannot run nodes, or would give other results.
    """
    here = host_tasks.versions()
    troubles = []
    for host in hosts:
        differing = [f"{name} {theirs}, here {here[name]}" for name, theirs in host.facts.versions.items() if theirs != here[name]]
        if host.facts.trouble:
            troubles.append(f"host {host.facts.name} {host.facts.trouble}")
        elif differing:
            troubles.append(f"host {host.facts.name} has other versions, whose results have other bytes: {'; '.join(differing)}")
        elif host.accelerators and not host.machine.probe.accelerator and device is None:
            troubles.append(
                f"host {host.facts.name} has {host.accelerators} accelerators by Ray, and torch sees none there; install a torch for them, "
                "or take --device cpu"
            )
    if troubles:
        raise BadInput("the cluster cannot be used:\n" + "\n".join(f"  {trouble}" for trouble in troubles))
    kinds: dict[tuple[str, str], list[ClusterHost]] = {}
    for host in sorted((host for host in hosts if host.processors), key=lambda host: (host.facts.name, host.node)):
        kinds.setdefault(host.kind, []).append(host)
    if not kinds:
        raise BadInput("the cluster cannot be used: no host of it has a processor that Ray may give to a task (`ray status`)")
    kind = max(kinds, key=lambda kind: (sum(host.usable_accelerators for host in kinds[kind]), len(kinds[kind]), kind))
    usable = tuple(kinds[kind])
    left_out = [f"host {host.facts.name} runs nothing: {_why_left_out(host, kind)}" for host in hosts if host not in usable]
    left_out += [f"host {name} was lost while it was looked at; it runs nothing" for name in lost]
    return Cluster(usable, usable[0].machine, tuple(left_out))


def _why_left_out(host: ClusterHost, kind: tuple[str, str]) -> str:
    if not host.processors:
        return "Ray may give no processor of it to a task"
    return f"it computes on {host.kind[1] or host.kind[0]}, and the study on {kind[1] or kind[0]}"
