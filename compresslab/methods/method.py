"""What a method says of itself: its settings, what it reads, what it costs, what it leaves of a model, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar, get_args

from compresslab.methods.dimensions import Dimensions
from compresslab.methods.format import Format, Objection, Packing
from compresslab.methods.settings import StepConfig

Kind = Literal["prune", "distill", "quantize", "retrain", "adopt"]
Config = TypeVar("Config", bound=StepConfig)
# What a column-by-column solver takes for each weight (SmolLM2: 106M weights in some 15 s).
SOLVER_SECONDS = 1.5e-7
# Of a pass over all weights. A guess.
PASS_SECONDS = 2.0


class Footprint(NamedTuple):
    """A model as costs are computed from it.

    Attributes:
        weights: bytes of all weights in the dtype that is computed in. forward: seconds of a forward pass, for each token.
    """

    dimensions: Dimensions
    weights: float
    forward: float


class Cost(NamedTuple):
    """What a step takes beyond a worker and the loading and storing of its models: seconds, and bytes of memory at the peak."""

    seconds: float
    memory: float


def rebuilt(_: StepConfig, model: Footprint) -> Cost:
    """One pass over the weights that holds the model, what is made of it, and a copy on the way."""
    return Cost(PASS_SECONDS, 3 * model.weights)


def in_place(_: StepConfig, model: Footprint) -> Cost:
    """One pass that changes the weights where they lie."""
    return Cost(PASS_SECONDS, 1.5 * model.weights)


def solved(_: StepConfig, model: Footprint) -> Cost:
    """A solver that rounds or drops one column after the other and corrects those to come."""
    return Cost(model.dimensions.parameters * SOLVER_SECONDS, 1.5 * model.weights)


def _unchanged(_: StepConfig, model: Dimensions) -> Dimensions:
    return model


def _no_objections(_: StepConfig, __: Dimensions) -> list[Objection]:
    return []


@dataclass(frozen=True)
class Method(Generic[Config]):
    """A method of a step.

    Attributes:
        config: the class of its settings. Several methods may share one.
        module: where its `apply(loaded, config, context)` is; imported by the worker only, so that planning needs no torch.
        text: which of the recipe's texts it reads.
        statistics: what it wants to know of the model on the calibration text: "activations" (norms of inputs, how much each layer
            changes), or "grams" (second moments of inputs, too). Gathered once for all that ask.
        trains: it updates weights by gradients, so it needs them unpacked.
        libraries: packages beyond torch and transformers that it needs and whose version decides the result.
        format: in which its result stores the weights packed, so that no later step can change them. packing: how, by its settings.
        cost: seconds and memory of a step.
        leaves: the model's dimensions after a step; raises `Misfit` where the settings leave nothing that works.
        objections: what it refuses of a model's dimensions beyond that, and beyond what its format refuses.
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
    cost: Callable[[Config, Footprint], Cost] = rebuilt
    leaves: Callable[[Config, Dimensions], Dimensions] = _unchanged
    objections: Callable[[Config, Dimensions], list[Objection]] = _no_objections

    def __post_init__(self) -> None:
        """Refuse what would only show in a worker.

        Raises:
            ValueError: the settings do not know the method, or only one of format and packing is given.
        """
        if self.kind != "adopt" and self.name not in names_of(self.config):
            raise ValueError(f"{self.config.__name__} needs a field `method: Literal[{self.name!r}]`, by which a recipe names the method")
        if (self.format is None) != (self.packing is None):
            raise ValueError("a method that packs weights has a format and a packing, any other one neither")

    @property
    def packs(self) -> bool:
        """Whether its result stores the weights packed."""
        return self.format is not None

    @property
    def computes(self) -> bool:
        """Whether forward or backward passes decide its result; else the weights alone do, and every machine gives the same."""
        return self.text is not None

    def stored_bits(self, config: Config) -> float | None:
        """Bits that a weight takes in the files; `None` where it is stored as it was."""
        return self.format.bits(self.packing(config)) if self.format and self.packing else None

    def refuses(self, config: Config, model: Dimensions) -> list[Objection]:
        """Everything that forbids a step on a model of these dimensions, the format's reasons first."""
        packed = self.format.objections(self.packing(config), model) if self.format and self.packing else []
        return packed or self.objections(config, model)


def names_of(config: type[StepConfig]) -> tuple[str, ...]:
    """The methods that a class of settings serves."""
    return get_args(config.model_fields["method"].annotation) if "method" in config.model_fields else ()
