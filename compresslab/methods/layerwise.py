"""Peak memory of nodes that hold one decoder layer of a model (`models.streamed`)."""

from __future__ import annotations

from typing import NamedTuple

from compresslab.methods.dimensions import Dimensions

# A worker with torch and transformers; gptqmodel adds 0.1 GB.
LEAN_WORKER_BYTES = 0.5e9
# Parts of embeddings and of the output head, their digests and the logits of the probe.
PARTS_BYTES = 0.1e9
# Models of more parameters are checked in a fresh process by parts of so many parameters, or of one layer (`models.streamed.check`). In
# float32 these are 1.6 and 0.4 GB.
WHOLE_PARAMETERS, PART_PARAMETERS = 4 * 10**8, 10**8
# Tokens of a batch of calibration text (`models.text`): enough to use all cores, few enough that activations take far less memory than the
# weights.
BATCH_TOKENS = 2048
# Bytes of hidden states in memory (`models.calibration.hidden_states`). More of them are in a file in the system's folder for temporary
# files (`TMPDIR`).
HIDDEN_BYTES = 128 * 2**20


class Layers(NamedTuple):
    """A model whose layers are held one at a time.

    Attributes:
        stored, computed: bytes of a weight in the files, and in the compute dtype.
    """

    model: Dimensions
    stored: float
    computed: float

    @property
    def possible(self) -> bool:
        """Whether it can be held so. A mixture of experts cannot: transformers merges tensors of its files."""
        return self.model.mlp_parameters <= 3 * self.model.hidden * self.model.intermediate

    @property
    def layer(self) -> float:
        """Bytes of a layer, with a copy in the compute dtype if that is another one."""
        return self.model.layer_parameters * (self.stored + (self.computed if self.computed != self.stored else 0))

    @property
    def matrix(self) -> float:
        """Parameters of the largest matrix of a layer."""
        return self.model.hidden * max(self.model.intermediate, self.model.attention)

    @property
    def loading(self) -> float:
        """Peak of a node that only tries a model: the base."""
        return max(LEAN_WORKER_BYTES + PARTS_BYTES + self.layer, self.reloading)

    @property
    def reloading(self) -> float:
        """Peak of the check in a fresh process."""
        whole, layer = self.model.parameters <= WHOLE_PARAMETERS, self.model.layer_parameters
        layers = self.model.parameters / layer if whole else max(1, PART_PARAMETERS // layer)
        return LEAN_WORKER_BYTES + PARTS_BYTES + layers * self.layer

    def gathering(self, tokens: int, *, grams: bool) -> float:
        """Peak of gathering statistics on so many tokens."""
        batch = min(tokens, BATCH_TOKENS)
        activations = batch * (4 * self.model.hidden + 3 * self.model.intermediate) * self.computed
        hidden = min(HIDDEN_BYTES, tokens * self.model.hidden * self.computed)
        # Second moments of the inputs of q and k, of v, of gate and up, of o and of down; and an input in float32.
        widths = (self.model.hidden, self.model.hidden, self.model.hidden, self.model.attention, self.model.intermediate)
        moments = 4 * sum(width**2 for width in widths) + 4 * batch * max(widths) if grams else 0
        return LEAN_WORKER_BYTES + self.model.layer_parameters * self.computed + activations + hidden + moments

    def step(self, *, grams: bool, cuts: bool = False) -> float:
        """Peak of a step that changes a layer at a time.

        Args:
            cuts: it only keeps some rows and columns.
            grams: it solves with second moments: two matrices of the largest input width are in memory, or one beside the weights of gate
                and up with their corrections and errors. Any other one has importances, masks or levels of one matrix.
        """
        moments = 4 * max(self.model.hidden, self.model.intermediate) ** 2
        working = 0.0 if cuts else max(2 * moments, moments + 12 * self.matrix, 24 * self.matrix) if grams else 20 * self.matrix
        return max(LEAN_WORKER_BYTES + PARTS_BYTES + self.layer + working, self.reloading)
