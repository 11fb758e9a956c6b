"""A small world for the mutation fuzzer: one valid file of every kind that compresslab reads, and the commands that read it."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from plan.plan_helpers import CONFIG
from report.studies import quickstart, step

from compresslab.cli import main as command_line
from compresslab.plan.graph import Plan
from compresslab.plan.prepare import prepare
from compresslab.records import Cost, ItemDetail, ItemScores, StudyRecord, TaskScore
from compresslab.report.html import replace
from compresslab.report.words import record_json
from compresslab.store.store import Store, write_record
from compresslab.store.upkeep import note

RECIPE = """study: mutated
question: Does it matter?
base: {model: ./model}
compute: float32
text:
  calibration: {source: ./text.txt, samples: 4, length: 16}
variants:
  small: [{prune: {method: depth, keep: 2}}]
  packed: {from: small, steps: [{quantize: {method: rtn, bits: 4, group_size: 16}}]}
  adopted: [{adopt: {model: ./other.gguf}}]
sweeps:
  "width-{share}":
    grid: {share: [0.5, 0.75]}
    steps: [{prune: {method: width, keep: "{share}"}}]
evaluate: {tasks: [arc_easy, csqa], items: 4}
density: {reference: ./reference.json, hardware: [h100-sxm], measure: false, resamples: 200}
"""
# The study whose results lie in the store.
STORED = """study: stored
base: {model: ./model}
compute: float32
variants:
  small: [{prune: {method: depth, keep: 2}}]
evaluate: {tasks: [arc_easy], items: 4}
density: {reference: ./reference.json, hardware: [h100-sxm], measure: false, resamples: 200}
"""


# The arguments of `compresslab`, or a function.
Command = tuple[str, ...] | Callable[[], object]


class Target(NamedTuple):
    """A file that is mutated, and the commands that read it.

    `loads`: the commands are names in `mutated_loads.COMMANDS`, which load models.
    """

    file: str
    commands: tuple[Command, ...]
    loads: bool = False


def _read_table() -> object:
    from compresslab.density.references.user import read_table

    return read_table(Path("table.csv"))


def _report() -> StudyRecord:
    """All of `compresslab report` but the drawing of the page."""
    from compresslab.studies.run_study import report_study

    store = Store(Path("store"))
    return report_study(prepare(Path("stored.yaml"), noted=store.notes()), store)


VALIDATE, PLAN = ("validate", "r.yaml"), ("plan", "r.yaml", "--store", "store")
MODEL = (VALIDATE, PLAN)
STORE = (_report, ("ls", "--store", "store"), ("verify", "stored.yaml", "--store", "store"))


def targets(plan: Plan) -> dict[str, Target]:
    """Every target by name."""
    objects = "store/objects"
    base, scores = plan.variants[0].model, plan.node(plan.variants[0].evaluate).tasks["arc_easy"]
    return {
        "recipe": Target("r.yaml", MODEL),
        "config": Target("model/config.json", MODEL),
        "tokenizer": Target("model/tokenizer.json", MODEL),
        "index": Target("model/model.safetensors.index.json", MODEL),
        "safetensors": Target("model/shard-1.safetensors", MODEL),
        "gguf": Target("other.gguf", (VALIDATE,)),
        "reference": Target("reference.json", (VALIDATE, ("reference", "show", "reference.json"), _report)),
        "table": Target("table.csv", (_read_table,)),
        "text": Target("text.txt", (VALIDATE,)),
        "study": Target("reports/a/study.json", (("show", "a"), ("show", "a", "bnb-nf4"), ("compare", "a", "b", "--json"))),
        "note": Target("store/studies/stored.json", STORE),
        "record": Target(f"{objects}/{base}/record.json", STORE),
        "cost": Target(f"{objects}/{base}/cost.json", STORE),
        "digests": Target(f"{objects}/{scores}/digests.json", STORE),
        "items": Target(f"{objects}/{scores}/items.parquet", STORE),
    }


def make(folder: Path) -> Plan:
    """Write the world below `folder`, which becomes the current one. Returns the plan of the study in its store."""
    os.chdir(folder)
    Path("r.yaml").write_text(RECIPE)
    Path("stored.yaml").write_text(STORED)
    Path("text.txt").write_text("Some text. " * 50)
    Path("model").mkdir()
    Path("model/config.json").write_text(json.dumps(CONFIG))
    vocabulary = {f"w{number}": number for number in range(100)}
    Path("model/tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": vocabulary, "merges": []}, "added_tokens": []}))
    weight_map = {f"w{number}": f"shard-{number % 2 + 1}.safetensors" for number in range(8)}
    Path("model/model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 256}, "weight_map": weight_map}))
    for shard in (1, 2):
        _write_shard(Path(f"model/shard-{shard}.safetensors"))
    Path("other.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + b"\0" * 100)
    _write_reference(Path("reference.json"))
    rows = [f"m{size},{size}e8,{size}e9,arc_easy,{1 - size / 10}" for size in range(1, 6)]
    Path("table.csv").write_text("\n".join(["run,params,tokens,task,bpb", *rows]))
    for name in ("a", "b"):
        Path("reports", name).mkdir(parents=True)
        replace(Path("reports", name, "study.json"), record_json(quickstart(study=name)))
    plan = prepare(Path("stored.yaml"))
    _fill(Store(Path("store")), plan)
    Path("reports/stored").mkdir()
    replace(Path("reports/stored/study.json"), record_json(_report()))
    return plan


def _write_shard(path: Path) -> None:
    tensors = {f"w{number}": {"dtype": "F32", "shape": [2, 2], "data_offsets": [16 * number, 16 * number + 16]} for number in range(4)}
    header = json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))


def _write_reference(path: Path) -> None:
    """The smallest part of a reference that ships: one task and a few of its resamples."""
    from importlib import resources

    whole = json.loads((resources.files("compresslab") / "data" / "references" / "olmo-ladder.json").read_text("utf-8"))
    task = whole["tasks"]["arc_easy"]
    small = {**task, "loss_resamples": task["loss_resamples"][:5], "score_resamples": task["score_resamples"][:5]}
    path.write_text(json.dumps({**whole, "tasks": {"arc_easy": small}}))


def _fill(store: Store, plan: Plan) -> None:
    """Results of all nodes of a plan, made up, and the study's note."""
    cost = Cost(seconds=1.0, peak_memory_bytes=10**6, started="2026-01-01T00:00:00Z", threads=1, device="cpu")
    score = TaskScore(
        task="arc_easy", items=4, bits_per_byte=1.0, bits_per_byte_stderr=0.1, accuracy=0.5, accuracy_stderr=0.1, metric="acc_per_char",
        chance=0.25, engine="tree", weights="as stored", bos=False, truncated=0, prompts="ab" * 32,
    )  # fmt: skip
    for node in plan.nodes:
        if node.kind == "model":
            with store.stage(node.key) as staged:
                (staged / "model").mkdir()
                (staged / "model" / "config.json").write_text("{}")
                write_record(staged, step("prune", "depth", 1e8, 16))
                write_record(staged, cost, "cost.json")
                store.commit(node.key, staged)
        for key in node.tasks.values():
            with store.stage(key) as staged:
                write_record(staged, score)
                write_record(staged, cost, "cost.json")
                _write_items(staged / "items.parquet", 1.0 + 0.1 * (node.variant != "base"))
                store.commit(key, staged)
    note(plan, store, "2026-01-01T00:00:00Z")


def _write_items(path: Path, bits: float) -> None:
    from compresslab.evaluation.scores import write_items

    detail = ItemDetail(
        prompt="q", prompt_hash="ab", options=["a", "b"], generated=None, logprobs=[-1.0, -2.0], tokens=[1, 1], bytes=[1, 1], metrics={}
    )
    numbers = range(4)
    items = ItemScores(
        task="arc_easy", item=[str(number) for number in numbers], bits_per_byte=[bits] * 4, correct=[1.0, 0.0] * 2, choice=[0, 1] * 2,
        gold=[0] * 4, logprob=[-1.0] * 4, details=[detail] * 4,
    )  # fmt: skip
    write_items(path, items)


def run(command: Command) -> None:
    """Run a command in this process. Raises what it raises; `SystemExit` is how the command line ends."""
    if callable(command):
        command()
    else:
        import sys

        sys.argv = ["compresslab", *command]
        command_line.main()
