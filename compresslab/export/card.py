"""A variant's model card (sizes, scores, density, steps, recipe) in the form that model hubs read."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from compresslab.export.metadata import front_matter
from compresslab.export.origin import Origin
from compresslab.export.shipped import Shipped
from compresslab.records import StepRecord, StudyRecord, VariantRecord
from compresslab.report import facts, words
from compresslab.versions import version

# Packages that transformers needs to load packed weights, by `quant_method` of config.json.
LOADERS = {
    "gptq": ("gptqmodel", "optimum"),
    "awq": ("gptqmodel",),
    "bitsandbytes": ("bitsandbytes", "accelerate"),
    "compressed-tensors": ("compressed-tensors",),
    "torchao": ("torchao",),
}
FILTERS = ("number", "count", "size", "percent", "times", "point", "ratio", "place")


class Target(NamedTuple):
    """What a card stands beside.

    Attributes:
        name: the folder or GGUF file, or the repository of the folder on the Hub. The card's example loads the model from there.
        quant_method: of packed weights in the folder; empty for plain ones.
        gguf: the format of most weights of a GGUF file ("Q8_0"); empty for a folder.
        repository: of a GGUF file on the Hub; empty for one that stays on this machine.
        own_card: the file beside it with the card of the model that the variant was made from; empty if there is none.
    """

    name: str
    quant_method: str = ""
    gguf: str = ""
    own_card: str = ""
    repository: str = ""

    @property
    def rounded(self) -> bool:
        """Whether the file holds other values than the model that was scored."""
        return self.gguf.startswith("Q")


def card(study: StudyRecord, variant: VariantRecord, target: Target, origin: Origin | None = None, shipped: Shipped | None = None) -> str:
    """The card as Markdown with YAML front matter. `variant` must have a size.

    Args:
        origin: what is known of the model that the variant was made from.
        shipped: what a GGUF file scored.
    """
    known = origin or Origin()
    if target.gguf:
        known = known.beside_nothing()
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
        target=target,
        origin=known,
        packages=_packages(study, target),
        parent=parent,
        comparison=facts.comparison_with(variant, "parent"),
        chain=words.chain(variant) or "the base",
        front=front_matter(study, variant, known, target.gguf, shipped.scores if shipped else None),
        shipped=shipped,
        settings=_settings,
        bpb=facts.mean_bpb(variant, tasks),
        accuracy=facts.mean_accuracy(variant, tasks),
        parent_bpb=facts.mean_bpb(parent, tasks) if parent else None,
        parent_accuracy=facts.mean_accuracy(parent, tasks) if parent else None,
        fence=_fence(study.recipe),
        trust=", trust_remote_code=True" if _brings_code(variant) and not target.gguf else "",
    )


def _brings_code(variant: VariantRecord) -> bool:
    """Whether a variant's folder may have the base's own code. An adopted model never brings code."""
    kinds = [step.kind for step in variant.steps]
    return "adopt" not in kinds and any(step.config.get("trust_remote_code") for step in variant.steps if step.kind == "base")


def _packages(study: StudyRecord, target: Target) -> dict[str, str]:
    """The packages that load the model, with the versions with which it was checked."""
    if target.gguf:
        names: tuple[str, ...] = ("torch", "transformers", "gguf")
    else:
        names = ("torch", "transformers", *LOADERS.get(target.quant_method, (target.quant_method,) if target.quant_method else ()))
    versions = {name: study.provenance.versions.get(name) or version(name) for name in names}
    return {name: "" if found == "absent" else found for name, found in versions.items()}


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
