"""A step that is held to its settings: its files, its parent's, and what the method says of it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from compresslab.errors import RunFailed
from compresslab.methods.method import Method
from compresslab.methods.settings import StepConfig
from compresslab.models.counting.stored_model import Stored, StoredModel
from compresslab.recipe.stored_weights import Location
from compresslab.steps.outcome.deviations import deviates
from compresslab.steps.outcome.matrices import Matrix, matrix
from compresslab.steps.outcome.modules import Linear, Modules, reason_for

# Numbers of neighbours for which hardware has kernels; a pattern over them is recorded.
NEIGHBOURS = (4, 8)


@dataclass(frozen=True)
class Held:
    """A step, for the checks.

    Attributes:
        skeleton, parent_skeleton: the models of the two folders without weights. parent: `None` if nobody gave its folder.
        tokens_seen, details, left_alone: of the method's result.
        layer_before: the parent's number of each decoder layer, where it is another one.
    """

    entry: Method[Any]
    config: StepConfig
    skeleton: PreTrainedModel
    modules: Modules
    files: StoredModel
    parent_skeleton: PreTrainedModel | None
    parent: StoredModel | None
    tokens_seen: int
    details: Mapping[str, Any]
    left_alone: Mapping[str, str]
    layer_before: Mapping[int, int]

    @property
    def step(self) -> str:
        return f"{self.entry.kind} {self.entry.name}"

    def deviates(self, asked: str, found: str, modules: list[str] | None = None) -> RunFailed:
        """The error of a deviation, as of `deviates`."""
        return deviates(self.step, asked, found, modules or [])

    def plain(self, location: Location) -> Stored | None:
        """The plain weight of a linear layer; `None` if it is packed, or not in the files under this name."""
        shape = self.modules.linears.get(location) or self.modules.outside[location]
        found = self.files.tensors.get(Location(location.layer, f"{location.name}.weight"))
        return found if found is not None and found.wide and found.shape == (shape.outputs, shape.inputs) else None

    def before(self, location: Location) -> Stored | None:
        """The parent's tensor at a place of the result; `None` without a parent, or if it has none there."""
        layer = location.layer if location.layer is None else self.layer_before.get(location.layer, location.layer)
        return self.parent.tensors.get(Location(layer, location.name)) if self.parent is not None else None

    def same(self, location: Location) -> bool | None:
        """Whether a tensor of the result is the parent's bit for bit; `None` if they cannot be compared."""
        stored, theirs = self.files.tensors[location], self.before(location)
        if theirs is None or self.parent is None or not (self.files.readable(stored) and self.parent.readable(theirs)):
            return None
        return self.files.equal(stored, self.parent, theirs)

    @functools.cached_property
    def matrices(self) -> dict[Location, Matrix]:
        """All plain weights of linear layers inside the decoder layers."""
        zeros = self.entry.zeros(self.config) if self.entry.zeros is not None else None
        asked = [zeros.pattern[1]] if zeros is not None and zeros.pattern is not None else []
        neighbours, found = list(NEIGHBOURS), {}
        for location in self.modules.linears:
            stored, theirs = self.plain(location), self.before(Location(location.layer, f"{location.name}.weight"))
            if stored is not None and self.files.readable(stored):
                parent = (self.parent, theirs) if self.parent is not None and theirs is not None else None
                found[location] = matrix(self.files, stored, parent, {*neighbours, *asked}, zeros)
                # What one matrix lacks is no pattern of the model.
                neighbours = [of for of in neighbours if found[location].most.get(of, of) < of]
        return found

    def linear(self, location: Location) -> Linear:
        """A linear layer inside the decoder layers."""
        return self.modules.linears[location]

    def excuse(self, location: Location) -> str:
        """Why the method says that it leaves a linear layer alone; empty if it does not say so."""
        return reason_for(self.linear(location).name, self.left_alone)
