"""A variant's model card (sizes, scores, density, steps, recipe) in the form that model hubs read."""

from __future__ import annotations

import json
import re

import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, and not marked as exported
from jinja2 import Environment, PackageLoader, StrictUndefined

from compresslab.errors import BadInput
from compresslab.recipe.source import parse_source
from compresslab.records import StepRecord, StudyRecord, VariantRecord
from compresslab.report import facts, words

FILTERS = ("number", "count", "size", "percent", "times", "point", "ratio", "place")


def card(study: StudyRecord, variant: VariantRecord, folder: str) -> str:
    """The card as Markdown with YAML front matter. `variant` must have a size. The card's example loads the model from `folder`."""
    environment = Environment(
        loader=PackageLoader("compresslab.report"),
        autoescape=False,
        finalize=words.shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({name: getattr(words, name) for name in FILTERS} | {"plain": _plain})
    by_name = {entry.name: entry for entry in study.variants}
    parent, tasks = by_name.get(variant.parent), facts.shared_tasks(study)
    return environment.get_template("card.md.j2").render(
        study=study,
        variant=variant,
        folder=folder,
        parent=parent,
        comparison=facts.comparison_with(variant, "parent"),
        chain=words.chain(variant) or "the base",
        front=_front(study, variant),
        settings=_settings,
        bpb=facts.mean_bpb(variant, tasks),
        accuracy=facts.mean_accuracy(variant, tasks),
        parent_bpb=facts.mean_bpb(parent, tasks) if parent else None,
        parent_accuracy=facts.mean_accuracy(parent, tasks) if parent else None,
        fence=_fence(study.recipe),
        trust=", trust_remote_code=True" if _brings_code(variant) else "",
    )


def _brings_code(variant: VariantRecord) -> bool:
    """Whether a variant's folder may have the base's own code. An adopted model never brings code."""
    kinds = [step.kind for step in variant.steps]
    return "adopt" not in kinds and any(step.config.get("trust_remote_code") for step in variant.steps if step.kind == "base")


def _front(study: StudyRecord, variant: VariantRecord) -> str:
    """The front matter that hubs read. It names the base only if the base is a hub id, because hubs make a link of it."""
    tags = ["compresslab", *dict.fromkeys(step.method for step in variant.steps if step.kind != "base")]
    head: dict[str, object] = {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": tags}
    if base := _hub_id(study.base):
        head["base_model"] = base
    return yaml.safe_dump(head, sort_keys=True, allow_unicode=True).rstrip()


def _hub_id(model: str) -> str:
    """The id of a model on the hub, without its revision; empty for any other model."""
    try:
        source = parse_source(model)
        validate_repo_id(source.name)
    except (BadInput, HFValidationError):
        return ""
    return source.name if source.kind == "hub" else ""


def _settings(step: StepRecord) -> str:
    """A step's settings as JSON for a table cell."""
    text = json.dumps({name: value for name, value in step.config.items() if value is not None and name != "method"}, ensure_ascii=False)
    if len(text) <= 2:
        return ""
    ticks = "`" * (max(map(len, re.findall(r"`+", text)), default=0) + 1)  # a code span ends at as many as it begins with
    return f"{ticks}{text}{ticks}".replace("|", "\\|")


def _plain(text: str) -> str:
    """Text in one line, in which Markdown finds no code, link, picture, element of HTML or end of a cell."""
    return re.sub(r"([\\`\[\]<>|!])", r"\\\1", " ".join(text.split()))


def _fence(text: str) -> str:
    """A Markdown code fence longer than any fence in the text."""
    return "`" * (max((len(run) for run in re.findall(r"`{3,}", text)), default=2) + 1)
