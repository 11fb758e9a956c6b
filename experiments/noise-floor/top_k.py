"""How much of KL(parent || child) the parent's k largest logits and the mass of all other tokens tell, on a text.

    python experiments/noise-floor/top_k.py PARENT CHILD [CHILD ...]

Each is a folder with a model, such as `objects/KEY/model` of a store.
"""

from __future__ import annotations

import sys
from pathlib import Path

from compresslab.evaluation.text_divergence import text_divergence
from compresslab.models.progress import silent
from compresslab.recipe.schema import FidelityText
from compresslab.records.compute import PROCESSOR

TOP_KS = (8, 64, 1024)
TEXT = FidelityText(source="installed-docs", tokens=1024, length=256, seed=1)


def main(parent: Path, *children: Path) -> None:
    """Print a row of shares for each child."""
    for child in children:
        found = text_divergence(child, parent, TEXT, PROCESSOR._replace(dtype="float32"), silent, TOP_KS)
        shares = "  ".join(f"{k}: {told:.4f} ({told / found.kl.value:.1%})" for k, told in found.top_k.items())
        print(f"{child}: KL {found.kl.value:.4f} ± {found.kl.stderr:.4f}; {shares}", flush=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
