"""Several studies as one, for one page: their variants side by side, and what their recipes set differently."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import NamedTuple

from compresslab.records import Comparison, Curve, StudyRecord, VariantRecord

CONTEXT = 2  # unchanged lines around a change


class Difference(NamedTuple):
    """How one study's recipe differs from another's, as the lines of a unified diff; none where they say the same."""

    left: str
    right: str
    lines: tuple[str, ...]


def merged(studies: Sequence[StudyRecord]) -> StudyRecord:
    """One record with the variants of all, each called `<study>/<variant>`; a base that two studies share, and tell alike, stands once.

    Verdicts are those of the studies. `studies` are two or more of different names.
    """
    first = studies[0]
    bases: dict[str, str] = {}
    called: dict[tuple[str, str], str] = {}
    variants: list[VariantRecord] = []
    for study in studies:
        for variant in study.variants:
            name = f"{study.study}/{variant.name}"
            # The same files with the same answers on the same ruler: a base has nothing else that a study could say of it.
            alike = variant.model_copy(update={"name": "", "root": "", "costs": {}}).model_dump_json()
            known = bases.setdefault(alike, name) if not variant.parent and variant.keys and not variant.failures else name
            called[study.study, variant.name] = known
            if known == name:
                variants.append(_renamed(variant, study.study, called))
    return StudyRecord(
        study=" + ".join(study.study for study in studies),
        question=f"How do {len(studies)} studies compare?",
        base=", ".join(dict.fromkeys(study.base for study in studies)),
        recipe="\n".join(f"# {study.study}\n{study.recipe}" for study in studies),
        variants=variants,
        provenance=max((study.provenance for study in studies), key=lambda one: one.finished),
        seconds=sum(study.seconds for study in studies),
        cached_nodes=sum(study.cached_nodes for study in studies),
        nodes=sum(study.nodes for study in studies),
        workload=first.workload if all(study.workload == first.workload for study in studies) else {},
        curves=_curves(studies),
        caveats=list(dict.fromkeys(caveat for study in studies for caveat in study.caveats)),
        notes=[*_warnings(studies), *dict.fromkeys(note for study in studies for note in study.notes)],
    )


def differences(studies: Sequence[StudyRecord]) -> list[Difference]:
    """Each study's recipe against the first one's."""
    first, before = studies[0], studies[0].recipe.splitlines()
    found = []
    for study in studies[1:]:
        lines = difflib.unified_diff(before, study.recipe.splitlines(), first.study, study.study, n=CONTEXT, lineterm="")
        found.append(Difference(first.study, study.study, tuple(lines)))
    return found


def _renamed(variant: VariantRecord, study: str, called: dict[tuple[str, str], str]) -> VariantRecord:
    def name(of: str) -> str:
        return called.get((study, of), f"{study}/{of}") if of else ""

    comparisons: list[Comparison] = [one.model_copy(update={"against": name(one.against)}) for one in variant.comparisons]
    update = {"name": name(variant.name), "parent": name(variant.parent), "root": name(variant.root), "comparisons": comparisons}
    return variant.model_copy(update=update)


def _rulers(studies: Sequence[StudyRecord]) -> list[tuple[str, float]]:
    found = ((variant.density.reference, variant.density.tokens) for study in studies for variant in study.variants if variant.density)
    return list(dict.fromkeys(found))


def _curves(studies: Sequence[StudyRecord]) -> list[Curve]:
    """The curves of the one ruler that all studies share; of each task the one that reaches farthest."""
    if len(_rulers(studies)) != 1:
        return []
    found: dict[tuple[str, str], Curve] = {}
    for curve in (curve for study in studies for curve in study.curves):
        known = found.get((curve.task, curve.unit))
        if known is None or curve.params[-1] / curve.params[0] > known.params[-1] / known.params[0]:
            found[curve.task, curve.unit] = curve
    return list(found.values())


def _warnings(studies: Sequence[StudyRecord]) -> list[str]:
    """What must be known before figures of different studies are compared."""
    told = ["Several studies on one page: each verdict is corrected for the number of comparisons of its own study only."]
    if len(rulers := _rulers(studies)) > 1:
        listed = ", ".join(f"{name} at {tokens:.3g} tokens" for name, tokens in rulers)
        told.append(f"⚠ The studies use different rulers ({listed}): densities do not compare across them, ratios r do roughly.")
    tasks = {tuple(sorted((score.task, score.items) for score in variant.scores)) for study in studies for variant in study.variants[:1]}
    if len(tasks) > 1:
        told.append(
            "⚠ The studies answer different tasks or numbers of items: means of bits per byte and accuracy do not compare across them."
        )
    if len({tuple(sorted(study.workload.items())) for study in studies}) > 1:
        told.append("⚠ The studies time different requests (batch, prompt, decode): their inference times do not compare.")
    machines = sorted({study.provenance.machine for study in studies})
    if len(machines) > 1:
        told.append(f"⚠ The studies ran on different machines ({', '.join(machines)}): neither measured times nor this-machine's compare.")
    prompts: dict[tuple[str, int], set[str]] = {}
    for score in (score for study in studies for variant in study.variants for score in variant.scores):
        prompts.setdefault((score.task, score.items), set()).add(score.prompts)
    if odd := sorted(task for (task, _), found in prompts.items() if len(found) > 1):
        told.append(f"⚠ {', '.join(odd)}: the studies asked with other prompts under the same task's name.")
    return told
