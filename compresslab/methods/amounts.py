"""Turns shares and parameter targets into numbers of layers, neurons and heads.

The plan calls it with the dimensions known before a model is loaded, the step with the loaded model. Both get the same result.
"""

from __future__ import annotations

from typing import NamedTuple


class Misfit(Exception):
    """Settings that a model cannot take.

    Attributes:
        problems: pairs of a field and what is wrong with it.
    """

    def __init__(self, *problems: tuple[str, str]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{field}: {reason}" for field, reason in problems))


class Widths(NamedTuple):
    """Widths of every layer: MLP neurons, groups (a key and value head with its query heads), and channels of the hidden states."""

    neurons: int
    groups: int
    hidden: int


def parameter_target(parameters: int | float, total: int) -> int:
    """The maximum number of parameters that stay: the number itself, or the share of `total`.

    Raises:
        Misfit: the target is not below `total`.
    """
    target = parameters if isinstance(parameters, int) else int(parameters * total)
    if target >= total:
        raise Misfit(("parameters", f"the model has {total:,} parameters here, so {target:,} leaves nothing to drop; take fewer"))
    return target


def number_to_keep(field: str, keep: int | float | None, total: int, what: str, multiple: int, problems: list[tuple[str, str]]) -> int:
    """The number that `keep` (a number, a share, or `None` for all) leaves of `total`. An illegal one is added to `problems`."""
    if keep is None:
        return total
    number = keep if isinstance(keep, int) else round(keep * total / multiple) * multiple
    if not 0 < number < total:
        steps = f" (in steps of {multiple})" if multiple > 1 and keep != number else ""
        leaves = "" if keep == number else f"{keep} leaves {number}{steps}; "
        problems.append((field, f"{leaves}the model has {total} {what} here; keep at least 1 and at most {total - 1}"))
    return number
