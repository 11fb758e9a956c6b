"""The description of a method: its settings, what it reads, its cost, the resulting dimensions, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar, get_args

from compresslab.methods.dimensions import Dimensions
from compresslab.methods.format import Format, Objection, Packing
from compresslab.methods.settings import StepConfig

Kind = Literal["prune", "distill", "quantize", "retrain", "adopt"]
Config = TypeVar("Config", bound=StepConfig)
# Time of a column-by-column solver per weight (SmolLM2: 106M weights in some 15 s).
SOLVER_SECONDS = 1.5e-7
# Time of a pass over all weights. A guess.
PASS_SECONDS = 2.0


class Footprint(NamedTuple):
    """The quantities from which costs are computed.

    Attributes:
        weights: bytes of all weights in the compute dtype. forward: seconds of a forward pass per token.
    """

    dimensions: Dimensions
    weights: float
    forward: float


class Cost(NamedTuple):
    """Seconds and peak bytes of memory of a step, without those of the worker and of loading and storing its models."""

    seconds: float
    memory: float


class Zeros(NamedTuple):
    """The zeros that a method leaves in each linear layer of the decoder layers.

    Attributes:
        share: of the weights. within: what has the share: each row of a matrix, or each matrix.
        pattern: how many weights stay, of how many neighbours in a row; `None` without a pattern.
        masks: weights that are not set to zero keep their values, bit for bit.
    """

    share: float
    within: Literal["row", "matrix"]
    pattern: tuple[int, int] | None = None
    masks: bool = False


def rebuild_cost(_: StepConfig, model: Footprint) -> Cost:
    """One pass over the weights, with the model, the result and a temporary copy in memory."""
    return Cost(PASS_SECONDS, 3 * model.weights)


def in_place_cost(_: StepConfig, model: Footprint) -> Cost:
    """One pass that changes the weights in place."""
    return Cost(PASS_SECONDS, 1.5 * model.weights)


def solver_cost(_: StepConfig, model: Footprint) -> Cost:
    """A solver that rounds or drops column after column and corrects the columns that follow."""
    return Cost(model.dimensions.parameters * SOLVER_SECONDS, 1.5 * model.weights)


def _unchanged(_: StepConfig, model: Dimensions) -> Dimensions:
    return model


def _divided(_: StepConfig) -> str:
    return ""


def _no_warnings(_: StepConfig) -> Iterator[str]:
    return iter(())


def _no_objections(_: StepConfig, __: Dimensions) -> list[Objection]:
    return []


@dataclass(frozen=True)
class Method(Generic[Config]):
    """A method of a step.

    Attributes:
        config: the class of its settings. Several methods may share one.
        module: the module of its `apply(loaded, config, context)`. Only the worker imports it, so that planning needs no torch.
        text: the recipe's text that it reads.
        statistics: the model's statistics on the calibration text that it reads: "activations" (norms of inputs, how much each layer
            changes), or "grams" (also second moments of inputs). They are gathered once for all steps that read them.
        trains: it updates weights by gradients, so it needs them unpacked.
        libraries: packages beyond torch and transformers that it needs and whose version decides the result.
        format: the format that packs the weights of its result; no later step can change them. packing: the packing by its settings.
        layerwise: it takes one decoder layer after the other (`contract.layers_in_turn`), so that the model need not be in memory.
        cost: seconds and memory of a step.
        ends_stay: whether embeddings, output head and all else outside the decoder layers that is no linear layer stay bit for bit.
        linears_alone: whether all else inside the decoder layers stays bit for bit, too: norms, biases, routers.
        plain_linears: it serves the weights of torch's linear layers and no other ones (Conv1D, fused experts), so that a model with a
            large share of others is refused.
        zeros: the zeros that a step leaves, by its settings; for a method that drops weights and keeps the shape of matrices.
        leaves: the model's dimensions after a step; raises `Misfit` if the settings do not fit the model.
        objections: reasons to refuse a model's dimensions, beyond those of `leaves` and of the format.
        undivided: why several devices cannot make a step together, for a method whose settings have `devices`; empty if they can.
        warnings: what a user should know of legal settings, a sentence each, which the plan prints.
    """

    kind: Kind
    name: str
    config: type[Config]
    module: str
    text: Literal["calibration", "training"] | None = None
    statistics: Literal["activations", "grams"] | None = None
    trains: bool = False
    libraries: tuple[str, ...] = ()
    format: Format | None = None
    packing: Callable[[Config], Packing] | None = None
    layerwise: bool = False
    cost: Callable[[Config, Footprint], Cost] = rebuild_cost
    ends_stay: bool = False
    linears_alone: bool = False
    plain_linears: bool = False
    zeros: Callable[[Config], Zeros] | None = None
    leaves: Callable[[Config, Dimensions], Dimensions] = _unchanged
    objections: Callable[[Config, Dimensions], list[Objection]] = _no_objections
    undivided: Callable[[Config], str] = _divided
    warnings: Callable[[Config], Iterator[str]] = _no_warnings

    def __post_init__(self) -> None:
        """Refuse an inconsistent description, which would otherwise fail in a worker only.

        Raises:
            ValueError: the settings do not list the method, only one of format and packing is given, or the method does not read the text
                that its statistics or its training need.
        """
        if self.kind != "adopt" and self.name not in names_of(self.config):
            raise ValueError(f"{self.config.__name__} needs a field `method: Literal[{self.name!r}]`, by which a recipe names the method")
        if (self.format is None) != (self.packing is None):
            raise ValueError("a method that packs weights has a format and a packing, any other one neither")
        if self.statistics and self.text != "calibration":
            raise ValueError(f'statistics={self.statistics!r} are gathered on the calibration text; add text="calibration"')
        if self.trains and self.text != "training":
            raise ValueError('a method that trains reads the training text; add text="training"')

    @property
    def packs(self) -> bool:
        """Whether its result stores the weights packed."""
        return self.format is not None

    @property
    def cuts(self) -> bool:
        """Whether its result has other dimensions."""
        return self.leaves is not _unchanged

    @property
    def computes(self) -> bool:
        """Whether forward or backward passes decide its result. Otherwise it is the same on every machine."""
        return self.text is not None

    def stored_bits(self, config: Config) -> float | None:
        """Bits of a packed weight in the files; `None` if the method packs none."""
        return self.format.bits(self.packing(config)) if self.format and self.packing else None

    def refuses(self, config: Config, model: Dimensions) -> list[Objection]:
        """All reasons to refuse a step on a model of these dimensions: the format's, or else the method's."""
        packed = self.format.objections(self.packing(config), model) if self.format and self.packing else []
        return packed or self.objections(config, model)


def names_of(config: type[StepConfig]) -> tuple[str, ...]:
    """The names of the methods that a class of settings serves."""
    return get_args(config.model_fields["method"].annotation) if "method" in config.model_fields else ()
