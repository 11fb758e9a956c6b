"""Whether the interval of a modelled time ratio covers the measured one on an engine that was left out.

python experiments/ruler/engines.py

Each measured engine is left out in turn. Its rows of published speeds give the measured time of every quantized model relative to the same
model in bf16. The interval of that ratio is drawn as a study draws it for a machine whose engine nobody knows
(`compresslab.density.time.engine_errors`), from the other engines alone. A harder test leaves out all versions of a software, and so
knows none of its kind. The factors of a left-out engine are not used: its machine has none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from compresslab.catalog.hardware import Hardware, load_hardware
from compresslab.density.time import engine_factors
from compresslab.density.time.engine_errors import MeasuredEngine, draw_engines, measured_engines, precision_class
from compresslab.recipe.schema import Workload

HERE = Path(__file__).parent
DRAWS = 4000
LEVEL = 0.90


def ratios(source: engine_factors.BenchmarkSource, engines: Sequence[MeasuredEngine], own: bool) -> pd.DataFrame:
    """Of each quantized row with a bf16 row: measured ln time ratio, modelled ones of the profile's factors, and the interval's ends.

    Args:
        engines: those from which the errors are drawn. own: the profile has the factors and the errors of the source itself.
    """
    rows = engine_factors.benchmarks(source)
    hardware = load_hardware(source.hardware)
    bare = Hardware(name=source.hardware, flops=hardware.flops, flops_8bit=hardware.flops_8bit, bandwidth=hardware.bandwidth, source="")
    if own:
        bare = next(engine for engine in engines if engine.engine == source.engine).profile(bare)
    draws = draw_engines(bare, DRAWS, 0, engines)
    plain = {(row.model, row.input_len): row for row in rows.itertuples() if row.precision == "BF16"}
    borrowed = next(engine for engine in engines if engine.engine != source.engine).profile(bare)
    found = []
    for row in rows.itertuples():
        if row.precision == "BF16" or (row.model, row.input_len) not in plain:
            continue
        # The phone's source gives no output length.
        steps = 128 if math.isnan(row.output_len) else int(row.output_len)
        workload = Workload(batch=1, prompt=int(row.input_len), decode=steps)
        sized, base = engine_factors.model(row.model, row.precision), engine_factors.model(row.model)
        profiles = [*draws.profiles, borrowed]
        modelled = [math.log(source.speed(*base, profile, workload) / source.speed(*sized, profile, workload)) for profile in profiles]
        drawn = np.array(modelled)[draws.which] + draws.precision_errors(precision_class(*sized))
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        measured = math.log(plain[row.model, row.input_len].tokens_per_s / row.tokens_per_s)
        found.append(
            {
                "engine": source.engine,
                "class": precision_class(*sized),
                "error": modelled[-1] - measured,
                "covered": low <= measured <= high,
                "sign": (modelled[-1] < 0) == (measured < 0),
                "claimed": low > 0 or high < 0,
                "wrong": (low > 0 and measured < 0) or (high < 0 and measured > 0),
                "width": high - low,
            }
        )
    return pd.DataFrame(found)


def summary(rows: pd.DataFrame, by: str) -> dict[str, Any]:
    """Coverage and median width by engine or class."""
    table = {}
    for name, group in [("all", rows), *rows.groupby(by)]:
        table[str(name)] = {
            "rows": len(group),
            "covered": round(float(group["covered"].mean()), 3),
            "width, a factor of": round(float(np.exp(group["width"].median())), 2),
            "point, median error": round(float(np.expm1(group["error"].median())), 3),
            "point, wrong side of 1": int((~group["sign"]).sum()),
            "interval on one side of 1": int(group["claimed"].sum()),
            "of these wrong": int(group["wrong"].sum()),
        }
    return table


def main() -> None:
    """Run all three, print them, keep them in engines.json."""
    engines = measured_engines()
    found: dict[str, Any] = {}
    sources = engine_factors.SOURCES
    arms = {
        "engine left out": [[engine for engine in engines if engine.engine != source.engine] for source in sources],
        "software left out": [[engine for engine in engines if engine.software != source.engine.split()[0]] for source in sources],
        "own engine": [list(engines) for _ in sources],
    }
    for arm, kept in arms.items():
        rows = pd.concat([ratios(source, others, own=arm == "own engine") for source, others in zip(sources, kept, strict=True)])
        found[arm] = {"by engine": summary(rows, "engine"), "by class": summary(rows, "class")}
    (HERE / "engines.json").write_text(json.dumps(found, indent=1) + "\n")
    for arm, tables in found.items():
        for table in tables.values():
            print(f"\n{arm}\n{pd.DataFrame(table).T.to_string()}")


if __name__ == "__main__":
    main()
