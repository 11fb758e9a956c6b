"""The default reference: the OLMo ladder, 190M to 3.2B at 0.5 to 10 x Chinchilla, seven OLMES tasks, by loss and by score.

The fit uses only the last checkpoint of each run, for the law and for the link: the learning rate of earlier ones has
not decayed, and adding them made the misses on left-out sizes larger. The three long runs (1.3B at 4T, 6.9B at 3.9T, 13.2B at
5T tokens) are held out to measure the extrapolation error. Their last training data is better than the ladder's, which a fit of the
ladder cannot predict. winogrande and boolq are left out: their loss hardly depends on size (R2 0.91 and 0.60).
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import pandas as pd

from compresslab.density.references.build import RESAMPLES, ReferenceSpec, build
from compresslab.density.references.laws import D_UNIT, N_UNIT

TASKS = {
    "arc_easy": ("arc_easy_test_rc_5shot", 1 / 4),
    "arc_challenge": ("arc_challenge_test_rc_5shot", 1 / 4),
    "hellaswag": ("hellaswag_val_rc_5shot", 1 / 4),
    "piqa": ("piqa_val_rc_5shot", 1 / 2),
    "csqa": ("csqa_val_rc_5shot", 1 / 5),
    "socialiqa": ("socialiqa_val_rc_5shot", 1 / 3),
    "openbookqa": ("openbookqa_test_rc_5shot", 1 / 4),
}
"""compresslab's task name -> the ladder's task name, and the accuracy of a uniform guess."""

LONG_RUNS = ("peteish1", "peteish7", "peteish13")

SPEC = ReferenceSpec(
    name="olmo-ladder",
    source="OLMo model ladder, 190M to 3.2B at 0.5 to 10 x Chinchilla: github.com/allenai/OLMo, branch ladder-1xC, "
    "scripts/scaling/data/peteish-moreeval (Apache-2.0); Bhagia et al. 2024, arXiv 2412.04403. Long runs held out.",
    unit="bits per byte",
    chance={task: chance for task, (_, chance) in TASKS.items()},
    origin={task: name for task, (name, _) in TASKS.items()},
)


def read_ladder() -> pd.DataFrame:
    """The last checkpoint of each run on the tasks above: task, run, size, n (1e9), d (1e11), loss (bits per byte), score, long."""
    with resources.as_file(resources.files("compresslab") / "data" / "olmo_ladder.csv") as path:
        table = pd.read_csv(path)
    task_names = {ladder: task for task, (ladder, _) in TASKS.items()}
    table = table[table["task"].isin(list(task_names)) & (table["is_final"] == 1)]
    return (
        pd.DataFrame(
            {
                "task": table["task"].map(task_names),
                "run": table["run"],
                "size": table["size"],
                "n": table["params_nonembedding"] / N_UNIT,
                "d": table["tokens"] / D_UNIT,
                "loss": table["bpb"],
                "score": table["accuracy"],
                "long": table["size"].isin(LONG_RUNS),
            }
        )
        .sort_values(["task", "n", "d"])
        .reset_index(drop=True)
    )


def build_ladder(resamples: int = RESAMPLES) -> dict[str, Any]:
    """Fit the ladder and return the content of the reference's file."""
    table = read_ladder()
    return build(SPEC, table[~table["long"]], table[table["long"]], resamples)
