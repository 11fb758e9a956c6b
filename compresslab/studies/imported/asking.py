"""What decides what a model was asked, and how, as lm-eval's results state it. Two models compare where all of it is equal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

FIELDS = (
    "dataset_name",
    "test_split",
    "doc_to_text",
    "doc_to_target",
    "doc_to_choice",
    "description",
    "target_delimiter",
    "gen_prefix",
    "process_docs",
    "process_results",
    "use_prompt",
    "output_type",
    "generation_kwargs",
    "repeats",
    "filter_list",
)
"""Settings of a task in `configs` that change a question, its answer, or what counts as right."""

FEW_SHOT_FIELDS = ("fewshot_split", "fewshot_delimiter", "fewshot_config")
"""Those that matter where examples stand before a question."""

SHOWN = 60  # characters of a value in a message


def settings_of(content: Mapping[str, Any], leaves: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The settings of one task, or of a group of tasks, by their names in words.

    Args:
        content: a file of results. leaves: the tasks that were asked.
    """
    yield "version of the task", ", ".join(sorted({str(content["versions"].get(leaf)) for leaf in leaves}))
    yield "system instruction", str(content.get("system_instruction") or "")
    yield "chat template", "one was applied" if template_of(content) else "none was applied"
    configs = [content["configs"][leaf] for leaf in leaves]
    shots = any(content["n-shot"].get(leaf) for leaf in leaves)
    if shots and template_of(content):
        yield "fewshot_as_multiturn", str(bool(content.get("fewshot_as_multiturn")))
    if shots:
        loaded = content.get("config")
        yield "fewshot_seed", str(loaded.get("fewshot_seed") if isinstance(loaded, dict) else None)
    for name in (*FIELDS, *(FEW_SHOT_FIELDS if shots else ())):
        yield name, _joined([config.get(name) for config in configs])


def template_of(content: Mapping[str, Any]) -> str:
    """The digest of the chat template of a file of results; "" where none was applied."""
    stated = content.get("chat_template")
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()[:12] if stated else ""


def difference(one: str, other: str) -> tuple[str, str]:
    """Two values that differ, cut to where they do."""
    first = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    start = max(0, first - SHOWN // 3) if max(len(one), len(other)) > SHOWN else 0

    def cut(text: str) -> str:
        return "…" * bool(start) + text[start : start + SHOWN] + "…" * (len(text) > start + SHOWN)

    return cut(one), cut(other)


def _joined(values: Sequence[Any]) -> str:
    """The values of all tasks of a group as a text; one where they are equal. A function without its place in memory."""
    texts = [value if isinstance(value, str) else json.dumps(_plain(value), sort_keys=True, ensure_ascii=False) for value in values]
    texts = [text.partition(" at 0x")[0] for text in texts]
    return texts[0] if len(set(texts)) == 1 else "; ".join(texts)


def _plain(value: Any) -> Any:
    """Without what is not set, since versions of lm-eval write other defaults."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items() if one not in (None, "")}
    return [_plain(one) for one in value] if isinstance(value, list) else value
