"""Where shares and parameter targets become numbers of layers, neurons and heads.

The plan asks with what it knows of a model before it is loaded, the step with the model itself; both get the same answer.
"""

from __future__ import annotations

from typing import NamedTuple


class Misfit(Exception):
    """Settings that a model cannot take.

    Attributes:
        found: the field to blame and the reason, for each.
    """

    def __init__(self, *found: tuple[str, str]) -> None:
        self.found = found
        super().__init__("; ".join(f"{field}: {reason}" for field, reason in found))


class Widths(NamedTuple):
    """MLP neurons, key and value heads (each with its query heads: a group), and channels of the hidden states, of every layer."""

    neurons: int
    groups: int
    hidden: int


def parameters_wanted(parameters: int | float, total: int) -> int:
    """The most parameters that may stay: the number, or the share of `total`.

    Raises:
        Misfit: the model fits as it is.
    """
    target = parameters if isinstance(parameters, int) else int(parameters * total)
    if target >= total:
        raise Misfit(("parameters", f"the model has {total:,} parameters here, so {target:,} leaves nothing to drop; take fewer"))
    return target


def left(field: str, keep: int | float | None, of: int, what: str, multiple: int, found: list[tuple[str, str]]) -> int:
    """What `keep` leaves of `of`; what is wrong with it is added to `found`."""
    if keep is None:
        return of
    left = keep if isinstance(keep, int) else round(keep * of / multiple) * multiple
    if not 0 < left < of:
        steps = f" (in steps of {multiple})" if multiple > 1 and keep != left else ""
        leaves = "" if keep == left else f"{keep} leaves {left}{steps}; "
        found.append((field, f"{leaves}the model has {of} {what} here; keep at least 1 and at most {of - 1}"))
    return left
