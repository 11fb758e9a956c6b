"""What a sweep costs over one variant: six kinds of GPTQ, eight ratios of each way of pruning.

    python benchmarks/sweeps.py [--samples 128] [--json FILE]

The statistics are gathered once; each variant then loads the base, runs its step and saves, as in a study. "one" is the statistics and
the first variant, "all" the statistics and every variant. What a study adds to each (a process, the check that the folder loads) is not
counted.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import CALIBRATION, base_folder, table, tokens

SHARES = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55)
SWEEPS: dict[str, list[dict[str, Any]]] = {
    "GPTQ, 3, 4, 8 bits x groups of 32, 64": [
        {"quantize": {"method": "gptq", "bits": bits, "group_size": size}} for bits in (4, 3, 8) for size in (32, 64)
    ],
    "depth": [{"prune": {"method": "depth", "keep": keep}} for keep in range(28, 20, -1)],
    "width, neurons": [{"prune": {"method": "width", "keep": 1 - share}} for share in SHARES],
    "wanda": [{"prune": {"method": "wanda", "sparsity": share}} for share in SHARES],
    "sparsegpt": [{"prune": {"method": "sparsegpt", "sparsity": share}} for share in SHARES],
}


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--calibration", type=Path, default=CALIBRATION)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()

    from compresslab.models.calibration.statistics import gather
    from compresslab.models.load import load_folder
    from compresslab.models.text import TokenSequences
    from compresslab.recipe.steps import Step
    from compresslab.steps.contract import Context, run

    work = Path(tempfile.mkdtemp(prefix="compresslab-sweeps-"))
    base = base_folder(work / "base")
    ids = torch.tensor(tokens(load_folder(base).tokenizer, given.calibration, given.samples, 512))
    gathering: dict[bool, float] = {}
    for grams in (False, True):
        began = time.perf_counter()
        gather(load_folder(base), TokenSequences(ids, ""), work / f"statistics-{grams}", grams=grams, progress=lambda *_: None)
        gathering[grams] = time.perf_counter() - began
    rows = []
    for name, steps in SWEEPS.items():
        grams = name.startswith(("GPTQ", "sparsegpt"))
        seconds = []
        for step in map(Step.model_validate, steps):
            began = time.perf_counter()
            shared = Context(TokenSequences(ids, ""), gathered=work / f"statistics-{grams}")
            run(step.kind, step.config, load_folder(base), shared, work / "variant")
            seconds.append(time.perf_counter() - began)
            shutil.rmtree(work / "variant")
        one, all_ = gathering[grams] + seconds[0], gathering[grams] + sum(seconds)
        rows.append(
            {"sweep": name, "variants": len(steps), "gathering": gathering[grams], "one": one, "all": all_, "all / one": all_ / one}
        )
        print(rows[-1], flush=True)
    table(rows)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
