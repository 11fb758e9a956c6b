"""Whether imported models were asked the same, so that their scores can be compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compresslab.errors import BadInput
from compresslab.records import ItemScores
from compresslab.studies.imported.asking import difference
from compresslab.studies.imported.files import ModelResults


def check_asked_alike(models: Sequence[ModelResults], tasks: Sequence[str], *, by_items: bool) -> None:
    """Check what lm-eval's results say of the settings.

    Args:
        by_items: the samples will be paired, which tells how many items differ.

    Raises:
        BadInput: two models were asked a task with other shots, in another version, with other prompts or instructions, or another number
            of items.
    """
    first = models[0]
    for model in models[1:]:
        for task in tasks:
            one, other = first.tasks[task], model.tasks[task]
            if one.shots != other.shots or one.leaves != other.leaves:
                raise BadInput(
                    f"{task}: {first.name} was asked with {one.shots} shots, {model.name} with {other.shots}; evaluate both with the same "
                    "--num_fewshot, or leave the task out with --task"
                    if one.shots != other.shots
                    else f"{task}: {first.name} and {model.name} were asked other parts of it; evaluate both with the same lm-eval"
                )
            for setting in sorted(one.settings.keys() | other.settings.keys(), key=[*one.settings, *other.settings].index):
                values = one.settings.get(setting, ""), other.settings.get(setting, "")
                if values[0] != values[1]:
                    here, there = difference(*values)
                    raise BadInput(
                        f"{task}: the {setting} of {first.name} is {here!r}, that of {model.name} {there!r}; "
                        "evaluate both alike, or leave the task out with --task"
                    )
            if not by_items and one.items != other.items:
                raise BadInput(
                    f"{task}: {first.name} answered {one.items or 'an unstated number of'} items, {model.name} "
                    f"{other.items or 'an unstated number'}; evaluate both with the same --limit, or leave the task out with --task"
                )


def ways_apart(models: Sequence[ModelResults]) -> Iterator[str]:
    """What differs between the models and may be meant, as warnings: how weights were loaded, what ran them, and their chat templates."""
    for what, values in (
        ("in other dtypes", {model.name: model.dtype for model in models if model.dtype}),
        ("by other backends of lm-eval", {model.name: model.backend for model in models if model.backend}),
        ("under other chat templates", {model.name: f"sha256 {model.template}" for model in models if model.template}),
    ):
        if len(set(values.values())) > 1:
            each = ", ".join(f"{name} ({value})" for name, value in values.items())
            yield f"⚠ The models were evaluated {what}: {each}. A difference in score may come from that."


def check_paired(task: str, child: str, one: ItemScores, parent: str, other: ItemScores) -> None:
    """Check that two models answered the same items of a task.

    Raises:
        BadInput: they do not pair; the message says from where on.
    """
    advice = "evaluate both with the same tasks, --limit and shots, or leave the samples out to compare by standard errors"
    if one.item != other.item:
        common = len(set(one.item) & set(other.item))
        raise BadInput(
            f"{task}: the samples of {child} and {parent} do not pair: {len(one.item)} and {len(other.item)} items, {common} of them of "
            f"the same number; {advice}"
        )
    pairs = zip(one.item, one.prompt_hash or [], other.prompt_hash or [], one.gold, other.gold, strict=True)
    different = [item for item, hash_one, hash_other, gold_one, gold_other in pairs if (hash_one, gold_one) != (hash_other, gold_other)]
    if different:
        raise BadInput(
            f"{task}: the samples of {child} and {parent} do not pair: {len(different)} of {len(one.item)} items ask something else, "
            f"first item {different[0]}; {advice}"
        )
