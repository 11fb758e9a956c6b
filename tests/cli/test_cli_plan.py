"""`compresslab plan`: what would run here, what it would cost, and how a long study gets shorter."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest
from calling import QUICKSTART, RECIPE, Call

from compresslab import __version__
from compresslab.records import MachineSpeed, Shape, Size, StepRecord, StoredRecord, TaskScore, Timing
from compresslab.store.done import RECORDS, results
from compresslab.store.store import Store, write_record


def test_plan_shows_nodes_and_costs(call: Call) -> None:
    result = call("plan", QUICKSTART)
    assert result.code == 0
    lines = [line.rstrip() for line in result.out.splitlines()]
    assert lines[0] == "smollm2-quickstart: 23 nodes"
    nodes = [line for line in lines if "to run" in line and "memory" not in line]
    assert len(nodes) == 23, "each node has one line, none is wrapped"
    assert any(re.search(r"distill depth-24-healed +depth-24, base +to run +[\d.]+ GB +[\d.]+ MB +\d+ (s|min)$", line) for line in nodes)
    assert re.fullmatch(r"0 cached, 23 to run: about \d+ (s|min), [\d.]+ GB of disk, [\d.]+ GB of memory at the peak", lines[-1])


def test_plan_as_json(call: Call, recipe: Path) -> None:
    told = json.loads(call("plan", recipe, "--json").out)
    assert told["study"] == "small"
    assert [node["node"] for node in told["nodes"]] == [
        "measure this machine", "load base", "calibrate base", "prune depth", "evaluate base", "evaluate depth", "time base", "time depth",
    ]  # fmt: skip
    assert told["nodes"][2]["needs"] == ["load base"]
    assert told["nodes"][3]["needs"] == ["load base", "calibrate base"]
    assert not any(node["cached"] for node in told["nodes"])
    assert {"key", "memory", "disk", "seconds"} <= set(told["nodes"][0])


SIZE = Size(parameters=1, counted=1, active=1, nonzero=1, stored_bytes=2, effective_bits=16.0)
SHAPE = Shape(architecture="llama", layers=1, hidden=1, intermediate=1, attention_width=1, key_value_width=1, vocabulary=1)
SCORE = {"items": 1, "bits_per_byte": 1.0, "bits_per_byte_stderr": 0.0, "accuracy": 1.0, "accuracy_stderr": 0.0, "chance": None}
HOW = {"metric": "acc", "engine": "tree", "weights": "as stored", "bos": False, "truncated": 0, "prompts": ""}
TIMES = {"seconds": 1.0, "prefill_seconds": 0.5, "parent_seconds": None, "ratio": None, "low": None, "high": None}
KEPT = {
    StepRecord: StepRecord(kind="base", method="load", config={}, seed=0, size=SIZE, shape=SHAPE),
    TaskScore: TaskScore(task="csqa", **SCORE, **HOW),
    Timing: Timing(machine="", batch=1, prompt=1, decode=1, rounds=1, **TIMES, weights=""),
    MachineSpeed: MachineSpeed(bandwidth=1.0, flops=1.0, threads=1, device="cpu", dtype="float32"),
}


def keep(store: Store, key: str, kind: type[StoredRecord] | None) -> None:
    """Put a result into the store, with a record of this kind."""
    with store.stage(key) as staged:
        if kind is not None:
            write_record(staged, KEPT[kind])
        store.commit(key, staged, kind)


def test_plan_tells_what_is_cached(call: Call, recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(RECIPE.replace("[arc_easy]", "[arc_easy, csqa]"))
    nodes = {node["node"]: node["key"] for node in json.loads(call("plan", recipe, "--json").out)["nodes"]}
    store = Store(tmp_path / "kept")
    from compresslab.plan.prepare import prepare

    plan = prepare(recipe)
    for label in ("load base", "time base"):
        keep(store, nodes[label], RECORDS[plan.node(nodes[label]).kind])
    scores = plan.node(nodes["evaluate base"]).tasks
    keep(store, scores["csqa"], TaskScore)
    out = call("plan", recipe, "--store", store.root).out
    assert re.search(r"load base +cached\n", re.sub(r" +\n", "\n", out))
    assert re.search(r"evaluate base +1 of 2 cached", out)
    assert "2 cached, 6 to run" in out
    for node in plan.nodes:
        for key, kind in results(node).items():
            keep(store, key, kind)
    assert call("plan", recipe, "--store", store.root).out.rstrip().endswith("everything is cached; a run only writes the report")


def test_plan_of_a_model_that_is_not_here(call: Call, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    recipe.write_text(RECIPE.replace("offline:smollm2-135m-instruct", "owner/model"))
    result = call("plan", recipe)
    assert result.code == 0
    assert re.search(r"load base +to run +\? +\? +\?", result.out)
    assert "without 7 nodes whose model is not on this machine yet" in result.out
    assert "warning: base.model: owner/model names no @<commit>" in result.out


def test_plan_warns_of_too_little_memory(call: Call, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory(NamedTuple):
        total: int = 2**30
        available: int = 2**30

    monkeypatch.setattr("psutil.virtual_memory", Memory)
    # In float32 2.8 GB.
    assert "needs about 2.0 GB of memory and this machine has 1.1 GB" in call("plan", recipe, "--compute", "bfloat16").out


def test_plan_names_every_node_that_does_not_fit(call: Call, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory(NamedTuple):
        total: int = 2**28
        available: int = 2**28

    monkeypatch.setattr("psutil.virtual_memory", Memory)
    monkeypatch.setattr("compresslab.cli.plan.MOST_WARNINGS", 5)
    out = call("plan", recipe, "--compute", "bfloat16").out
    assert out.count("of memory and this machine has 268 MB") == 5
    assert "3 more nodes need more memory than there is" in out


def test_plan_and_run_say_how_a_long_study_gets_shorter(call: Call, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heal = "depth: [{prune: {method: depth, keep: 24}}, {distill: {tokens: 50_000_000}}]"
    recipe.write_text(RECIPE.replace("depth: [{prune: {method: depth, keep: 24}}]", heal))
    advice = "training takes 100%; less with fewer tokens in the steps of depth (50,000,000)"
    assert advice in call("plan", recipe).out
    assert advice not in call("plan", recipe, "--set", "variants.depth.steps[1].distill.tokens=20000").out

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("compresslab.studies.run_study.run", interrupted)
    begun, warning, study, *result = call("run", recipe).out.splitlines()
    assert re.fullmatch(rf"\d\d:\d\d:\d\d compresslab {__version__}: {recipe}", begun)
    assert "go 833.3 times over text.training.tokens" in warning
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d small: \d+ nodes; 0 cached, \d+ to run: about [\d.]+ h, .* of memory at the peak\. "
        r"Log: \.compresslab/logs/run-small\.log",
        study,
    )
    assert any(line.endswith(advice) for line in result)


def test_plan_estimates_for_other_hardware(call: Call) -> None:
    recipe = QUICKSTART.parent / "full-size" / "llama-3.1-8b-quantized.yaml"
    here, there = (call("plan", recipe, *on) for on in ((), ("--on", "h100-sxm")))
    assert here.code == there.code == 0
    assert re.search(r"about [\d.]+ h, ", here.out)
    assert "it will be killed" not in there.out
    assert re.search(r"about [\d.]+ (min|h), .* GB of memory at the peak\n", there.out)
    assert "did you mean 'h100-sxm'?" in call("plan", recipe, "--on", "h100").err
