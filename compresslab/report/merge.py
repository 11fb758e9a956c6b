"""Merges several studies into one record for one page, with the differences of their recipes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import NamedTuple

from compresslab.records import Comparison, Curve, Noise, PublishedLaws, StudyRecord, TextOverlap, VariantRecord
from compresslab.report import facts, words
from compresslab.report.extent.altered import altered

CONTEXT = 2  # unchanged lines around a change


class Difference(NamedTuple):
    """The unified diff of two studies' recipes, by lines; empty if they are equal."""

    left: str
    right: str
    lines: tuple[str, ...]


def merged(studies: Sequence[StudyRecord], *, rank: bool = False) -> StudyRecord:
    """One record with the variants of all studies, named `<study>/<variant>`. A base with equal records in two studies appears once.

    Verdicts are those of the studies. `studies` are two or more with different names. With `rank` the answer names the highest of all
    variants, also if they rest on different benchmarks.
    """
    first = studies[0]
    bases: dict[str, str] = {}
    new_names: dict[tuple[str, str], str] = {}
    variants: list[VariantRecord] = []
    for study in studies:
        for variant in study.variants:
            name = f"{study.study}/{variant.name}"
            # Equal content means the same files with the same answers on the same reference, so one entry represents both.
            content = variant.model_copy(update={"name": "", "root": "", "costs": {}}).model_dump_json()
            merged_name = bases.setdefault(content, name) if not variant.parent and variant.keys and not variant.failures else name
            new_names[study.study, variant.name] = merged_name
            if merged_name == name:
                variants.append(_renamed(variant, study.study, new_names))
    return StudyRecord(
        study=" + ".join(study.study for study in studies),
        question=f"How do {len(studies)} studies compare?",
        base=", ".join(dict.fromkeys(study.base for study in studies)),
        recipe="\n".join(f"# {study.study}\n{study.recipe}" for study in studies),
        variants=variants,
        provenance=max((study.provenance for study in studies), key=lambda provenance: provenance.finished),
        seconds=sum(study.seconds for study in studies),
        cached_nodes=sum(study.cached_nodes for study in studies),
        nodes=sum(study.nodes for study in studies),
        workload=first.workload if all(study.workload == first.workload for study in studies) else {},
        curves=_curves(studies),
        overlaps=_overlaps(studies, new_names),
        laws=_laws(studies, new_names),
        ranked=rank or len(_benchmarks(studies)) <= 1,
        caveats=[
            *_different_benchmarks(studies),
            *_altered(studies),
            *_other_rulers(studies),
            *dict.fromkeys(caveat for study in studies for caveat in study.caveats),
        ],
        notes=[*_warnings(studies), *dict.fromkeys(note for study in studies for note in study.notes)],
    )


def differences(studies: Sequence[StudyRecord]) -> list[Difference]:
    """The difference of each study's recipe from the first one's."""
    first, before = studies[0], studies[0].recipe.splitlines()
    result = []
    for study in studies[1:]:
        lines = difflib.unified_diff(before, study.recipe.splitlines(), first.study, study.study, n=CONTEXT, lineterm="")
        result.append(Difference(first.study, study.study, tuple(lines)))
    return result


def _overlaps(studies: Sequence[StudyRecord], new_names: dict[tuple[str, str], str]) -> list[TextOverlap] | None:
    """The texts of all studies with their variants' new names; `None` if one of the studies was not looked at."""
    result: list[TextOverlap] = []
    for study in studies:
        if study.overlaps is None:
            return None
        names = {variant.name: new_names[study.study, variant.name] for variant in study.variants}
        result += [text.model_copy(update={"variants": [names[name] for name in text.variants]}) for text in study.overlaps]
    return result


def _laws(studies: Sequence[StudyRecord], new_names: dict[tuple[str, str], str]) -> PublishedLaws | None:
    """The published laws of all studies with their variants' new names; `None` if nobody looked in any study."""
    if all(study.laws is None for study in studies):
        return None
    result = PublishedLaws()
    for study in studies:
        if study.laws is None:
            continue
        names = {variant.name: new_names[study.study, variant.name] for variant in study.variants}
        for row in study.laws.predictions:
            result.predictions.append(row.model_copy(update={field: names[getattr(row, field)] for field in ("variant", "against")}))
        for fit in study.laws.refits:
            lists = {field: [names[name] for name in getattr(fit, field)] for field in ("variants", "left_out")}
            result.refits.append(fit.model_copy(update={"parent": names[fit.parent], **lists}))
    return result


def _renamed(variant: VariantRecord, study: str, new_names: dict[tuple[str, str], str]) -> VariantRecord:
    def name(old_name: str) -> str:
        return new_names.get((study, old_name), f"{study}/{old_name}") if old_name else ""

    comparisons: list[Comparison] = [
        comparison.model_copy(update={"against": name(comparison.against)}) for comparison in variant.comparisons
    ]
    noise = None
    if variant.noise is not None:
        differences = [floor.model_copy(update={"against": name(floor.against)}) for floor in variant.noise.differences]
        divergences = [floor.model_copy(update={"against": name(floor.against)}) for floor in variant.noise.divergences]
        noise = Noise(differences=differences, divergences=divergences)
    update = {field: name(getattr(variant, field)) for field in ("name", "parent", "root", "replicate_of")}
    return variant.model_copy(update={**update, "comparisons": comparisons, "noise": noise})


def _benchmarks(studies: Sequence[StudyRecord]) -> dict[tuple[str, ...], list[str]]:
    """The studies by the benchmarks on which their named variants' verdicts against the base rest."""
    found: dict[tuple[str, ...], list[str]] = {}
    for study in studies:
        compared = [facts.comparison_with(variant, "root") for variant in study.variants if variant.parent and variant.named]
        for tasks in {facts.benchmarks(one) for one in compared if one is not None and one.headline[0] is not None}:
            found.setdefault(tasks, []).append(study.study)
    return found


def _different_benchmarks(studies: Sequence[StudyRecord]) -> list[str]:
    """A caveat if the verdicts of the studies rest on different benchmarks."""
    found = _benchmarks(studies)
    if len(found) <= 1:
        return []
    listed = "; ".join(
        f"{len(tasks)} task{'s' if len(tasks) != 1 else ''} ({words.truncate(', '.join(tasks), 60)}): {words.join_names(names)}"
        for tasks, names in found.items()
    )
    return [f"⚠ The verdicts rest on different benchmarks ({listed}): r does not compare across them."]


def _altered(studies: Sequence[StudyRecord]) -> list[str]:
    """A caveat for each study whose run had other settings than its recipe."""
    changed = [(study.study, altered(study).sentence) for study in studies]
    return [f"⚠ {name} is not its recipe as it is written: {sentence}." for name, sentence in changed if sentence]


def _other_rulers(studies: Sequence[StudyRecord]) -> list[str]:
    """Caveats where the studies were read by different rulers, or count N differently for the same step."""
    caveats = []
    read_by = [" and ".join(facts.rulers(study)) for study in studies]
    if len({rulers for rulers in read_by if rulers}) > 1:
        listed = "; ".join(f"{study.study}: {rulers or 'none'}" for study, rulers in zip(studies, read_by, strict=True))
        caveats.append(f"⚠ The studies use different rulers ({listed}): densities do not compare across them, ratios r do roughly.")
    counted: dict[str, dict[str, list[str]]] = {}
    for study in studies:
        for variant in study.variants:
            comparison = facts.comparison_with(variant, "parent") if variant.parent and variant.steps else None
            if comparison is not None:
                names = counted.setdefault(words.step_name(variant.steps[-1]), {}).setdefault(words.COUNTS[comparison.count], [])
                names += [study.study] if study.study not in names else []
    different = {step: by_count for step, by_count in counted.items() if len({tuple(names) for names in by_count.values()}) > 1}
    if different:
        listed = "; ".join(
            f"{step} {', '.join(f'{count} in {words.join_names(names)}' for count, names in by_count.items())}"
            for step, by_count in different.items()
        )
        caveats.append(
            f"⚠ The studies count N differently for the same step ({listed}): each verdict names its count, and the table of ratios has r "
            "by every count. A page from before verdicts had their own count is by parameters; `compresslab run RECIPE` writes it anew."
        )
    return caveats


def _curves(studies: Sequence[StudyRecord]) -> list[Curve]:
    """The curves of the studies' reference, for each task the one with the largest range of sizes; none if they have several references."""
    if len({ruler for study in studies for ruler in facts.rulers(study)}) != 1:
        return []
    result: dict[tuple[str, str], Curve] = {}
    for curve in (curve for study in studies for curve in study.curves):
        widest = result.get((curve.task, curve.unit))
        if widest is None or curve.params[-1] / curve.params[0] > widest.params[-1] / widest.params[0]:
            result[curve.task, curve.unit] = curve
    return list(result.values())


def _warnings(studies: Sequence[StudyRecord]) -> list[str]:
    """Warnings about what does not compare between the studies."""
    warnings = ["Several studies on one page: each verdict is corrected for the number of comparisons of its own study only."]
    tasks = {tuple(sorted((score.task, score.items) for score in variant.scores)) for study in studies for variant in study.variants[:1]}
    if len(tasks) > 1:
        warnings.append(
            "⚠ The studies answer different tasks or numbers of items: means of bits per byte and accuracy do not compare across them."
        )
    if len({tuple(sorted(study.workload.items())) for study in studies}) > 1:
        warnings.append("⚠ The studies time different requests (batch, prompt, decode): their inference times do not compare.")
    machines = sorted({study.provenance.machine for study in studies})
    if len(machines) > 1:
        warnings.append(
            f"⚠ The studies ran on different machines ({', '.join(machines)}): neither measured times nor this-machine's compare."
        )
    prompts: dict[tuple[str, int], set[str]] = {}
    for score in (score for study in studies for variant in study.variants for score in variant.scores):
        prompts.setdefault((score.task, score.items), set()).add(score.prompts)
    if different_prompts := sorted(task for (task, _), hashes in prompts.items() if len(hashes) > 1):
        warnings.append(f"⚠ {', '.join(different_prompts)}: the studies asked with other prompts under the same task's name.")
    return warnings
