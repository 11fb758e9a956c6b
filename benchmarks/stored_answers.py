"""Fidelity and lost items of many variants from stored answers to as many items as MMLU has. The answers are drawn.

python benchmarks/stored_answers.py [VARIANTS]
"""

from __future__ import annotations

import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np

from compresslab.evaluation.scores import AnswerConditions, AnsweredItem, read_items, summarise, write_items
from compresslab.studies.answers.fidelity import fidelity
from compresslab.studies.answers.lost_items import lost_items
from compresslab.studies.answers.stored import read_answers

ITEMS, SUBJECTS = 14_042, 57
OPTIONS = (" A", " B", " C", " D")


def write(path: Path, seed: int) -> None:
    """The answers of one model to the items of all models."""
    shared, own = np.random.default_rng(0), np.random.default_rng(seed)
    hard = -shared.exponential(8.0, size=(ITEMS, len(OPTIONS)))
    golds = shared.integers(len(OPTIONS), size=ITEMS).tolist()
    items = []
    for index, row in enumerate(np.minimum(hard + own.normal(0, 1, size=hard.shape), 0).tolist()):
        requests, choice, gold = [(f"question number {index} " * 20, option) for option in OPTIONS], int(np.argmax(row)), golds[index]
        items.append(AnsweredItem(f"{index % SUBJECTS}/{index}", requests, row, [gold], len(OPTIONS), choice, float(choice == gold)))
    lengths = {pair: 1 for item in items for pair in item.requests}
    write_items(path, summarise("mmlu", "acc", items, AnswerConditions("tree", "as stored", False, frozenset(), lengths, {}))[1])


def main() -> None:
    """Print processor and elapsed time of both."""
    variants = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{seed}.parquet" for seed in range(variants + 1)]
        for seed, path in enumerate(paths):
            write(path, seed)
        items, read = [read_items(path) for path in paths], cache(read_answers)
        for name in ("fidelity", "lost items"):
            elapsed, processor = time.perf_counter(), time.process_time()
            for child, path in zip(items[1:], paths[1:], strict=True):
                both, files = ({"mmlu": items[0]}, {"mmlu": child}), {"mmlu": (paths[0], path)}
                if name == "fidelity":
                    fidelity(*both, files, read)
                else:
                    lost_items(*both, files)
            spent = time.process_time() - processor
            print(f"{name} of {variants} variants: {spent:.1f} s processor time, {time.perf_counter() - elapsed:.1f} s elapsed")


if __name__ == "__main__":
    main()
