"""One contender answers a case of `evaluation.py`: a process of its own, so that each has its environment and its memory."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch


def main() -> None:
    """Read the settings, answer, print seconds and what was computed."""
    given = json.loads(Path(sys.argv[1]).read_text())
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.chdir(given["data"])
    from lm_eval.models.huggingface import HFLM

    from compresslab.evaluation.engines import choose
    from compresslab.evaluation.harness import quiet
    from compresslab.evaluation.tree_lm import TreeLM
    from compresslab.models.load import load

    if given["branched"]:
        (engine,) = (candidate for candidate in choose.LOG_LIKELIHOODS if candidate.name == "branched")
        choose.LOG_LIKELIHOODS = (engine._replace(objection=lambda *_: ""),)
    loaded = load("offline:smollm2-135m-instruct", given["dtype"])
    instances = requests(given)
    with quiet(), torch.inference_mode():
        if given["engine"] == "ours":
            lm: Any = TreeLM(loaded.model, loaded.tokenizer, budget=given.get("budget"))
        else:
            lm = HFLM(loaded.model, tokenizer=loaded.tokenizer, batch_size=given["batch"])
        answer = lm.generate_until if instances[0].request_type == "generate_until" else lm.loglikelihood
        # Warm: what is loaded and compiled at first use. One whole answer is long enough where answers are generated.
        answer(instances[: 1 if instances[0].request_type == "generate_until" else 8])
        began = time.perf_counter()
        answers = answer(instances)
        told = {"seconds": time.perf_counter() - began, "requests": len(instances)}
        if given["engine"] == "ours" and answer == lm.loglikelihood:
            told |= computed(lm, instances)
    items = [f"{instance.task_name}/{instance.doc_id}" for instance in instances]
    Path(given["answers"]).write_text(json.dumps({"items": items, "answers": answers}))
    print("RESULT", json.dumps(told))


def requests(given: dict[str, Any]) -> list[Any]:
    """lm-eval's instances of the case's items."""
    from compresslab.evaluation import tasks
    from compresslab.evaluation.harness import quiet

    instances: list[Any] = []
    with quiet():
        for name in given["tasks"]:
            for leaf in tasks.load(name).values():
                if given["shots"] is not None:
                    leaf.set_config(key="num_fewshot", value=given["shots"])
                leaf.build_all_requests(limit=given["items"].get(name) if isinstance(given["items"], dict) else given["items"])
                instances += leaf.instances
    return instances


def computed(lm: Any, instances: list[Any]) -> dict[str, float]:
    """Tokens asked for and computed, and seconds that the linear layers alone take for the latter, in forwards of the tree's size."""
    from compresslab.evaluation.engines.trie import build
    from compresslab.models.anatomy import quantizable

    encoded = lm.encode([instance.args for instance in instances])
    trie = build([(head + tail)[:-1] for _, head, tail in encoded], [tail for _, _, tail in encoded])
    scored = len(set(trie.score_node.tolist()))
    head = lm.model.get_output_embeddings()
    layers = list(quantizable(lm.model).values())
    inputs = {layer.in_features: torch.randn(lm.budget, layer.in_features, dtype=lm.model.dtype) for layer in [*layers, head]}
    best = math.inf
    for _ in range(5):
        began = time.perf_counter()
        for layer in layers:
            layer(inputs[layer.in_features])
        body = time.perf_counter() - began
        head(inputs[head.in_features])
        last = time.perf_counter() - began - body
        best = min(best, body * len(trie.tokens) / lm.budget + last * scored / lm.budget)
    return {"asked": sum(len(head) + len(tail) for _, head, tail in encoded), "computed": len(trie.tokens), "matrices": best}


if __name__ == "__main__":
    main()
