"""Evaluation by compresslab and by lm-eval's `hf` in turn: requests a second, and whether they answer alike.

    python benchmarks/evaluation.py [--case olmes] [--batches 8,32] [--rounds 2] [--data ../shared/data/hub] [--json FILE]
    python benchmarks/evaluation.py --equality [--data ../shared/data/hub]

Both answer the same requests with the same SmolLM2-135M in bfloat16, in one process, one after the other; lm-eval's `hf` at the fastest
of the batch sizes given. "of matrices": the time that the model's linear layers alone would take for the tokens computed, over ours.
`--equality` answers 3,000 requests of ten tasks in float32 and prints the largest difference of a log-likelihood.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from common import SHARED, table

from compresslab.runner.executors import ENVIRONMENT


class Case(NamedTuple):
    """Tasks (of our own names), how many examples before each question, items of each."""

    tasks: list[str]
    shots: int | None
    items: int


OLMES = ["arc_easy", "arc_challenge", "csqa", "openbookqa", "piqa", "socialiqa", "hellaswag"]
CASES = {
    **{f"olmes {name}": Case([name], None, 100) for name in OLMES},
    "mmlu 5-shot": Case(["mmlu_anatomy", "mmlu_astronomy", "mmlu_virology"], 5, 60),
    "hellaswag 0-shot": Case(["lm-eval:hellaswag"], 0, 100),
    "lambada": Case(["lambada_openai"], 0, 200),
    "gsm8k": Case(["gsm8k"], 5, 32),
}
EQUALITY = Case(
    [*OLMES[:5], "lm-eval:hellaswag", "lm-eval:piqa", "lm-eval:arc_easy", "lambada_openai", "mmlu_anatomy"],
    None,
    80,
)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", help="a part of a case's name; all without it")
    parser.add_argument("--batches", default="8,32", help="batch sizes of lm-eval's hf")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--data", type=Path, default=SHARED / "hub", help="folder with the sets under their hub names")
    parser.add_argument("--equality", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    output = given.json.resolve() if given.json else None
    os.environ |= {**ENVIRONMENT, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.chdir(given.data)
    rows = [equality()] if given.equality else list(speed(given))
    table(rows)
    if output:
        output.write_text(json.dumps(rows, indent=1) + "\n")


def equality() -> dict[str, Any]:
    """Largest difference of a log-likelihood in float32, and the requests whose greediness differs."""
    ours, theirs = contenders("float32", 8)
    instances = requests(EQUALITY)
    own, other = ours(instances), theirs(instances)
    largest = max(abs(a[0] - b[0]) for a, b in zip(own, other, strict=True))
    return {
        "requests": len(instances),
        "largest difference": largest,
        "greediness": sum(a[1] != b[1] for a, b in zip(own, other, strict=True)),
    }


def speed(given: argparse.Namespace) -> Any:
    """One row a case."""
    for name, case in CASES.items():
        if given.case and not any(part in name for part in given.case):
            continue
        instances = requests(case)
        rounds = [one_round(instances, [int(size) for size in given.batches.split(",")]) for _ in range(given.rounds)]
        best = min(rounds, key=lambda row: row["seconds"])
        row = {"case": name, "requests": len(instances), **best, "hf / ours": sorted(row["hf / ours"] for row in rounds)[len(rounds) // 2]}
        print(row, flush=True)
        yield row


def one_round(instances: list[Any], sizes: list[int]) -> dict[str, Any]:
    """Both in turn."""
    ours, _ = contenders("bfloat16", sizes[0])
    ours(instances[:8])
    seconds, answers = timed(ours, instances)
    theirs = {}
    for size in sizes:
        _, hf = contenders("bfloat16", size)
        theirs[size], others = timed(hf, instances)
    best = min(theirs, key=lambda size: theirs[size])
    generated = isinstance(answers[0], str)
    worst = math.nan if generated else max(abs(a[0] - b[0]) for a, b in zip(answers, others, strict=True))
    equal = sum(a == b for a, b in zip(answers, others, strict=True)) / len(answers) if generated else math.nan
    return {
        "seconds": seconds,
        "hf": theirs[best],
        "batch": best,
        "hf / ours": theirs[best] / seconds,
        "of matrices": math.nan if generated else matrices(instances) / seconds,
        "largest difference": worst,
        "equal texts": equal,
    }


def timed(answer: Callable[[list[Any]], list[Any]], instances: list[Any]) -> tuple[float, list[Any]]:
    """Seconds, and the answers."""
    began = time.perf_counter()
    answers = answer(instances)
    return time.perf_counter() - began, answers


def requests(case: Case) -> list[Any]:
    """lm-eval's instances of the case's items."""
    from compresslab.evaluation import tasks
    from compresslab.evaluation.harness import quiet

    instances: list[Any] = []
    with quiet():
        for name in case.tasks:
            for leaf in tasks.load(name).values():
                if case.shots is not None and leaf.config.num_fewshot != case.shots:
                    leaf.set_config(key="num_fewshot", value=case.shots)
                leaf.build_all_requests(limit=case.items)
                instances += leaf.instances
    return instances


_MODELS: dict[str, Any] = {}


def contenders(dtype: str, size: int) -> tuple[Callable[[list[Any]], list[Any]], Callable[[list[Any]], list[Any]]]:
    """Ours and lm-eval's `hf` on one model."""
    import torch
    from lm_eval.models.huggingface import HFLM

    from compresslab.evaluation.harness import quiet
    from compresslab.evaluation.treelm import TreeLM
    from compresslab.models.load import load

    if dtype not in _MODELS:
        _MODELS[dtype] = load("offline:smollm2-135m-instruct", dtype)
    model, tokenizer = _MODELS[dtype]

    def answer(lm: HFLM, instances: list[Any]) -> list[Any]:
        with quiet(), torch.inference_mode():
            generated = instances[0].request_type == "generate_until"
            found: list[Any] = lm.generate_until(instances) if generated else lm.loglikelihood(instances)
            return found

    def ours(instances: list[Any]) -> list[Any]:
        return answer(TreeLM(model, tokenizer), instances)

    def theirs(instances: list[Any]) -> list[Any]:
        return answer(HFLM(model, tokenizer=tokenizer, batch_size=size), instances)

    return ours, theirs


def matrices(instances: list[Any]) -> float:
    """Seconds that the linear layers alone take for the tokens that the tree computes, in forwards of its size."""
    import torch

    from compresslab.evaluation.treelm import TreeLM
    from compresslab.evaluation.trie import build
    from compresslab.models.anatomy import quantizable

    model, tokenizer = _MODELS["bfloat16"]
    lm = TreeLM(model, tokenizer)
    encoded = lm.encode([instance.args for instance in instances])
    trie = build([(head + tail)[:-1] for _, head, tail in encoded], [tail for _, _, tail in encoded])
    scored = len(set(trie.score_node.tolist()))
    head = model.get_output_embeddings()
    with torch.inference_mode():
        layers = list(quantizable(model).values())
        inputs = {layer.in_features: torch.randn(lm.budget, layer.in_features, dtype=torch.bfloat16) for layer in [*layers, head]}
        best = math.inf
        for _ in range(3):
            began = time.perf_counter()
            for layer in layers:
                layer(inputs[layer.in_features])
            body = time.perf_counter() - began
            head(inputs[head.in_features])
            last = time.perf_counter() - began - body
            best = min(best, body * len(trie.tokens) / lm.budget + last * scored / lm.budget)
    return best


if __name__ == "__main__":
    main()
