"""Files of results and samples in the form of lm-eval 0.4, and what an import of them refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compresslab.errors import BadInput
from compresslab.studies.imported.study import ImportRequest, import_study

TIME = "2026-11-26T22-05-28.123456"
SIZES = ("a=4e9", "b=2e9")
Results = Callable[..., str]


def content(model: str, tasks: dict[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Results in the form of lm-eval 0.4."""
    return {
        "results": {
            task: {"alias": task, "acc,none": own["acc"], "acc_stderr,none": own.get("error", 0.01)} for task, own in tasks.items()
        },
        "group_subtasks": {},
        "configs": {task: {"task": task, "output_type": "multiple_choice", "target_delimiter": " "} for task in tasks},
        "versions": dict.fromkeys(tasks, 1.0),
        "n-shot": {task: own.get("shots", 0) for task, own in tasks.items()},
        "n-samples": {task: {"original": 1000, "effective": own.get("items", 1000)} for task, own in tasks.items()},
        "config": {"model": "hf", "model_args": {"pretrained": model}},
        "lm_eval_version": "0.4.13",
        "model_name": model,
        "chat_template": None,
        **more,
    }


def sample(number: int, target: str, logprobs: list[float], acc: float, options: tuple[str, ...] = ("fox", "dog", "sun")) -> dict[str, Any]:
    return {
        "doc_id": number,
        "doc": {},
        "target": target,
        "arguments": {f"gen_args_{i}": {"arg_0": f"Question {number}", "arg_1": f" {option}"} for i, option in enumerate(options)},
        "resps": [[[str(value), "False"]] for value in logprobs],
        "filtered_resps": [],
        "filter": "none",
        "metrics": ["acc"],
        "doc_hash": str(number),
        "acc": acc,
    }


def write_samples(results_path: str, rows: list[Any], task: str = "pets", time: str = TIME) -> str:
    path = Path(results_path).parent / f"samples_{task}_{time}.jsonl"
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return str(path)


def refused(files: list[str], message: str, **request: Any) -> None:
    with pytest.raises(BadInput, match=message):
        import_study(ImportRequest(files, **{"parents": ["a"], "sizes": SIZES, **request}))
