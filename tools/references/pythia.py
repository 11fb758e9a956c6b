"""The reference for small models: Pythia, 70M to 12B at 6B to 300B tokens, by loss on LAMBADA and by score on lm-eval tasks.

LAMBADA's loss is -log2 P(last word | passage), in bits per word: the word is a string, so models with different
vocabularies compare. The scores of the other tasks are linked to it, because Pythia's table has no losses of these tasks.

Intermediate checkpoints are in the fit (Pythia has one token budget, and its learning rate falls by a cosine from the start), from
step 3,000 on: at 1,000 the warm-up of 1,430 steps has not ended. All checkpoints of one model are one run of the bootstrap.
N counts the parameters that multiply activations: Pythia's output embedding is not tied, so N is the mean of its two published counts.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import numpy as np
import pandas as pd

from compresslab.density.references.build import RESAMPLES, ReferenceSpec, build
from compresslab.density.references.laws import D_UNIT, N_UNIT

LOSS_TASK = "lambada_openai"
FIRST_STEP = 3000
TASKS = {
    "lambada_openai": ("acc", None),
    "lm-eval:arc_easy": ("acc_norm", 1 / 4),
    "lm-eval:arc_challenge": ("acc_norm", 1 / 4),
    "lm-eval:piqa": ("acc_norm", 1 / 2),
    "lm-eval:winogrande": ("acc", 1 / 2),
    "lm-eval:sciq": ("acc_norm", 1 / 4),
}
"""compresslab's task name (the prefix marks lm-eval's 0-shot task) -> its metric, and the accuracy of a uniform guess."""

SPEC = ReferenceSpec(
    name="pythia",
    source="Pythia 70M to 12B, plain and deduplicated, lm-eval 0-shot results: github.com/EleutherAI/pythia, evals/pythia-v1 (Apache-2.0); "
    "Biderman et al. 2023, arXiv 2304.01373",
    unit="bits per word",
    chance={task: chance for task, (_, chance) in TASKS.items()},
    latent=dict.fromkeys(TASKS, LOSS_TASK),
    origin={task: task.removeprefix("lm-eval:") for task in TASKS},
)


def read_pythia() -> pd.DataFrame:
    """Checkpoints of the 16 models from `FIRST_STEP` on: task, run, size, n (1e9), d (1e11), loss (bits per word), score."""
    with resources.as_file(resources.files("compresslab") / "data" / "pythia_evals.csv") as path:
        table = pd.read_csv(path)
    table = table[table["step"] >= FIRST_STEP]
    perplexity = table[(table["task"] == LOSS_TASK) & (table["metric"] == "ppl")].set_index(["model", "step"])["value"]
    parts = []
    for task, (metric, _) in TASKS.items():
        rows = table[(table["task"] == SPEC.origin[task]) & (table["metric"] == metric)]
        # log2 of the perplexity of a word is its loss in bits.
        loss = np.log2(perplexity.reindex(pd.MultiIndex.from_frame(rows[["model", "step"]])).to_numpy())
        parts.append(
            pd.DataFrame(
                {
                    "task": task,
                    "run": rows["model"],
                    "size": rows["model"].str.replace(r"-deduped|-bf16|pythia-", "", regex=True),
                    "n": (rows["params_total"] + rows["params_nonembedding"]) / 2 / N_UNIT,
                    "d": rows["tokens"] / D_UNIT,
                    "loss": loss if task == LOSS_TASK else np.nan,
                    "score": rows["value"],
                }
            )
        )
    return pd.concat(parts).sort_values(["task", "n", "run", "d"]).reset_index(drop=True)


def build_pythia(resamples: int = RESAMPLES) -> dict[str, Any]:
    """Fit Pythia and return the content of the reference's file."""
    return build(SPEC, read_pythia(), resamples=resamples)
