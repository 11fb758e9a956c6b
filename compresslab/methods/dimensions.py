"""Dimensions of a model that are known before it is loaded. Costs and refusals are computed from them."""

from __future__ import annotations

from typing import NamedTuple

from compresslab.methods.amounts import Widths

# Norms and biases are about a hundredth of a layer. More parameters than this share belong to another part, such as an image encoder.
LARGEST_OTHER_SHARE = 0.05


class Dimensions(NamedTuple):
    """Dimensions of a model.

    Attributes:
        mlp_parameters: parameters of one layer's MLP. other_parameters: parameters of one layer's norms and biases.
        groups: number of key and value heads. queries_per_group: number of query heads that share one. head_dim: dimensions of a head.
        tied: the output head is the input embedding.
        heads_divide_hidden: transformers loads the model only if the number of query heads divides `hidden`.
    """

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    mlp_parameters: int
    other_parameters: int
    groups: int
    queries_per_group: int
    head_dim: int
    tied: bool
    heads_divide_hidden: bool

    def without_layers(self, keep: int) -> Dimensions:
        """The same model with `keep` layers."""
        return self._replace(layers=keep, parameters=self.parameters - (self.layers - keep) * self.layer_parameters)

    def narrower(self, widths: Widths) -> Dimensions:
        """The same model with other widths."""
        narrow = self._replace(
            intermediate=widths.neurons,
            groups=widths.groups,
            hidden=widths.hidden,
            mlp_parameters=self.mlp_parameters * widths.neurons * widths.hidden // (self.intermediate * self.hidden),
            other_parameters=self.other_parameters * widths.hidden // self.hidden,
        )
        return narrow._replace(parameters=self.parameters + narrow.computed_parameters - self.computed_parameters)

    def with_stored_parameters(self, parameters: int, in_a_layer: int | None) -> Dimensions:
        """The same model with the number of parameters in its files.

        A layer's parameters in no matrix count as norms and biases. An MLP without a gate has two matrices instead of three.

        Args:
            in_a_layer: parameters of one layer in the files; `None` if only all of them are known.
        """
        found = self._replace(parameters=parameters)
        if in_a_layer is None:
            other, rest = divmod(parameters - self.computed_parameters + self.layers * self.other_parameters, self.layers)
            known = rest == 0 and 0 <= other <= LARGEST_OTHER_SHARE * self.layer_parameters
            return found._replace(other_parameters=other) if known else found
        for mlp in (self.mlp_parameters, self.mlp_parameters // 3 * 2):
            matrices = self.layer_parameters - self.other_parameters - self.mlp_parameters + mlp
            if in_a_layer >= matrices:
                return found._replace(mlp_parameters=mlp, other_parameters=in_a_layer - matrices)
        return found

    @property
    def widths(self) -> Widths:
        return Widths(self.intermediate, self.groups, self.hidden)

    @property
    def attention(self) -> int:
        """Query heads times head dimension."""
        return self.groups * self.queries_per_group * self.head_dim

    @property
    def layer_parameters(self) -> int:
        projections = 2 * self.hidden * (self.attention + self.groups * self.head_dim)
        return self.mlp_parameters + projections + self.other_parameters

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the input embedding and, where it is a separate tensor, of the output head."""
        return self.hidden * self.vocabulary * (1 if self.tied else 2)

    @property
    def computed_parameters(self) -> int:
        """All parameters, computed from the other dimensions, the last norm included."""
        return self.embedding_parameters + self.layers * self.layer_parameters + self.hidden

    @property
    def input_widths(self) -> dict[str, int]:
        """Input widths of the linear layers of a decoder layer, by a name for messages."""
        return {"hidden size": self.hidden, "attention width": self.attention, "MLP width": self.intermediate}

    @property
    def sizes(self) -> dict[str, int]:
        """Input and output widths of those linear layers."""
        return self.input_widths | {"width of keys and values": self.groups * self.head_dim}
