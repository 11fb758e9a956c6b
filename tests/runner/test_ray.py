"""Nodes on the hosts of a real Ray cluster: two nodes on this machine."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from runner.test_killed_workers import results

from compresslab.errors import BadInput
from compresslab.machine.this_machine import ProbedMachine
from compresslab.models.progress import Amount
from compresslab.plan.graph import Node
from compresslab.plan.prepare import prepare
from compresslab.records.compute import Probe
from compresslab.runner.executors import cluster as clusters
from compresslab.runner.executors import host_tasks
from compresslab.runner.executors.cluster import ClusterHost, connected
from compresslab.runner.executors.host_tasks import HostFacts
from compresslab.runner.executors.local import LocalExecutor
from compresslab.runner.executors.ray import RayExecutor
from compresslab.runner.processes import Listener
from compresslab.runner.run import run
from compresslab.runner.watcher import Watcher
from compresslab.store.store import Store

pytest.importorskip("ray")
REAL = pytest.mark.slow
MARK = "COMPRESSLAB_TEST_CLUSTER"


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two nodes on this machine, each with one processor."""
    from ray.cluster_utils import Cluster

    # The hosts import this checkout, as an installation on each of them would be.
    monkeypatch.setenv(MARK, str(os.getpid()))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def undisturbed(recipe: Path, tmp_path: Path) -> dict[str, bytes]:
    plan, store = prepare(recipe), Store(tmp_path / "undisturbed")
    assert not run(plan, store, Watcher(), LocalExecutor(plan, store, 1, threads=1)).failures
    return results(store)


class Hosts(Watcher, Listener):
    """Notes what is told of which node."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def starting(self, node: Node, estimated: float | None) -> Listener:
        self.lines.append(f"{node.label} starts")
        return self

    def ended(self, node: Node, seconds: float, failure: str) -> None:
        self.lines.append(f"{node.label} ended{failure}")

    def again(self, node: Node, why: str) -> None:
        self.lines.append(f"{node.label} again: {why}")


@REAL
def test_a_cluster_gives_the_results_of_one_machine(recipe: Path, tmp_path: Path, two_nodes: Any, undisturbed: dict[str, bytes]) -> None:
    store, told = Store(tmp_path / "store"), Hosts()
    with connected(two_nodes.address, store.root) as cluster:
        assert len(cluster.hosts) == 2
        plan = prepare(recipe, machine=cluster.machine)
        executor = RayExecutor(plan, store, cluster, threads=1)
        assert not run(plan, store, told, executor).failures
    assert results(store) == undisturbed
    labels = [node.label for node in plan.nodes]
    assert sorted(line for line in told.lines if line.endswith("starts")) == sorted(f"{label} starts" for label in labels)
    assert not list(store.staging.iterdir())
    assert not list(store.running.iterdir())


@REAL
def test_a_host_that_is_lost_loses_nothing(recipe: Path, tmp_path: Path, two_nodes: Any, undisturbed: dict[str, bytes]) -> None:
    store = Store(tmp_path / "store")
    second = two_nodes.list_all_nodes()[1]

    class Loser(Hosts):
        """Kills the second node's raylet as soon as anything runs on both."""

        def __init__(self) -> None:
            super().__init__()
            self.lost = False

        def progress(self, share: float, text: str, amount: Amount | None = None) -> None:
            if not self.lost and len(executor._asked) == 2:
                self.lost = True
                two_nodes.remove_node(second, allow_graceful=False)

    told = Loser()
    with connected(two_nodes.address, store.root) as cluster:
        plan = prepare(recipe, machine=cluster.machine)
        executor = RayExecutor(plan, store, cluster, threads=1)
        assert not run(plan, store, told, executor).failures
    assert told.lost
    assert results(store) == undisturbed


COMMAND = """
import sys
from pathlib import Path
from compresslab.__main__ import main
sys.argv[1:] = {arguments!r}
main()
"""


@REAL
def test_a_command_that_is_killed_leaves_no_worker_and_the_next_one_goes_on(
    recipe: Path, tmp_path: Path, two_nodes: Any, undisturbed: dict[str, bytes]
) -> None:
    store = Store(tmp_path / "store")
    arguments = ["run", str(recipe), "--store", str(store.root), "--reports", str(tmp_path / "reports")]
    arguments += ["--executor", "ray", "--address", two_nodes.address, "--threads", "1"]
    command = [sys.executable, "-c", COMMAND.format(arguments=arguments)]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(store.objects.glob("*")) or not list(store.running.glob("*")):
        assert driver.poll() is None
        time.sleep(0.05)
    before = {folder.name: folder.stat().st_ino for folder in store.objects.iterdir()}
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    deadline = time.monotonic() + 60
    while workers := _workers():
        assert time.monotonic() < deadline, f"{workers} outlived the command"
        time.sleep(0.2)
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert again.returncode == 0, again.stdout + again.stderr
    assert results(store) == undisturbed
    assert before.items() <= {folder.name: folder.stat().st_ino for folder in store.objects.iterdir()}.items(), "nothing was made twice"


def _workers() -> list[int]:
    """The fork servers and workers of this test's hosts, which have what its cluster has in the environment."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "environ"]):
        ours = (process.info["environ"] or {}).get(MARK) == str(os.getpid())
        if ours and process.ppid() != os.getpid() and "compresslab.runner.server" in " ".join(process.info["cmdline"] or []):
            found.append(process.info["pid"])
    return found


def test_ray_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "version", lambda _: "absent")
    with pytest.raises(BadInput, match=r"pip install 'compresslab\[ray\]'"), connected("h:1", tmp_path):
        pass


def test_an_address_that_nobody_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"--address 127\.0\.0\.1:1: no Ray cluster answers"), connected("127.0.0.1:1", tmp_path):
        pass
    with pytest.raises(BadInput, match="Ray's client is not supported"), connected("ray://h:10001", tmp_path):
        pass
    with pytest.raises(BadInput, match="give the head of the cluster as host:port"), connected("local", tmp_path):
        pass


def test_a_host_without_the_store_says_so(tmp_path: Path) -> None:
    facts = host_tasks.look(tmp_path / "elsewhere" / "hosts" / "x.token", "x.node", None)
    assert "does not see the store" in facts.trouble


def test_a_host_that_may_not_write_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "hosts" / "x.token"
    token.parent.mkdir()
    token.write_text("secret")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "write_text", refuse)
    assert "cannot write into the store" in host_tasks.look(token, "x.node", None).trouble


def host(name: str, *, backend: Any = "cpu", accelerators: int = 0, **changes: Any) -> ClusterHost:
    probe = Probe(device=backend, backend=backend, accelerator="GPU" if accelerators else "", rates={}, slowdown={}, bandwidth=1e9)
    facts = HostFacts(name, host_tasks.versions(), ProbedMachine(probe, {"name": name}, name))._replace(**changes)
    return ClusterHost(name, facts, 8, accelerators, 1e9)


def test_all_that_is_wrong_with_the_hosts_is_told_at_once() -> None:
    other = host_tasks.versions() | {"torch": "1.0"}
    with pytest.raises(BadInput) as caught:
        clusters._examined([host("a"), host("b", versions=other), host("c", trouble="does not see the store /s")])
    assert "host b has other versions" in str(caught.value)
    assert "torch 1.0, here" in str(caught.value)
    assert "host c does not see the store /s" in str(caught.value)


def test_hosts_of_another_kind_run_nothing_and_are_named() -> None:
    found = clusters._examined([host("head"), host("gpu", backend="cuda", accelerators=8)])
    assert [one.facts.name for one in found.hosts] == ["gpu"]
    assert found.machine.name == "gpu"
    assert found.left_out == ("host head runs nothing: it computes on cpu, and the study on GPU",)


def test_of_two_kinds_of_accelerators_the_one_of_which_there_are_more_is_taken() -> None:
    old = host("old", backend="cuda", accelerators=2)
    probe = old.machine.probe.model_copy(update={"accelerator": "H100"})
    new = host("new", backend="cuda", accelerators=8, machine=ProbedMachine(probe, {}, "new"))
    found = clusters._examined([old, new])
    assert [one.facts.name for one in found.hosts] == ["new"]
    assert found.left_out == ("host old runs nothing: it computes on GPU, and the study on H100",)


def test_hosts_may_compute_on_their_processors_although_they_have_accelerators() -> None:
    one = host("gpu", accelerators=0)._replace(accelerators=8)
    with pytest.raises(BadInput, match="has 8 accelerators by Ray, and torch sees none there"):
        clusters._examined([one])
    found = clusters._examined([one], device="cpu")
    assert found.hosts[0].usable_accelerators == 0
    assert found.told() == ["cluster: gpu; processors: 8"]


def test_a_head_that_runs_nothing_is_told() -> None:
    found = clusters._examined([host("a"), host("head")._replace(processors=0)])
    assert found.left_out == ("host head runs nothing: Ray may give no processor of it to a task",)
    with pytest.raises(BadInput, match="no host of it has a processor"):
        clusters._examined([host("head")._replace(processors=0)])


@REAL
def test_a_host_whose_text_is_another_one_is_refused(recipe: Path, tmp_path: Path, two_nodes: Any) -> None:
    """The plan was made before the text changed, as on a host with an old copy."""
    store, text = Store(tmp_path / "store"), tmp_path / "text.txt"
    text.write_text("The answer to question 1 is 2. " * 400)
    recipe.write_text(re.sub(r"source: [^,]+/text\.txt", f"source: {text}", recipe.read_text()))
    with connected(two_nodes.address, store.root) as cluster:
        plan = prepare(recipe, machine=cluster.machine)
        RayExecutor(plan, store, cluster, threads=1)
        text.write_text("The answer to question 1 is 3. " * 400)
        with pytest.raises(BadInput, match="makes another result of"):
            RayExecutor(plan, store, cluster, threads=1)
        text.unlink()
        with pytest.raises(BadInput, match="cannot plan the study"):
            RayExecutor(plan, store, cluster, threads=1)


def test_a_device_with_a_number_is_refused_on_a_cluster(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"name its kind alone \(cuda\)"), connected("h:1", tmp_path, "cuda:1"):
        pass


def test_something_else_that_listens_is_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "TO_CHECK", 5)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(BadInput, match=f"--address {address}: no Ray cluster answers"), connected(address, tmp_path):
            pass


def test_without_an_address_a_cluster_that_has_died_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray keeps the address of the last cluster, and waits minutes for it."""
    monkeypatch.setattr(clusters, "TO_CHECK", 8)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(BadInput, match=r"no Ray cluster runs here .*; start one with `ray start --head`"), connected(None, tmp_path):
        pass
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    with pytest.raises(BadInput, match=r"no Ray cluster runs here .*, after `ray stop` where one has died"), connected(None, tmp_path):
        pass


def test_a_host_that_is_lost_during_the_look_is_left_out_by_name() -> None:
    found = clusters._examined([host("a")], ["b"])
    assert [one.facts.name for one in found.hosts] == ["a"]
    assert found.left_out == ("host b was lost while it was looked at; it runs nothing",)
