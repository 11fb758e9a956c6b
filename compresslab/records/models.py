"""What a model weighs, what a step did to it, and what that cost."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from compresslab.records.base import Record, StoredRecord


class Size(Record):
    """What a model weighs, counted from the files written and never from a config.

    Attributes:
        parameters: all parameters; tied tensors count once.
        counted: parameters that multiply activations: everything but lookups, such as an untied input embedding, a table of positions, or
            embeddings of tokens for each layer. This is N.
        active: those of `counted` that one token meets (smaller than `counted` only for mixtures of experts).
        nonzero: parameters whose stored value is not zero.
        stored_bytes: bytes of all tensors in the weight files, scales and zero points included.
        effective_bits: stored bits per parameter, a plain weight counted at 16 bits at most.
    """

    parameters: int
    counted: int
    active: int
    nonzero: int
    stored_bytes: int
    effective_bits: float


class AttentionLayers(Record):
    """Decoder layers that keep the same of earlier tokens. All but `layers` are numbers of features of one layer and one sequence.

    Attributes:
        layers: their number. kept: of each token, keys and values together (or the latent vector that stands for both). read: those of an
            earlier token that a pass reads, as many unless another layer keeps them.
        prefill_width, decode_width: what a query multiplies for each token that it attends to, for scores and values together, while the
            prompt is read and while tokens are written.
        window: tokens that a query attends to at most; 0 if all. state: of a state of constant size, which each token reads and writes.
    """

    layers: int
    kept: int = 0
    read: int = 0
    prefill_width: int = 0
    decode_width: int = 0
    window: int = 0
    state: int = 0


class Shape(Record):
    """The dimensions that decide inference time, read from a model's config.

    Attributes:
        architecture: transformers' `model_type`.
        key_value_width: KV heads times head dimension (features of K, and as many of V, per token and layer).
        attention_width: attention heads times head dimension.
        weight_bits: mean stored bits of a weight that a matrix product reads.
        weight_only: the weights are stored below 16 bits but multiplied at 16 (GPTQ, NF4), so compute does not shrink.
        attention: the layers by what they keep of earlier tokens; if empty, all keep keys and values of `key_value_width` of all tokens.
    """

    architecture: str
    layers: int
    hidden: int
    intermediate: int
    attention_width: int
    key_value_width: int
    vocabulary: int
    weight_bits: float = 16.0
    weight_only: bool = True
    experts: int = 0
    experts_per_token: int = 0
    attention: tuple[AttentionLayers, ...] = ()


class LeftAlone(Record):
    """Modules that a step rightly left as they were: why, how many, and the first one's name."""

    reason: str
    modules: int
    first: str


class Counted(Record):
    """What the files of a step hold, counted from them after they were written and held against the step's settings.

    Attributes:
        matrices: linear layers inside the decoder layers. packed: those of them whose weights are packed.
        bits: mean stored bits of a packed weight, scales and zero points included; 16 or 32 of a plain one.
        sparsity: share of zeros of the plain weights of these layers; `None` if none is plain.
        pattern: the most weights that are not zero among neighbours in a row, such as "2:4"; "" if the zeros have no such pattern.
        unchanged: those of the layers whose weights are bit for bit the parent's; `None` where they could not be compared.
        left_alone: other modules that are as they were, by reason.
    """

    matrices: int
    packed: int
    bits: float
    sparsity: float | None = None
    pattern: str = ""
    unchanged: int | None = None
    left_alone: tuple[LeftAlone, ...] = ()


class StepRecord(StoredRecord):
    """What one step of a chain did.

    Form 2 adds what was counted from its files. A record of form 1 is read, as of a step where nobody looked.

    Attributes:
        kind: "base", "prune", "distill", "quantize", "retrain" or "adopt".
        method: the method within the kind, as the recipe names it.
        config: the step's whole configuration, defaults included.
        tokens_seen: training tokens, each position of each batch once; 0 for steps that do not train.
        calibration_tokens: tokens of the calibration text that the step read.
        data: sha256 of every text or file that decided the result, by role.
        reload_difference: largest absolute difference of a logit between the model in memory and the saved folder,
            loaded by plain transformers in a fresh process; 0 if all tensors are equal bit for bit, whatever a matrix
            product rounds. `None` for adopted published scores.
        compute: dtype and backend of the forward and backward passes that decided the result; empty where the weights alone did.
        details: what the method wants to tell: layers dropped, importances, loss curve.
        counted: what the files hold; `None` for a base and an adopted model, and where nobody looked.
    """

    version: Literal[1, 2] = 2
    kind: str
    method: str
    config: dict[str, Any]
    seed: int
    size: Size
    shape: Shape
    tokens_seen: int = 0
    calibration_tokens: int = 0
    data: dict[str, str] = Field(default_factory=dict)
    reload_difference: float | None = None
    compute: dict[str, str] = Field(default_factory=dict)
    details: dict[str, Any] = Field(default_factory=dict)
    counted: Counted | None = None


class Cost(StoredRecord):
    """What a node cost. Differs from run to run, so it is stored beside the record and never inside it.

    Attributes:
        seconds: wall time. peak_memory_bytes: peak resident set of the worker. started: ISO 8601, UTC.
        tokens_per_second: throughput where tokens were processed. devices: how many made it together, on a processor how many processes;
            the peak is then the sum of theirs.
    """

    version: Literal[1] = 1
    seconds: float
    peak_memory_bytes: int
    started: str
    threads: int
    device: str
    tokens_per_second: float | None = None
    devices: int = 1
