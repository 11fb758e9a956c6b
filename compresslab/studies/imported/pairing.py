"""Whether imported models were asked the same, so that their scores can be compared."""

from __future__ import annotations

from collections.abc import Sequence

from compresslab.errors import BadInput
from compresslab.records import ItemScores
from compresslab.studies.imported.files import ModelResults


def check_asked_alike(models: Sequence[ModelResults], tasks: Sequence[str]) -> None:
    """Check what lm-eval's results say of the settings.

    Raises:
        BadInput: two models were asked a task with other shots, in another version, or with other instructions.
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
            for setting, value in one.settings.items():
                if value != other.settings[setting]:
                    raise BadInput(
                        f"{task}: the {setting} of {first.name} is {value[:60]!r}, that of {model.name} {other.settings[setting][:60]!r}; "
                        "evaluate both alike, or leave the task out with --task"
                    )


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
