"""Evaluation by compresslab and by lm-eval's `hf` in turn: seconds, memory, and whether they answer alike.

    python benchmarks/evaluation.py [--case olmes] [--rounds 2] [--dtype float32] [--data ../shared/data/hub] [--json FILE]
    python benchmarks/evaluation.py --equality
    python benchmarks/evaluation.py --memory
    python benchmarks/evaluation.py --full

Both answer the same requests with the same SmolLM2-135M in one dtype (`--dtype`, bfloat16 without it), in processes of their own, one after
the other: ours in the environment of a study's workers, lm-eval's in the system's, at the fastest of several batch sizes (tried on a
quarter of the items).
"of matrices": the time that the model's linear layers alone take for the tokens computed, over ours. "differ": share of items whose
likeliest option is another one, ours against hf and hf against itself at another batch size.

`--equality` answers 3,000 requests of ten tasks in float32 and prints the largest difference of a log-likelihood. `--memory` prints our
peak memory at several budgets, `--full` the time of all seven OLMES tasks in full (hellaswag: 1,000 items).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from common import HERE, OURS, SHARED, RunResult, run, table


class Case(NamedTuple):
    """Tasks (of our own names), examples before each question (`None`: as the task says), items of each (not named: all), hf's batches,
    and whether ours goes along branches, as it does for recurrent models."""

    tasks: list[str]
    shots: int | None
    items: int | dict[str, int]
    batches: tuple[int, ...] = (4, 16)
    branched: bool = False


OLMES = ["arc_easy", "arc_challenge", "csqa", "openbookqa", "piqa", "socialiqa", "hellaswag"]
CASES = {
    **{f"olmes {name}": Case([name], None, 100) for name in OLMES},
    "mmlu 5-shot": Case(["mmlu_anatomy", "mmlu_astronomy", "mmlu_virology"], 5, 60),
    "hellaswag 0-shot": Case(["lm-eval:hellaswag"], 0, 100, (8, 32)),
    "lambada": Case(["lambada_openai"], 0, 200, (8, 32)),
    "gsm8k": Case(["gsm8k"], 5, 16, (16,)),
    "along branches": Case(["arc_easy"], None, 100, branched=True),
}
EQUALITY = Case([*OLMES[:5], "lm-eval:hellaswag", "lm-eval:piqa", "lm-eval:arc_easy", "lambada_openai", "mmlu_anatomy"], None, 100)


class Answered(NamedTuple):
    """What a contender told, and its answers: (log-likelihood, greedy) pairs or texts, and the item of each."""

    ran: RunResult
    items: list[str]
    answers: list[Any]


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", help="a part of a case's name; all without it")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--dtype", default="bfloat16", help="what both compute in")
    parser.add_argument("--data", type=Path, default=SHARED / "hub", help="folder with the sets under their hub names")
    parser.add_argument("--equality", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    cases = {name: case for name, case in CASES.items() if not given.case or any(part in name for part in given.case)}
    if given.equality:
        rows = [equality(given.data)]
    elif given.full:
        ran = contender("ours", Case(OLMES, None, {"hellaswag": 1000}), given.data).ran
        rows = [{**ran.parts, "GB": ran.memory / 1e9, "tokens a second": ran.parts["computed"] / ran.parts["seconds"]}]
    else:
        rows = []
        for name, case in cases.items():
            found = list(memory(case, given.data)) if given.memory else [in_turn(case, given.data, given.rounds, given.dtype)]
            rows += [{"case": name, **row} for row in found]
            print(rows[-1], flush=True)
    table(rows)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


def in_turn(case: Case, data: Path, rounds: int, dtype: str) -> dict[str, Any]:
    """One case: ours, then hf at its best batch size, `rounds` times; medians."""
    assert isinstance(case.items, int)
    tried = {size: contender("hf", case._replace(items=case.items // 4), data, dtype=dtype, batch=size) for size in case.batches}
    best = min(tried, key=lambda size: tried[size].ran.parts["seconds"])
    pairs = [(contender("ours", case, data, dtype=dtype), contender("hf", case, data, dtype=dtype, batch=best)) for _ in range(rounds)]
    ours, hf = pairs[0]
    parts = ours.ran.parts
    row = {
        "requests": parts["requests"],
        "ours": statistics.median(own.ran.parts["seconds"] for own, _ in pairs),
        "hf": statistics.median(other.ran.parts["seconds"] for _, other in pairs),
        "batch": best,
        "hf / ours": statistics.median(other.ran.parts["seconds"] / own.ran.parts["seconds"] for own, other in pairs),
        "GB": ours.ran.memory / 1e9,
        "hf GB": hf.ran.memory / 1e9,
    }
    if isinstance(ours.answers[0], str):
        return {**row, "equal texts": sum(a == b for a, b in zip(ours.answers, hf.answers, strict=True)) / len(ours.answers)}
    other = next(size for size in case.batches if size != best)
    return {
        **row,
        "asked": parts["asked"],
        "computed": parts["computed"],
        "of matrices": statistics.median(own.ran.parts["matrices"] / own.ran.parts["seconds"] for own, _ in pairs),
        "differ": differ(ours, hf),
        "hf differ": differ(tried[best], tried[other]),
        "largest": max(abs(a[0] - b[0]) for a, b in zip(ours.answers, hf.answers, strict=True)),
        "hf largest": max(abs(a[0] - b[0]) for a, b in zip(tried[best].answers, tried[other].answers, strict=True)),
    }


def differ(left: Answered, right: Answered) -> float:
    """Share of items whose likeliest option is another one."""
    chosen = []
    for answered in (left, right):
        options: dict[str, list[float]] = {}
        for item, (logprob, _) in zip(answered.items, answered.answers, strict=True):
            options.setdefault(item, []).append(logprob)
        chosen.append([logprobs.index(max(logprobs)) for logprobs in options.values()])
    return sum(a != b for a, b in zip(*chosen, strict=True)) / len(chosen[0])


def equality(data: Path) -> dict[str, Any]:
    """Largest difference of a log-likelihood in float32, and the requests whose greediness or items whose likeliest option differs."""
    ours, hf = contender("ours", EQUALITY, data, dtype="float32"), contender("hf", EQUALITY, data, dtype="float32", batch=8)
    pairs = list(zip(ours.answers, hf.answers, strict=True))
    return {
        "requests": len(pairs),
        "largest difference": max(abs(a[0] - b[0]) for a, b in pairs),
        "greediness": sum(a[1] != b[1] for a, b in pairs),
        "items": differ(ours, hf),
    }


def memory(case: Case, data: Path) -> Iterator[dict[str, Any]]:
    """Our peak memory at several budgets, and in a process that answers nearly nothing."""
    few = contender("ours", case._replace(items=2), data, budget=64).ran
    for budget in (128, 512, 1024):
        ran = contender("ours", case, data, budget=budget).ran
        yield {
            "budget": budget,
            "seconds": ran.parts["seconds"],
            "GB": ran.memory / 1e9,
            "above two items, GB": (ran.memory - few.memory) / 1e9,
        }


def contender(engine: str, case: Case, data: Path, *, dtype: str = "bfloat16", batch: int = 8, budget: int | None = None) -> Answered:
    """Let one of both answer."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answers.json"
        settings = {"engine": engine, **case._asdict(), "data": str(data.resolve()), "dtype": dtype, "batch": batch, "budget": budget}
        ran = run(OURS, HERE / "answer.py", {**settings, "answers": str(file)}, ours=engine == "ours")
        return Answered(ran, **json.loads(file.read_text()))


if __name__ == "__main__":
    main()
