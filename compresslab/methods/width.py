"""Width pruning: every layer keeps fewer neurons, heads or hidden channels."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from compresslab.methods.amounts import Misfit, Widths, left, parameters_wanted
from compresslab.methods.dimensions import Dimensions
from compresslab.methods.method import Method, in_place
from compresslab.methods.settings import Share, StepConfig, both_or_neither


class PruneWidth(StepConfig):
    """Make every layer narrower by activation importance: MLP neurons (`keep`), query heads with the key and value head that they share
    (`groups`), hidden channels (`hidden`). Each is the number that stays, or its share, below 1.

    `parameters` instead (a number, or a share of the model's) cuts `axes` by the largest common share that fits. Shares of neurons and
    channels are rounded to a multiple of `multiple`, which keeps matrix shapes that kernels like.
    """

    method: Literal["width"]
    keep: PositiveInt | Share | None = None
    groups: PositiveInt | Share | None = None
    hidden: PositiveInt | Share | None = None
    parameters: PositiveInt | Share | None = None
    axes: Annotated[list[Literal["neurons", "groups", "hidden"]], Field(min_length=1)] = Field(default=["neurons"])
    multiple: PositiveInt = 32

    @model_validator(mode="after")
    def _one_measure(self) -> PruneWidth:
        if (self.keep is self.groups is self.hidden is None) == (self.parameters is None):
            raise ValueError(
                f"{both_or_neither(self.parameters)}; set either keep, groups and hidden (at least one of them), or parameters"
            )
        if len(set(self.axes)) < len(self.axes):
            raise ValueError(f"axes: {', '.join(self.axes)} is one axis twice; name each once")
        return self


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
    neurons = left("keep", config.keep, whole.neurons, "neurons", config.multiple, found)
    groups = left("groups", config.groups, whole.groups, "key/value heads", 1, found)
    unit = _unit(groups, heads)
    hidden = left("hidden", config.hidden, whole.hidden, "hidden channels", math.lcm(config.multiple, unit), found)
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


def narrower(config: PruneWidth, model: Dimensions) -> Dimensions:
    """The dimensions that a step leaves. Raises Misfit if it leaves nothing that works."""
    heads = model.queries if model.divides else 0
    return model.narrower(widths_left(config, model.widths, heads, lambda widths: model.narrower(widths).parameters))


WIDTH = Method("prune", "width", PruneWidth, "compresslab.steps.prune_width", "calibration", "activations", cost=in_place, leaves=narrower)
