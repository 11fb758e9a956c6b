"""What a durable store costs: a commit of a model against one that flushes nothing, and `plan` and `ls` over many results.

    python benchmarks/store.py [--folder FOLDER ON THE DISK TO MEASURE]

The two commits take turns. The one without flushing is what the store did before: digests, and one rename.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from compresslab.inputs import sha256_of
from compresslab.plan.graph import Plan
from compresslab.plan.prepare import prepare
from compresslab.records import StudyNote
from compresslab.store.done import results
from compresslab.store.store import Store, write_json

MODEL_BYTES = 270_000_000
ROUNDS = 9
RESULTS = 500


def unflushed(store: Store, key: str, staged: Path) -> None:
    """A commit without flushing."""
    store.objects.mkdir(parents=True, exist_ok=True)
    files = [path for path in sorted(staged.rglob("*")) if path.is_file()]
    (staged / "digests.json").write_text(json.dumps({str(path): [path.stat().st_size, sha256_of(path)] for path in files}))
    staged.rename(store.folder(key))


def flushed(store: Store, key: str, staged: Path) -> None:
    """The store's own commit."""
    store.commit(key, staged)


def seconds_of_commit(commit: Callable[[Store, str, Path], None], folder: Path) -> float:
    """Seconds of one commit of a folder of a model's size, just written."""
    store = Store(folder / "store")
    with store.stage("a") as staged:
        (staged / "model").mkdir()
        with (staged / "model" / "model.safetensors").open("wb") as file:
            block = os.urandom(1_000_000)
            for _ in range(MODEL_BYTES // len(block)):
                file.write(block)
        began = time.perf_counter()
        commit(store, "a", staged)
        seconds = time.perf_counter() - began
    os.sync()
    store.discard("a")
    os.sync()
    return seconds


def many_results(folder: Path) -> Path:
    """A recipe of many variants, and a store that holds a result for each of its nodes."""
    variants = "".join(f"  v{number}: [{{prune: {{method: magnitude, sparsity: 0.{number + 100}}}}}]\n" for number in range(RESULTS // 2))
    recipe = folder / "many.yaml"
    recipe.write_text(
        "study: many\nquestion: how long\nbase: {model: 'offline:smollm2-135m-instruct'}\n"
        f"variants:\n{variants}evaluate: {{tasks: [csqa]}}\ndensity: {{measure: false}}\n"
    )
    plan, store = prepare(recipe), Store(folder / "store")
    for key in keys(plan):
        with store.stage(key) as staged:
            write_json(staged / "record.json", {"version": 1})
            (staged / "model").mkdir()
            (staged / "model" / "model.safetensors").write_bytes(os.urandom(1000))
            (staged / "items.parquet").write_bytes(os.urandom(100_000))
            store.commit(key, staged)
    named = {variant.name: variant.keys for variant in plan.variants}
    store.remember("many", StudyNote(recipe=str(recipe), finished="", variants=named, keys=keys(plan)))
    return recipe


def keys(plan: Plan) -> list[str]:
    """The keys of all results of a plan."""
    return [key for node in plan.nodes for key in results(node)]


def seconds_of_command(*arguments: str | Path) -> float:
    """Seconds of a command, start of Python included."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "compresslab", *map(str, arguments)], check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="a folder on the disk to measure; default: the current one")
    with tempfile.TemporaryDirectory(dir=parser.parse_args().folder, prefix="store-benchmark-") as scratch:
        folder = Path(scratch)
        pairs = [(seconds_of_commit(unflushed, folder), seconds_of_commit(flushed, folder)) for _ in range(ROUNDS)]
        before, after = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(after / before for before, after in pairs)
        print(f"commit of {MODEL_BYTES / 1e6:.0f} MB: {before:.3f} s without flushing, {after:.3f} s with it, ratio {ratio:.2f}")
        recipe = many_results(folder)
        plan = statistics.median(seconds_of_command("plan", recipe, "--store", folder / "store") for _ in range(3))
        ls = statistics.median(seconds_of_command("ls", "--store", folder / "store") for _ in range(3))
        print(f"{RESULTS} results: plan {plan:.2f} s, ls {ls:.2f} s, start of Python included")


if __name__ == "__main__":
    main()
