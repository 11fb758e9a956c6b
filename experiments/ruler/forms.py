"""The forms that were tried for each curve, and how well each predicts what it was not fitted on.

python experiments/ruler/forms.py links      # score links of the OLMo ladder: predict the 3.2B runs from the smaller sizes
python experiments/ruler/forms.py family     # curves and interpolation of published families: predict left-out models
python experiments/ruler/forms.py bbh        # BBH's guess at 0 and at 0.257: left-out scores, the trend, Gemma-2
python experiments/ruler/forms.py engines    # forms of inference time: predict left-out bf16 models (quantized rows only looked at)
python experiments/ruler/forms.py records    # how well a line fits record setters where nothing grows
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.optimize import least_squares

from compresslab.catalog import published_scores as tables
from compresslab.catalog import published_settings
from compresslab.catalog.hardware import load_hardware
from compresslab.density import Measured, assess
from compresslab.density.references import family
from compresslab.density.references.build import reference_json
from compresslab.density.references.laws import share_logit
from compresslab.density.time import engine_factors as engines
from compresslab.density.trend.fits import frontier
from compresslab.density.trend.trend import trend
from compresslab.recipe.schema import DensityConfig
from tools.references import family_scores
from tools.references.ladder import TASKS, read_ladder

HERE = Path(__file__).parent


def rms(values: Any) -> float:
    """Root mean square, to four digits."""
    return round(float(np.sqrt(np.mean(np.square(np.concatenate([np.ravel(v) for v in values]))))), 4)


def links() -> dict[str, float]:
    """Relative miss of the scores of 3.2B, given their loss, by form of the link and by which checkpoints it sees."""
    from importlib import resources

    import pandas as pd

    whole = pd.read_csv(str(resources.files("compresslab") / "data" / "olmo_ladder.csv"))
    long = read_ladder()
    long_sizes = set(long.loc[long["long"], "size"])
    found = {}
    for scale, ceiling, lower, rows in itertools.product(("L", "ln L"), ("1", "fitted"), ("fitted", "chance"), ("final", "all")):
        misses = []
        for name, chance in TASKS.values():
            own = whole[(whole["task"] == name) & ~whole["size"].isin(long_sizes)]
            own = own[own["is_final"] == 1] if rows == "final" else own
            x, y = np.log(own["bpb"]) if scale == "ln L" else own["bpb"], own["accuracy"]
            big, last = own["size"] == "3B", own["is_final"] == 1
            phi = _link(x[~big].to_numpy(), y[~big].to_numpy(), chance if lower == "chance" else None, ceiling == "fitted")
            misses.append(_logistic(phi, x[big & last].to_numpy()) / y[big & last].to_numpy() - 1)
        found[f"{scale}, ceiling {ceiling}, lower end {lower}, {rows} checkpoints"] = rms(misses)
    return found


def _logistic(phi: Any, x: Any) -> Any:
    top, gamma, middle, bottom = phi
    return bottom + (top - bottom) / (1 + np.exp(gamma * (x - middle)))


def _link(x: Any, y: Any, lower: float | None, free_top: bool) -> Any:
    least = np.array([min(y.max(), 1 - 1e-6) if free_top else 1 - 1e-9, 0.1, -3.0, 0.0 if lower is None else lower - 1e-9])
    most = np.array([1.0, 60.0, 3.0, max(y.min(), 1e-6) if lower is None else lower + 1e-9])
    starts = [np.clip([0.9, g, m, 0.25], least + 1e-10, most - 1e-10) for g in (3.0, 8.0) for m in (0.8 * x.min(), x.min(), np.median(x))]
    ends = [least_squares(lambda phi: _logistic(phi, x) - y, s, bounds=(least, most), loss="huber", f_scale=0.01) for s in starts]
    return min(ends, key=lambda end: end.cost).x


def families() -> dict[str, float]:
    """Miss in logits of left-out models (the smallest and largest kept): the family's curve, straight lines, PCHIP."""
    found = {}
    for one in family_scores.FAMILIES.values():
        read = family_scores.read_family(one)
        found[f"{one.name}: curve"] = round(min(family.left_out_error(read, [a]) for a in family.ALPHAS), 4)
        found[f"{one.name}: straight lines"] = round(family.interpolation_error(read), 4)
        if len(np.unique(read.n)) == len(read.n):
            x, misses = np.log(read.n), []
            for row in share_logit(read.scores, read.chances):
                known = np.flatnonzero(~np.isnan(row))
                for i in known[1:-1]:
                    rest = known[known != i]
                    misses.append(PchipInterpolator(x[rest], row[rest])(x[i]) - row[i])
            found[f"{one.name}: PCHIP"] = rms(misses)
    return found


def bbh() -> dict[str, Any]:
    """What changes with BBH's guess. The references are fitted anew with 100 resamples in a folder of their own."""
    found: dict[str, Any] = {}
    shipped = published_settings.TASKS["BBH"]
    try:
        for chance in (0.0, 0.257):
            published_settings.TASKS["BBH"] = shipped._replace(chance=chance)
            entry: dict[str, Any] = {}
            for one in family_scores.FAMILIES.values():
                read = family_scores.read_family(one)
                row = read.tasks.index("BBH")
                alpha = min(family.ALPHAS, key=lambda a, read=read: family.left_out_error(read, [a]))
                misses = []
                for i in np.flatnonzero(~np.isnan(read.scores[row]))[1:-1]:
                    rest = read.without(int(i))
                    curves = family.fit_family(rest, np.ones(len(rest.n)), [alpha])
                    misses.append(family.predict(curves, read, read.n[i : i + 1], read.d[i : i + 1])[row] - read.scores[row, i])
                entry[f"{one.name}: left-out BBH scores"] = rms(misses)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "qwen.json"
                path.write_text(reference_json(family.build_family(family_scores.read_family(family_scores.QWEN), resamples=100)))
                line = trend(str(path), resamples=500).whole
                entry["trend: A per day"] = round(line.growth.value, 4)
                parent, child = (
                    _published(name, "Gemma2-report-T13", parent) for name, parent in (("Gemma-2-27B", ""), ("Gemma-2-2B", "Gemma-2-27B"))
                )
                ratio = assess([parent, child], DensityConfig(reference=str(path)), [])["Gemma-2-2B"][1][0].ratio
                assert ratio is not None
                entry["Gemma-2-2B: r"] = [round(value, 2) for value in (ratio.value, ratio.low, ratio.high)]
            found[f"guess {chance}"] = entry
    finally:
        published_settings.TASKS["BBH"] = shipped
    return found


def _published(name: str, table: str, parent: str) -> Measured:
    size, shape = tables.weights(name)
    scores = {task: score.score for task, score in tables.scores_of(name, table).items()}
    return Measured(name=name, parent=parent, root=parent or name, size=size, shape=shape, published=scores, table=table)


def engine_forms() -> dict[str, dict[str, float]]:
    """vLLM on the A100: forms of prefill and decode fitted on bf16 rows; errors on left-out bf16 models, and on quantized rows."""
    source, hardware = engines.SOURCES[0], load_hardware("a100-80g")
    rows, steps = engines.benchmarks(source), 2048
    features = []
    for row in rows.itertuples():
        shape, size = engines.model(str(row.model), str(row.precision))
        prompt = float(row.input_len)
        cache, attention = shape.layers * shape.key_value_width * 4, shape.layers * shape.attention_width * 4
        pairs = steps * prompt + steps * (steps + 1) / 2
        weights = size.counted * shape.weight_bits / 8
        work = 2 * size.active * prompt + prompt * (prompt + 1) / 2 * attention, 2 * size.active * steps + pairs * attention
        features.append([weights + prompt * cache, steps * weights, (pairs + steps) * cache, *work, shape.layers])
    x, y = np.array(features), rows["tokens_per_s"].to_numpy()
    plain, model = (rows["precision"] == "BF16").to_numpy(), rows["model"].to_numpy()
    joins: dict[str, Callable[[Any, Any], Any]] = {"max": np.maximum, "sum": np.add, "l2": np.hypot}
    base = {key: i for i, key in enumerate(zip(rows["model"], rows["input_len"], strict=True)) if plain[i]}
    found = {}
    forms = [(*form, False) for form in itertools.product(joins.items(), (False, True), (False, True), ("linear", "soft_l1"))]
    forms.append((("max", np.maximum), False, False, "linear", True))
    for (name, join), constant, own, loss, one in forms:

        def speed(t: Any, x: Any, join: Any = join, constant: bool = constant, own: bool = own, one: bool = one) -> Any:
            bandwidth, peak = hardware.bandwidth * t[0], hardware.flops * t[0 if one else 2]
            cache = hardware.bandwidth * t[4] if own else bandwidth
            seconds = join(x[:, 0] / bandwidth, x[:, 3] / peak) + join(x[:, 1] / bandwidth + x[:, 2] / cache, x[:, 4] / peak)
            return steps / (seconds + (1 + steps) * 1e-4 * (x[:, 5] * t[1] + (t[3] if constant else 0.0)))

        def fit(which: Any, speed: Any = speed, loss: str = loss) -> Any:
            bounds = ([0.05, 0.0, 0.05, 0.0, 0.05], [1.0, 10.0, 1.0, 50.0, 1.0])
            return least_squares(
                lambda t: speed(t, x[which]) / y[which] - 1, [0.8, 1.0, 0.5, 1.0, 0.7], bounds=bounds, loss=loss, f_scale=0.03
            ).x

        out = [speed(fit(plain & (model != m)), x[plain & (model == m)]) / y[plain & (model == m)] - 1 for m in sorted(set(model[plain]))]
        factor = speed(fit(plain), x) / y
        pairs_ = [
            (i, base[key]) for i, key in enumerate(zip(rows["model"], rows["input_len"], strict=True)) if not plain[i] and key in base
        ]
        label = f"{name}{', constant a pass' if constant else ''}{', cache apart' if own else ''}{', robust' if loss != 'linear' else ''}"
        label += ", one efficiency for both" if one else ""
        found[label] = {
            "left-out bf16, rms": rms(out),
            "quantized, median": round(float(np.median(np.abs(factor[~plain] - 1))), 4),
            "ratio, median": round(float(np.median([abs(factor[i] / factor[j] - 1) for i, j in pairs_])), 4),
        }
    return found


def records(draws: int = 2000) -> dict[str, float]:
    """Densities without their growth, dealt out to the release dates anew: R2 and slope of the line through the record setters."""
    found = trend("qwen2.5", resamples=500)
    own = [point for point in found.points if not point.density.bound]
    days = np.array([float(point.released.toordinal()) for point in own])
    logs = np.log([point.density.value for point in own]) - found.whole.growth.value * (days - days.mean())
    rng, r2, slopes = np.random.default_rng(0), [], []
    for _ in range(draws):
        dealt = rng.permutation(logs)
        kept = frontier(days, dealt)
        if len(kept) >= 3:
            x, y = days[kept], dealt[kept]
            slope, start = np.polyfit(x - x.mean(), y, 1)
            r2.append(1 - np.sum((y - start - slope * (x - x.mean())) ** 2) / np.sum((y - y.mean()) ** 2))
            slopes.append(slope)
    return {
        "median R2": round(float(np.median(r2)), 3),
        "median A per day": round(float(np.median(slopes)), 5),
        "A measured": found.whole.growth.value,
    }


def main() -> None:
    """Run one comparison, print it, and keep it in forms.json."""
    parts: dict[str, Callable[[], Any]] = {"links": links, "family": families, "bbh": bbh, "engines": engine_forms, "records": records}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(parts))
    what = parser.parse_args().what
    path = HERE / "forms.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    known[what] = parts[what]()
    path.write_text(json.dumps(known, indent=1) + "\n")
    print(json.dumps(known[what], indent=1))


if __name__ == "__main__":
    main()
