"""How much of a model a structured pruning step leaves: where shares and parameter targets become numbers of layers, neurons and heads.

The plan asks with what it knows of a model before it is loaded, the step with the model itself; both get the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from compresslab.recipe.steps import PruneDepth, PruneWidth

# Weights that share a scale, as kernels know them.
USUAL_GROUPS = (16, 32, 64, 128, 256)
# Bits of the words that GPTQ and AWQ checkpoints pack codes into.
WORD = 32


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


def layers_left(config: PruneDepth, layers: int, count: Callable[[int], int]) -> int:
    """How many of `layers` stay: the number, the share, or as many as fit.

    Args:
        count: parameters of the model with so many layers.

    Raises:
        Misfit: none or all would stay, or not even one fits.
    """
    if config.parameters is None:
        assert config.keep is not None
        found: list[tuple[str, str]] = []
        left = _left("keep", config.keep, layers, "layers", 1, found)
        if found:
            raise Misfit(*found)
        return left
    target = parameters_wanted(config.parameters, count(layers))
    for left in range(layers - 1, 0, -1):
        if count(left) <= target:
            return left
    raise Misfit(("parameters", f"{target:,} are too few: with 1 of its {layers} layers the model has {count(1):,}"))


def parameters_wanted(parameters: int | float, total: int) -> int:
    """The most parameters that may stay: the number, or the share of `total`.

    Raises:
        Misfit: the model fits as it is.
    """
    target = parameters if isinstance(parameters, int) else int(parameters * total)
    if target >= total:
        raise Misfit(("parameters", f"the model has {total:,} parameters here, so {target:,} leaves nothing to drop; take fewer"))
    return target


def widths_left(config: PruneWidth, whole: Widths, heads: int, count: Callable[[Widths], int]) -> Widths:
    """How wide every layer stays: the numbers, the shares, or the largest common share of `config.axes` that fits.

    Args:
        heads: query heads a group if the number of all query heads must divide the hidden channels, as transformers asks of some
            architectures (Llama, Gemma 2 and 3) though nothing is computed from the quotient; 0 if not.
        count: parameters of the model with such widths.

    Raises:
        Misfit: naming every field that leaves nothing, all, or what transformers would not load.
    """
    if config.parameters is not None:
        return _widest(config, whole, heads, count)
    found: list[tuple[str, str]] = []
    neurons = _left("keep", config.keep, whole.neurons, "neurons", config.multiple, found)
    groups = _left("groups", config.groups, whole.groups, "key/value heads", 1, found)
    unit = _unit(groups, heads)
    hidden = _left("hidden", config.hidden, whole.hidden, "hidden channels", math.lcm(config.multiple, unit), found)
    if not found and hidden % unit:
        if config.hidden is not None:
            below = hidden // unit * unit
            near = " or ".join(str(size) for size in (below, below + unit) if 0 < size < whole.hidden)
            found.append(("hidden", f"{hidden} is no multiple of the {unit} query heads, which transformers asks for here; take {near}"))
        else:
            legal = ", ".join(str(number) for number in _legal_groups(whole, heads) if number < whole.groups)
            reason = f"{groups} leaves {unit} query heads, which must divide the hidden size {hidden} for transformers to load the model"
            found.append(("groups", f"{reason}; these do: {legal}" if legal else f"{reason}; no smaller number does"))
    if found:
        raise Misfit(*found)
    return Widths(neurons, groups, hidden)


def _left(field: str, keep: int | float | None, of: int, what: str, multiple: int, found: list[tuple[str, str]]) -> int:
    """What `keep` leaves of `of`; what is wrong with it is added to `found`."""
    if keep is None:
        return of
    left = keep if isinstance(keep, int) else round(keep * of / multiple) * multiple
    if not 0 < left < of:
        steps = f" (in steps of {multiple})" if multiple > 1 and keep != left else ""
        leaves = "" if keep == left else f"{keep} leaves {left}{steps}; "
        found.append((field, f"{leaves}the model has {of} {what} here; keep at least 1 and at most {of - 1}"))
    return left


def _unit(groups: int, heads: int) -> int:
    """What must divide the hidden channels when `groups` stay."""
    return max(1, heads * groups)


def _legal_groups(whole: Widths, heads: int) -> list[int]:
    """Numbers of groups that go with the hidden channels as they are."""
    return [groups for groups in range(1, whole.groups + 1) if whole.hidden % _unit(groups, heads) == 0]


def _widest(config: PruneWidth, whole: Widths, heads: int, count: Callable[[Widths], int]) -> Widths:
    """The widths at the largest common share at which the model has no more parameters than wanted.

    An axis takes its largest legal size not above the share, and its smallest one where there is none. Sizes change at few shares alone,
    and with more heads the hidden channels may have to be fewer: so all those shares are tried, the largest first.
    """
    assert config.parameters is not None
    target = parameters_wanted(config.parameters, count(whole))
    shares = sorted(_shares(config, whole, heads), reverse=True)
    for share in shares:
        widths = _at(share, config, whole, heads)
        if count(widths) <= target:
            return widths
    cut = " and ".join({"neurons": "neurons", "groups": "key/value heads", "hidden": "hidden channels"}[axis] for axis in config.axes)
    least = count(_at(shares[-1], config, whole, heads)) if shares else count(whole)
    raise Misfit(("parameters", f"{target:,} are too few: cutting {cut} leaves {least:,} at least; name more axes, or a smaller multiple"))


def _shares(config: PruneWidth, whole: Widths, heads: int) -> set[Fraction]:
    """The shares below 1 at which an axis gets its next size."""
    steps: set[tuple[int, int]] = set()
    if "neurons" in config.axes:
        steps.add((config.multiple, whole.neurons))
    if "groups" in config.axes:
        steps.add((1, whole.groups))
    if "hidden" in config.axes:
        groups = range(1, whole.groups + 1) if "groups" in config.axes else [whole.groups]
        steps |= {(math.lcm(config.multiple, _unit(number, heads)), whole.hidden) for number in groups}
    return {Fraction(size, of) for step, of in steps for size in range(step, of, step)}


def _at(share: Fraction, config: PruneWidth, whole: Widths, heads: int) -> Widths:
    """The widths at a share below 1."""
    neurons, groups, hidden = whole
    if "neurons" in config.axes:
        neurons = _floor(share, whole.neurons, config.multiple)
    if "groups" in config.axes:
        legal = range(1, whole.groups + 1) if "hidden" in config.axes else _legal_groups(whole, heads)
        groups = max((number for number in legal if number <= share * whole.groups), default=min(legal))
    if "hidden" in config.axes:
        hidden = _floor(share, whole.hidden, math.lcm(config.multiple, _unit(groups, heads)))
    return Widths(neurons, groups, hidden)


def _floor(share: Fraction, of: int, step: int) -> int:
    """The largest multiple of `step` not above the share, and at least one step; all of it where even that is too much."""
    return min(of, max(step, int(share * of) // step * step))
