"""The dimensions of a model that are known before it is loaded: what costs and refusals are computed from."""

from __future__ import annotations

from typing import NamedTuple

from compresslab.methods.amounts import Widths

# Norms and biases are a hundredth of a layer; where files hold more, it is something else (an image encoder).
LARGEST_OTHER_SHARE = 0.05


class Dimensions(NamedTuple):
    """Dimensions of a model.

    Attributes:
        mlp_parameters: of one layer. other_parameters: of one layer's norms and biases.
        groups: key and value heads. queries: query heads that share one. head: dimensions of a head.
        tied: the output head is the input embedding.
        divides: the number of query heads must divide `hidden`, or transformers does not load the model.
    """

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    mlp_parameters: int
    other_parameters: int
    groups: int
    queries: int
    head: int
    tied: bool
    divides: bool

    def without_layers(self, keep: int) -> Dimensions:
        """The same model with `keep` layers."""
        return self._replace(layers=keep, parameters=self.parameters - (self.layers - keep) * self.layer_parameters)

    def narrower(self, widths: Widths) -> Dimensions:
        """The same model with so many MLP neurons, key and value heads and hidden channels."""
        narrow = self._replace(
            intermediate=widths.neurons,
            groups=widths.groups,
            hidden=widths.hidden,
            mlp_parameters=self.mlp_parameters * widths.neurons * widths.hidden // (self.intermediate * self.hidden),
            other_parameters=self.other_parameters * widths.hidden // self.hidden,
        )
        return narrow._replace(parameters=self.parameters + narrow.computed_parameters - self.computed_parameters)

    def stored(self, parameters: int) -> Dimensions:
        """The same model with as many parameters as its files say; what the matrices leave of them is norms and biases."""
        other, rest = divmod(parameters - self.computed_parameters + self.layers * self.other_parameters, self.layers)
        known = rest == 0 and 0 <= other <= LARGEST_OTHER_SHARE * self.layer_parameters
        return self._replace(parameters=parameters, other_parameters=other if known else self.other_parameters)

    @property
    def widths(self) -> Widths:
        """What width pruning cuts."""
        return Widths(self.intermediate, self.groups, self.hidden)

    @property
    def attention(self) -> int:
        """Query heads times head dimension."""
        return self.groups * self.queries * self.head

    @property
    def layer_parameters(self) -> int:
        """Of one layer."""
        projections = 2 * self.hidden * (self.attention + self.groups * self.head)
        return self.mlp_parameters + projections + self.other_parameters

    @property
    def embedding_parameters(self) -> int:
        """Of the input embedding and, where it is a tensor of its own, of the output head."""
        return self.hidden * self.vocabulary * (1 if self.tied else 2)

    @property
    def computed_parameters(self) -> int:
        """All parameters, as the other dimensions have it: the last norm, too."""
        return self.embedding_parameters + self.layers * self.layer_parameters + self.hidden

    @property
    def input_widths(self) -> dict[str, int]:
        """What the linear layers of a decoder layer read, by a name for messages."""
        return {"hidden size": self.hidden, "attention width": self.attention, "MLP width": self.intermediate}

    @property
    def sizes(self) -> dict[str, int]:
        """What they read and write."""
        return self.input_widths | {"width of keys and values": self.groups * self.head}
