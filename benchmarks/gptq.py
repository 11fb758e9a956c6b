"""GPTQ by compresslab, gptqmodel and llm-compressor in turn: wall time, memory, wikitext-2 perplexity.

    python benchmarks/gptq.py --gptqmodel VENV/bin/python --llmcompressor VENV/bin/python [--rounds 2] [--json FILE]

The peers live in environments of their own. Each runs in a process of its own on the same tokens; the time is that of the call that
calibrates, quantizes and saves, without imports and loading. Perplexity is over 40 x 512 tokens of wikitext-2's test split.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median

from common import CALIBRATION, EVALUATION, HERE, OURS, base_folder, perplexity, run, table, tokens


def main() -> None:
    """Parse, run all in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gptqmodel", type=Path)
    parser.add_argument("--llmcompressor", type=Path)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=32)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--calibration", type=Path, default=CALIBRATION)
    parser.add_argument("--evaluation", type=Path, default=EVALUATION)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()

    from compresslab.models.load import load_tokenizer

    work = Path(tempfile.mkdtemp(prefix="compresslab-gptq-"))
    base = base_folder(work / "base")
    tokenizer = load_tokenizer(base)
    ids = tokens(tokenizer, given.calibration, given.samples, 512)
    held_out = tokens(tokenizer, given.evaluation, 40, 512)
    common = {"model": str(base), "ids": ids, "bits": given.bits, "group_size": given.group_size}
    ours = {"method": "gptq", "bits": given.bits, "group_size": given.group_size}
    entries = {
        "compresslab": (OURS, "compresslab_step.py", {"step": {"quantize": ours}}),
        "compresslab rtn (gptq's grid)": (OURS, "rounding.py", {}),
    }
    if given.gptqmodel:
        entries["gptqmodel"] = (given.gptqmodel, "gptqmodel_gptq.py", {})
    if given.llmcompressor:
        entries["llm-compressor"] = (given.llmcompressor, "llmcompressor_oneshot.py", {"method": "gptq"})
    seconds: dict[str, list[float]] = {name: [] for name in entries}
    memory: dict[str, float] = {}
    for turn in range(given.rounds):
        for name, (python, script, own) in entries.items():
            ran = run(python, HERE / "peers" / script, {**common, **own, "output": str(work / f"{name} {turn}")})
            seconds[name].append(sum(value for part, value in ran.parts.items() if part != "load"))
            memory[name] = ran.memory / 1e9
            print(f"{name}: {ran.parts}, process {ran.wall:.0f} s, {memory[name]:.2f} GB", flush=True)
    rows = [{"tool": "base", "ppl": perplexity(base, held_out)}]
    for name in entries:
        ppl = perplexity(work / f"{name} 0", held_out)
        ratio = median(seconds["compresslab"]) / median(seconds[name])
        rows.append({"tool": name, "ppl": ppl, "seconds": median(seconds[name]), "ours / its": ratio, "GB": memory[name]})
    table(rows)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
