"""Sizes after structured pruning: converts shares and parameter targets into numbers of layers, neurons and heads.

The plan calls it with the model's config and the step with the loaded model; both get the same result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from compresslab.recipe.steps import PruneDepth, PruneWidth

# Group sizes (weights per scale) that kernels support.
USUAL_GROUPS = (16, 32, 64, 128, 256)
# Bits per word of packed codes in GPTQ and AWQ checkpoints.
WORD = 32


class Misfit(Exception):
    """Settings that do not fit a model.

    Attributes:
        found: (field, reason) of each problem.
    """

    def __init__(self, *problems: tuple[str, str]) -> None:
        self.found = problems
        super().__init__("; ".join(f"{field}: {reason}" for field, reason in problems))


class Widths(NamedTuple):
    """MLP neurons, key and value heads (each with its query heads: a group), and channels of the hidden states, of every layer."""

    neurons: int
    groups: int
    hidden: int


def layers_left(config: PruneDepth, layers: int, count: Callable[[int], int]) -> int:
    """Number of layers to keep out of `layers`: the number, the share, or the largest number within the parameter target.

    Args:
        count: returns the parameters of the model with a number of layers.

    Raises:
        Misfit: the result is none or all of the layers, or one layer exceeds the target.
    """
    if config.parameters is None:
        assert config.keep is not None
        problems: list[tuple[str, str]] = []
        remaining = _kept_size("keep", config.keep, layers, "layers", 1, problems)
        if problems:
            raise Misfit(*problems)
        return remaining
    target = parameter_budget(config.parameters, count(layers))
    for remaining in range(layers - 1, 0, -1):
        if count(remaining) <= target:
            return remaining
    raise Misfit(("parameters", f"{target:,} are too few: with 1 of its {layers} layers the model has {count(1):,}"))


def parameter_budget(parameters: int | float, total: int) -> int:
    """Maximum number of parameters to keep: the number, or the share of `total`.

    Raises:
        Misfit: the model is not larger than that.
    """
    target = parameters if isinstance(parameters, int) else int(parameters * total)
    if target >= total:
        raise Misfit(("parameters", f"the model has {total:,} parameters here, so {target:,} leaves nothing to drop; take fewer"))
    return target


def widths_left(config: PruneWidth, full: Widths, heads: int, count: Callable[[Widths], int]) -> Widths:
    """Widths to keep: the numbers, the shares, or the largest common share of `config.axes` within the parameter target.

    Args:
        heads: query heads per group if the number of query heads must divide the hidden channels, which transformers requires of some
            architectures (Llama, Gemma 2 and 3) although it does not use the quotient; else 0.
        count: returns the parameters of the model with given widths.

    Raises:
        Misfit: each field that keeps nothing, everything, or sizes that transformers does not load.
    """
    if config.parameters is not None:
        return _widest(config, full, heads, count)
    problems: list[tuple[str, str]] = []
    neurons = _kept_size("keep", config.keep, full.neurons, "neurons", config.multiple, problems)
    groups = _kept_size("groups", config.groups, full.groups, "key/value heads", 1, problems)
    unit = _unit(groups, heads)
    hidden = _kept_size("hidden", config.hidden, full.hidden, "hidden channels", math.lcm(config.multiple, unit), problems)
    if not problems and hidden % unit:
        if config.hidden is not None:
            below = hidden // unit * unit
            nearest = " or ".join(str(size) for size in (below, below + unit) if 0 < size < full.hidden)
            problems.append(
                ("hidden", f"{hidden} is no multiple of the {unit} query heads, which transformers asks for here; take {nearest}")
            )
        else:
            valid = ", ".join(str(number) for number in _valid_groups(full, heads) if number < full.groups)
            reason = f"{groups} leaves {unit} query heads, which must divide the hidden size {hidden} for transformers to load the model"
            problems.append(("groups", f"{reason}; these do: {valid}" if valid else f"{reason}; no smaller number does"))
    if problems:
        raise Misfit(*problems)
    return Widths(neurons, groups, hidden)


def _kept_size(field: str, keep: int | float | None, total: int, noun: str, multiple: int, problems: list[tuple[str, str]]) -> int:
    """The size that `keep` leaves of `total`. An invalid value is added to `problems`."""
    if keep is None:
        return total
    remaining = keep if isinstance(keep, int) else round(keep * total / multiple) * multiple
    if not 0 < remaining < total:
        steps = f" (in steps of {multiple})" if multiple > 1 and keep != remaining else ""
        leaves = "" if keep == remaining else f"{keep} leaves {remaining}{steps}; "
        problems.append((field, f"{leaves}the model has {total} {noun} here; keep at least 1 and at most {total - 1}"))
    return remaining


def _unit(groups: int, heads: int) -> int:
    """The number that must divide the hidden channels with `groups` groups."""
    return max(1, heads * groups)


def _valid_groups(full: Widths, heads: int) -> list[int]:
    """Numbers of groups that are valid with all hidden channels."""
    return [groups for groups in range(1, full.groups + 1) if full.hidden % _unit(groups, heads) == 0]


def _widest(config: PruneWidth, full: Widths, heads: int, count: Callable[[Widths], int]) -> Widths:
    """The widths at the largest common share at which the model is within the parameter target.

    An axis takes its largest valid size not above the share, or its smallest one if there is none. Sizes change at few shares, and more
    heads may allow only fewer hidden channels, so the size is not monotonic. All these shares are tried, the largest first.
    """
    assert config.parameters is not None
    target = parameter_budget(config.parameters, count(full))
    shares = sorted(_shares(config, full, heads), reverse=True)
    for share in shares:
        widths = _widths_at(share, config, full, heads)
        if count(widths) <= target:
            return widths
    axes = " and ".join({"neurons": "neurons", "groups": "key/value heads", "hidden": "hidden channels"}[axis] for axis in config.axes)
    smallest = count(_widths_at(shares[-1], config, full, heads)) if shares else count(full)
    raise Misfit(
        ("parameters", f"{target:,} are too few: cutting {axes} leaves {smallest:,} at least; name more axes, or a smaller multiple")
    )


def _shares(config: PruneWidth, full: Widths, heads: int) -> set[Fraction]:
    """The shares below 1 at which the size of an axis changes."""
    steps: set[tuple[int, int]] = set()
    if "neurons" in config.axes:
        steps.add((config.multiple, full.neurons))
    if "groups" in config.axes:
        steps.add((1, full.groups))
    if "hidden" in config.axes:
        groups = range(1, full.groups + 1) if "groups" in config.axes else [full.groups]
        steps |= {(math.lcm(config.multiple, _unit(number, heads)), full.hidden) for number in groups}
    return {Fraction(size, total) for step, total in steps for size in range(step, total, step)}


def _widths_at(share: Fraction, config: PruneWidth, full: Widths, heads: int) -> Widths:
    """The widths at a share below 1."""
    neurons, groups, hidden = full
    if "neurons" in config.axes:
        neurons = _floor(share, full.neurons, config.multiple)
    if "groups" in config.axes:
        valid = range(1, full.groups + 1) if "hidden" in config.axes else _valid_groups(full, heads)
        groups = max((number for number in valid if number <= share * full.groups), default=min(valid))
    if "hidden" in config.axes:
        hidden = _floor(share, full.hidden, math.lcm(config.multiple, _unit(groups, heads)))
    return Widths(neurons, groups, hidden)


def _floor(share: Fraction, total: int, step: int) -> int:
    """The largest multiple of `step` not above the share, at least `step` and at most `total`."""
    return min(total, max(step, int(share * total) // step * step))
