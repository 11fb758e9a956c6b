"""A Ray cluster: connecting to it, and what must hold of its hosts before anything runs on them."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
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
        processors, accelerators = sum(host.processors for host in self.hosts), sum(host.accelerators for host in self.hosts)
        counts = f"{accelerators} accelerators" if accelerators else f"{processors} processors"
        return [f"cluster: {len(self.hosts)} hosts with {counts} ({', '.join(host.facts.name for host in self.hosts)})", *self.left_out]


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
    import ray

    where = address or os.environ.get("RAY_ADDRESS") or "auto"
    if where.startswith("ray://"):
        raise BadInput(f"--address {where}: Ray's client is not supported; run on a host of the cluster, with host:port of its head")
    _check_answer(where)
    try:
        ray.init(address=where, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise BadInput(_unanswered(where, error)) from error
    try:
        _silence()
        yield _examined(*_looked_at(store, device))
    finally:
        ray.shutdown()


def _silence() -> None:
    """Let Ray not print the last lines of a lost host's log into the progress of a run. It has no setting for that."""
    with contextlib.suppress(ImportError):
        from ray._private import worker

        vars(worker)["print_to_stdstream"] = lambda *_, **__: None


def _check_answer(where: str) -> None:
    """Look whether anybody listens at the address of a head: Ray itself tries for minutes.

    Raises:
        BadInput: nobody does.
    """
    host, _, port = where.rpartition(":")
    if where in ("auto", "local"):
        return
    if not host or not port.isdecimal():
        raise BadInput(f"--address {where}: give the head of the cluster as host:port, as `ray start --head` prints it")
    try:
        socket.create_connection((host, int(port)), TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise BadInput(_unanswered(where, error)) from error


def _unanswered(where: str, error: Exception) -> str:
    said = " ".join(str(error).split())[:200]
    if where == "auto":
        return f"no Ray cluster runs here ({said}); start one with `ray start --head`, or name one with --address host:port"
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


def _examined(hosts: Sequence[ClusterHost], lost: Sequence[str] = ()) -> Cluster:
    """The cluster of these hosts, without those that were lost.

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
    if troubles:
        raise BadInput("the cluster cannot be used:\n" + "\n".join(f"  {trouble}" for trouble in troubles))
    accelerated = [host for host in hosts if host.machine.probe.accelerator and host.accelerators]
    kind = (accelerated or [host for host in hosts if host.processors])[:1]
    if not kind:
        raise BadInput("the cluster cannot be used: no host of it has a processor that Ray may give to a task (`ray status`)")
    backend = kind[0].machine.probe.backend
    usable = tuple(
        host for host in hosts if host.machine.probe.backend == backend and host.processors and (host in accelerated) == bool(accelerated)
    )
    left_out = [
        f"host {host.facts.name} runs nothing: it computes on {host.machine.probe.backend}, and the study on {backend}"
        for host in hosts
        if host not in usable
    ]
    left_out += [f"host {name} was lost while it was looked at; it runs nothing" for name in lost]
    return Cluster(usable, kind[0].machine, tuple(left_out))
