"""Half of the weights to zero: magnitude, Wanda and SparseGPT by compresslab, and the last two by llm-compressor, in turn.

    python benchmarks/pruning.py --llmcompressor VENV/bin/python [--sparsity 0.5] [--json FILE]

Wall time of the call that calibrates, prunes and saves (128 x 512 tokens), peak memory, wikitext-2 perplexity over 40 x 512 tokens.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from common import CALIBRATION, EVALUATION, HERE, OURS, base_folder, perplexity, run, table, tokens

METHODS = ("magnitude", "wanda", "sparsegpt")


def main() -> None:
    """Parse, run all in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llmcompressor", type=Path)
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--calibration", type=Path, default=CALIBRATION)
    parser.add_argument("--evaluation", type=Path, default=EVALUATION)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()

    from compresslab.models.load import load_tokenizer

    work = Path(tempfile.mkdtemp(prefix="compresslab-pruning-"))
    base = base_folder(work / "base")
    tokenizer = load_tokenizer(base)
    held_out = tokens(tokenizer, given.evaluation, 40, 512)
    common = {"model": str(base), "ids": tokens(tokenizer, given.calibration, given.samples, 512), "sparsity": given.sparsity}
    rows = [{"tool": "base", "ppl": perplexity(base, held_out)}]
    for method in METHODS:
        step = {"prune": {"method": method, "sparsity": given.sparsity}}
        entries = {"compresslab": (OURS, "compresslab_step.py", {"step": step})}
        if given.llmcompressor and method != "magnitude":
            entries["llm-compressor"] = (given.llmcompressor, "llmcompressor_oneshot.py", {"method": method})
        for name, (python, script, own) in entries.items():
            output = work / f"{name} {method}"
            ran = run(python, HERE / "peers" / script, {**common, **own, "output": str(output)})
            seconds = sum(value for part, value in ran.parts.items() if part != "load")
            found = {"tool": f"{name} {method}", "ppl": perplexity(output, held_out), "seconds": seconds, "GB": ran.memory / 1e9}
            print(found, flush=True)
            rows.append(found)
    table(rows)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
