"""Width pruning: every layer keeps fewer neurons, heads or hidden channels."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from compresslab.methods.amounts import Misfit, Widths, number_to_keep, parameter_target
from compresslab.methods.dimensions import Dimensions
from compresslab.methods.method import Method, in_place_cost
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


def widths_left(config: PruneWidth, original: Widths, heads: int, count: Callable[[Widths], int]) -> Widths:
    """The widths of every layer after a step: the numbers, the shares, or the largest common share of `config.axes` that fits.

    Args:
        heads: query heads per group if the number of all query heads must divide the hidden channels, else 0. transformers requires it
            of some architectures (Llama, Gemma 2 and 3) and computes nothing from the quotient.
        count: number of parameters of the model with given widths.

    Raises:
        Misfit: with every field that leaves nothing, or all, or a model that transformers does not load.
    """
    if config.parameters is not None:
        return _largest_fitting(config, original, heads, count)
    problems: list[tuple[str, str]] = []
    neurons = number_to_keep("keep", config.keep, original.neurons, "neurons", config.multiple, problems)
    groups = number_to_keep("groups", config.groups, original.groups, "key/value heads", 1, problems)
    divisor = _hidden_divisor(groups, heads)
    hidden = number_to_keep("hidden", config.hidden, original.hidden, "hidden channels", math.lcm(config.multiple, divisor), problems)
    if not problems and hidden % divisor:
        if config.hidden is not None:
            below = hidden // divisor * divisor
            near = " or ".join(str(size) for size in (below, below + divisor) if 0 < size < original.hidden)
            problems.append(
                ("hidden", f"{hidden} is no multiple of the {divisor} query heads, which transformers asks for here; take {near}")
            )
        else:
            legal = ", ".join(str(number) for number in _legal_groups(original, heads) if number < original.groups)
            reason = f"{groups} leaves {divisor} query heads, which must divide the hidden size {hidden} for transformers to load the model"
            problems.append(("groups", f"{reason}; these do: {legal}" if legal else f"{reason}; no smaller number does"))
    if problems:
        raise Misfit(*problems)
    return Widths(neurons, groups, hidden)


def _hidden_divisor(groups: int, heads: int) -> int:
    """The number that must divide the hidden channels if `groups` stay."""
    return max(1, heads * groups)


def _legal_groups(original: Widths, heads: int) -> list[int]:
    """Numbers of groups that are legal with the original hidden channels."""
    return [groups for groups in range(1, original.groups + 1) if original.hidden % _hidden_divisor(groups, heads) == 0]


def _largest_fitting(config: PruneWidth, original: Widths, heads: int, count: Callable[[Widths], int]) -> Widths:
    """The widths at the largest common share at which the model has no more parameters than the target.

    An axis takes its largest legal size not above the share, or its smallest one if there is none. Sizes change at a few shares only. The
    number of parameters may fall at a larger share, since more heads may allow fewer hidden channels. All those shares are therefore
    tried, the largest first.
    """
    assert config.parameters is not None
    target = parameter_target(config.parameters, count(original))
    shares = sorted(_shares(config, original, heads), reverse=True)
    for share in shares:
        widths = _widths_at(share, config, original, heads)
        if count(widths) <= target:
            return widths
    cut = " and ".join({"neurons": "neurons", "groups": "key/value heads", "hidden": "hidden channels"}[axis] for axis in config.axes)
    smallest = count(_widths_at(shares[-1], config, original, heads)) if shares else count(original)
    raise Misfit(
        ("parameters", f"{target:,} are too few: cutting {cut} leaves {smallest:,} at least; name more axes, or a smaller multiple")
    )


def _shares(config: PruneWidth, original: Widths, heads: int) -> set[Fraction]:
    """The shares below 1 at which an axis changes its size."""
    steps: set[tuple[int, int]] = set()
    if "neurons" in config.axes:
        steps.add((config.multiple, original.neurons))
    if "groups" in config.axes:
        steps.add((1, original.groups))
    if "hidden" in config.axes:
        groups = range(1, original.groups + 1) if "groups" in config.axes else [original.groups]
        steps |= {(math.lcm(config.multiple, _hidden_divisor(number, heads)), original.hidden) for number in groups}
    return {Fraction(size, total) for step, total in steps for size in range(step, total, step)}


def _widths_at(share: Fraction, config: PruneWidth, original: Widths, heads: int) -> Widths:
    """The widths at a share below 1."""
    neurons, groups, hidden = original
    if "neurons" in config.axes:
        neurons = _floor(share, original.neurons, config.multiple)
    if "groups" in config.axes:
        legal = range(1, original.groups + 1) if "hidden" in config.axes else _legal_groups(original, heads)
        groups = max((number for number in legal if number <= share * original.groups), default=min(legal))
    if "hidden" in config.axes:
        hidden = _floor(share, original.hidden, math.lcm(config.multiple, _hidden_divisor(groups, heads)))
    return Widths(neurons, groups, hidden)


def _floor(share: Fraction, total: int, step: int) -> int:
    """The largest multiple of `step` not above the share, at least one step and at most `total`."""
    return min(total, max(step, int(share * total) // step * step))


def dimensions_after(config: PruneWidth, model: Dimensions) -> Dimensions:
    """Dimensions of the model after a step. Raises Misfit if the settings do not fit the model."""
    heads = model.queries_per_group if model.heads_divide_hidden else 0
    return model.narrower(widths_left(config, model.widths, heads, lambda widths: model.narrower(widths).parameters))


WIDTH = Method(
    "prune",
    "width",
    PruneWidth,
    "compresslab.steps.prune_width",
    "calibration",
    "activations",
    layerwise=True,
    cost=in_place_cost,
    leaves=dimensions_after,
)
