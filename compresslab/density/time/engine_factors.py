"""The factors of an engine on a machine, fitted on measured bf16 speeds, and their prediction errors for quantized models.

Run as `python -m compresslab.density.time.engine_factors`: reads `data/speed_benchmarks.csv`, writes `data/engines.json` (factors of the
profiles) and `data/engine_errors.json` (what `density.time.engine_errors` draws from: factors and errors of every measured engine).

The meaning of tokens/s in a row differs by source:

- Qwen2.5 under vLLM: generated tokens over the whole time, including prefill. The source does not state it; the numbers show it. At
  input 129,024 the 7B in bf16 makes 28.94 tokens/s, so 2,048 take 70.8 s against 24.3 s after a prompt of 1. Reading the cache
  at the memory's peak adds 7.5 s and the prefill at the peak of compute 16 s. Without the prefill the engine would
  read its cache at 16% of the bandwidth. The speed falls as the prompt grows, so the prompt's tokens are not counted.
- Qwen1.5, Qwen2 and Qwen2.5 under transformers, Qwen2 under vLLM: taken as above; the same authors, the same table.
- Qwen3 under SGLang and under transformers: prompt and generated tokens over the whole time; the source states it.
- Llama 3.2 on a phone: decoding alone; the source states it.

Rows of several GPUs run tensor-parallel, and the model has no communication time: they are left out, here
and in the data file. Mixtures are left out of the fit, so that their bf16 rows test the expected number of experts.

The form of the model was chosen on bf16 rows alone, by leaving out one model at a time (root mean square error of the speed, A100,
`experiments/ruler/forms.py engines`): one efficiency for memory and compute 9.3%, one for each 8.2%, so there are
three factors; a separate bandwidth for the cache 8.2%, a constant per pass 9.8%. The sum of memory and compute time instead of
the larger of the two gives 8.3%, but on the phone the sum would need 82 GB/s from a memory of 76.8 GB/s. The long prompts determine
the compute efficiency, which also contains their other costs, such as prefill in chunks. All bf16 rows of the dense models are in
the fit, including those that vLLM's source marks as run differently: the 32B without CUDA graphs, input 129,024 with
vLLM 0.6.2 and without a repetition penalty.

The remaining errors on quantized rows have other causes: unpacking slows small models and long prefills (the 0.5B runs
slower in 4 bits than in 16, the 7B at 129,024 too), SGLang reads bf16 at 36% of the H20's bandwidth and FP8 faster than
that (up to 2.2 times the speed with half the bytes), and its source states that its GPTQ kernel for mixtures is unfinished.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import least_squares

from compresslab.catalog.hardware import Hardware, load_hardware
from compresslab.catalog.published_scores import MOBILE, PACKED
from compresslab.catalog.published_shapes import BF16, WeightStorage, size_and_shape
from compresslab.density.time.engine_errors import FACTORS, precision_class
from compresslab.density.time.inference_time import seconds
from compresslab.recipe.schema import Workload
from compresslab.records import Shape, Size

FORMATS = {
    "BF16": BF16,
    "GPTQ-Int8": PACKED["gptq-int8"],
    "GPTQ-Int4": PACKED["gptq-int4"],
    "GPTQ-INT4": PACKED["gptq-int4"],
    "AWQ": PACKED["awq"],
    "AWQ-INT4": PACKED["awq"],
    # Each block of 128 x 128 has a 16-bit scale.
    "FP8": WeightStorage(8 + 16 / 128**2, weight_only=False),
    # The PTE files' 1,083 and 2,435 MiB; QLoRA's low-rank matrices (rank 16, 4% more bytes) are not counted.
    "SpinQuant w4a8": MOBILE,
    "QLoRA(QAT) w4a8": MOBILE,
}


MIN_LOG_RATIO = 0.2
"""Models whose modelled times differ by less say nothing about how time grows with size."""


@dataclass(frozen=True)
class BenchmarkSource:
    """The rows of the benchmark table for an engine on a machine, and how they count tokens per second.

    `profile`: the factors are those of a hardware profile. The other engines only say how far engines differ.
    """

    hardware: str
    engine: str
    backend: str
    speed: Callable[[Shape, Size, Hardware, Workload], float]
    fits_compute: bool = True
    profile: bool = True


def _generated(shape: Shape, size: Size, hardware: Hardware, workload: Workload) -> float:
    return workload.decode / seconds(shape, size, hardware, workload)


def _all_tokens(shape: Shape, size: Size, hardware: Hardware, workload: Workload) -> float:
    return (workload.prompt + workload.decode) / seconds(shape, size, hardware, workload)


def _decoding(shape: Shape, size: Size, hardware: Hardware, workload: Workload) -> float:
    first = workload.model_copy(update={"decode": 1})
    rest = seconds(shape, size, hardware, workload) - seconds(shape, size, hardware, first)
    return (workload.decode - 1) / rest


def _other(hardware: str, engine: str, speed: Callable[[Shape, Size, Hardware, Workload], float]) -> BenchmarkSource:
    return BenchmarkSource(hardware, engine, engine, speed, profile=False)


SOURCES = [
    BenchmarkSource("a100-80g", "vLLM 0.6.3", "vLLM 0.6.3", _generated),
    BenchmarkSource("h20", "SGLang 0.4.6.post1", "SGLang 0.4.6.post1", _all_tokens),
    # The profile's flops were measured in prefill; decoding does not determine them.
    BenchmarkSource("oneplus-12", "ExecuTorch on the CPU", "ExecuTorch (ARM CPU), decode", _decoding, fits_compute=False),
    _other("a100-80g", "vLLM 0.4.2", _generated),
    _other("a100-80g", "transformers 4.46.0", _generated),
    _other("a100-80g", "transformers 4.38.2", _generated),
    _other("a100-80g", "transformers + FlashAttention2", _generated),
    _other("a100-80g", "transformers (no FlashAttention2)", _generated),
    _other("h20", "transformers 4.51.3", _all_tokens),
]
PROFILES = [source for source in SOURCES if source.profile]


def model(name: str, precision: str = "BF16") -> tuple[Shape, Size]:
    """Shape and size of a published model of the benchmarks, stored at a precision of the benchmarks."""
    size, shape = size_and_shape(name, FORMATS[precision])
    return shape, size


def benchmarks(source: BenchmarkSource) -> pd.DataFrame:
    """The measured rows of one engine on one machine with one GPU."""
    table = pd.read_csv(str(resources.files("compresslab") / "data" / "speed_benchmarks.csv"))
    return table[table["backend"] == source.backend].reset_index(drop=True)


def predict(rows: pd.DataFrame, source: BenchmarkSource, hardware: Hardware) -> pd.Series[float]:
    """Modelled tokens per second of each row."""
    # The phone's source gives no output length; with a prompt of 64 tokens it does not matter.
    decode = rows["output_len"].fillna(128)
    speeds = [
        source.speed(*model(name, precision), hardware, Workload(batch=1, prompt=int(prompt), decode=int(steps)))
        for name, precision, prompt, steps in zip(rows["model"], rows["precision"], rows["input_len"], decode, strict=True)
    ]
    return pd.Series(speeds, index=rows.index, dtype=float)


def fit(source: BenchmarkSource) -> Hardware:
    """The hardware profile with the factors that minimize the relative errors of the modelled speeds of its dense bf16 rows."""
    unfitted = load_hardware(source.hardware)
    rows = benchmarks(source)
    rows = rows[(rows["precision"] == "BF16") & ~_is_mixture(rows)]

    def profile(factors: NDArray[np.float64]) -> Hardware:
        memory, overhead, *compute = map(float, factors)
        update = {
            "engine": source.engine,
            "bandwidth_efficiency": memory,
            # In units of 0.1 ms, so that the solver sees factors of similar magnitude.
            "layer_overhead": overhead * 1e-4,
            "compute_efficiency": compute[0] if compute else 1.0,
        }
        return unfitted.model_copy(update=update)

    def residuals(factors: NDArray[np.float64]) -> NDArray[np.float64]:
        return (predict(rows, source, profile(factors)) / rows["tokens_per_s"] - 1).to_numpy(dtype=np.float64)

    n_factors = 3 if source.fits_compute else 2
    # transformers reaches 1 to 4% of the peak on the long prompts.
    bounds = ([0.05, 0.0, 0.005][:n_factors], [1.0, 100.0, 1.0][:n_factors])
    return profile(least_squares(residuals, [0.6, 1.0, 0.6][:n_factors], bounds=bounds).x)


def errors(source: BenchmarkSource, hardware: Hardware) -> pd.DataFrame:
    """Relative errors of the modelled speed, and of the modelled speed relative to the same model in bf16.

    Returns:
        The benchmark rows with `error`, and `ratio_error` if the bf16 row was measured (else NaN).
    """
    rows = benchmarks(source)
    rows["factor"] = predict(rows, source, hardware) / rows["tokens_per_s"]
    key = ["model", "input_len"]
    base = rows[rows["precision"] == "BF16"].set_index(key)["factor"].rename("base")
    rows = rows.join(base, on=key)
    rows["error"] = rows["factor"] - 1
    rows["ratio_error"] = (rows["factor"] / rows["base"] - 1).where(rows["precision"] != "BF16")
    return rows.drop(columns=["factor", "base"])


def summary(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Median absolute errors by group of rows: fitted, mixtures in bf16, quantized by format and by input length."""
    quantized = rows["precision"] != "BF16"
    mixture = _is_mixture(rows)
    groups = {"bf16, fitted": ~quantized & ~mixture, "bf16, mixtures, not fitted": ~quantized & mixture, "quantized": quantized}
    groups |= {name: rows["precision"] == name for name in sorted(rows["precision"].unique()) if name != "BF16"}
    groups |= {f"quantized, input {length}": quantized & (rows["input_len"] == length) for length in sorted(rows["input_len"].unique())}
    medians = {}
    for name, chosen in groups.items():
        error = rows.loc[chosen, "error"].abs()
        ratio = rows.loc[chosen, "ratio_error"].abs().dropna()
        if error.empty:
            continue
        medians[name] = {"rows": len(error), "median": round(float(error.median()), 4), "largest": round(float(error.max()), 4)}
        if not ratio.empty:
            medians[name] |= {"ratios": len(ratio), "ratio_median": round(float(ratio.median()), 4)}
    return medians


def _is_mixture(rows: pd.DataFrame) -> pd.Series[bool]:
    return rows["model"].map(lambda name: model(name)[0].experts > 0)


def fitted() -> dict[str, dict[str, Any]]:
    """The content of `data/engines.json`: by machine the engine, its factors to four digits, and the errors with them."""
    by_machine = {}
    for source in PROFILES:
        hardware = _rounded(fit(source))
        factors = {name: getattr(hardware, name) for name in FACTORS}
        by_machine[source.hardware] = {"engine": source.engine, **factors, "errors": summary(errors(source, hardware))}
    return by_machine


def _rounded(hardware: Hardware) -> Hardware:
    factors = {name: float(np.format_float_positional(getattr(hardware, name), 4, fractional=False)) for name in FACTORS}
    return hardware.model_copy(update=factors)


def measured_engines() -> list[dict[str, Any]]:
    """The content of `data/engine_errors.json`: every engine with its factors and the errors that remain with them.

    `density.time.engine_errors.MeasuredEngine` describes the fields.
    """
    engines = []
    for source in SOURCES:
        hardware = _rounded(fit(source))
        rows = benchmarks(source)
        rows["modelled"] = predict(rows, source, hardware)
        # A speed is the inverse of a time.
        rows["log_error"] = np.log(rows["modelled"] / rows["tokens_per_s"])
        rows["mixture"] = _is_mixture(rows)
        plain = rows[rows["precision"] == "BF16"]
        base = plain.set_index(["model", "input_len"])["log_error"].rename("base")
        quantized: dict[str, list[float]] = {}
        with_base = rows[rows["precision"] != "BF16"].join(base, on=["model", "input_len"]).dropna(subset=["base"])
        errors_of_ratio = (with_base["log_error"] - with_base["base"]).to_list()
        for name, precision, error in zip(with_base["model"], with_base["precision"], errors_of_ratio, strict=True):
            quantized.setdefault(precision_class(*model(name, precision)), []).append(round(error, 3))
        engines.append(
            {
                "engine": source.engine,
                "hardware": source.hardware,
                **{name: getattr(hardware, name) for name in FACTORS},
                "quantized": quantized,
                "mixture": [round(float(error), 3) for error in plain.loc[plain["mixture"], "log_error"]],
                "level": [round(float(error), 3) for error in plain.loc[~plain["mixture"], "log_error"]],
                "size": _size_errors(plain[~plain["mixture"]]),
            }
        )
    return engines


def _size_errors(plain: pd.DataFrame) -> list[float]:
    """Of each pair of neighbouring sizes at one input length: ln of their measured time ratio over ln of the modelled one, minus 1."""
    found = []
    for _, rows in plain.sort_values("modelled").groupby("input_len"):
        modelled, measured = np.log(rows["modelled"]), np.log(rows["tokens_per_s"])
        steps = np.diff(modelled)
        apart = steps > MIN_LOG_RATIO
        found += [round(float(value), 3) for value in (np.diff(measured)[apart] / steps[apart] - 1)]
    return found


def main() -> None:
    """Fit all engines and write the data files."""
    for name, content in (("engines.json", json.dumps(fitted(), indent=2)), ("engine_errors.json", _one_engine_a_line(measured_engines()))):
        path = Path(str(resources.files("compresslab") / "data" / name))
        path.write_text(content + "\n", encoding="utf-8")
        print(f"wrote {path}")


def _one_engine_a_line(engines: list[dict[str, Any]]) -> str:
    return "[\n" + ",\n".join(f" {json.dumps(engine)}" for engine in engines) + "\n]"


if __name__ == "__main__":
    main()
