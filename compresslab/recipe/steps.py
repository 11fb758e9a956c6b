"""The recipe's steps: every setting of every method, with its meaning, its unit and its default."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

Words = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy and torch both take


class Strict(BaseModel):
    """Unknown keys are errors: a typo must never be swallowed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Share = Annotated[float, Field(gt=0, lt=1)]


class PruneDepth(Strict):
    """Drop whole layers: `keep` stay (a number, or their share, below 1), or as many as fit into `parameters` (likewise).

    `by` says which go: the ones that change the hidden states least (`block-influence`), the run of neighbours whose two ends are most
    alike (`angular-distance`), or one after the other the one without which the calibration text's loss is lowest (`loss`, slow).
    """

    method: Literal["depth"]
    keep: PositiveInt | Share | None = None
    parameters: PositiveInt | Share | None = None
    by: Literal["block-influence", "angular-distance", "loss"] = "block-influence"

    @model_validator(mode="after")
    def _one_measure(self) -> PruneDepth:
        if (self.keep is None) == (self.parameters is None):
            raise ValueError(f"{_both_or_neither(self.parameters)}; set exactly one of keep (layers) and parameters (the model's)")
        return self


class PruneWidth(Strict):
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
    axes: Annotated[list[Literal["neurons", "groups", "hidden"]], Field(min_length=1)] = ["neurons"]
    multiple: PositiveInt = 32

    @model_validator(mode="after")
    def _one_measure(self) -> PruneWidth:
        if (self.keep is self.groups is self.hidden is None) == (self.parameters is None):
            raise ValueError(
                f"{_both_or_neither(self.parameters)}; set either keep, groups and hidden (at least one of them), or parameters"
            )
        if len(set(self.axes)) < len(self.axes):
            raise ValueError(f"axes: {', '.join(self.axes)} is one axis twice; name each once")
        return self


def _both_or_neither(given: object) -> str:
    return "neither is given" if given is None else "both are given"


def _refuse_unread(step: Strict, method: str, readers: dict[str, str]) -> None:
    """Refuse a setting that another method reads, and this one would swallow. One left at its default does no harm."""
    for name, reader in readers.items():
        if method != reader and getattr(step, name) != type(step).model_fields[name].default:
            raise ValueError(f"{name} is a setting of {reader}, and {method} does not read it; leave it out")


class PruneSparse(Strict):
    """Set weights of the linear layers to zero: the share `sparsity`, or all but some of each few neighbours (`pattern`, such as 2:4).

    `magnitude` looks at the weights alone, `wanda` also at how large the inputs are, `sparsegpt` corrects the weights that stay
    (`damping` is its share of the mean curvature). Matrices keep their shape, later training keeps the zeros.
    """

    method: Literal["magnitude", "wanda", "sparsegpt"]
    sparsity: Annotated[float, Field(gt=0, lt=1)] | None = None
    pattern: (
        Annotated[str, Field(pattern=r"^[1-9][0-9]?:[1-9][0-9]?$", description="two numbers such as 2:4: kept, of how many")] | None
    ) = None
    damping: PositiveFloat = 0.01

    @model_validator(mode="after")
    def _one_measure(self) -> PruneSparse:
        _refuse_unread(self, self.method, {"damping": "sparsegpt"})
        if (self.sparsity is None) == (self.pattern is None):
            raise ValueError(
                f"{_both_or_neither(self.pattern)}; set exactly one of sparsity (a share, such as 0.5) and pattern (such as 2:4)"
            )
        if self.of is not None and self.of[0] >= self.of[1]:
            raise ValueError(f"pattern {self.pattern} drops nothing; the first number (kept) must be below the second")
        return self

    @property
    def of(self) -> tuple[int, int] | None:
        """The pattern as numbers: kept, of how many."""
        if self.pattern is None:
            return None
        keep, of = self.pattern.split(":")
        return int(keep), int(of)

    @property
    def share(self) -> float:
        """The share of weights that go."""
        return self.sparsity if self.of is None and self.sparsity is not None else 1 - (self.of or (0, 1))[0] / (self.of or (0, 1))[1]


class Quantize4Bit(Strict):
    """bitsandbytes 4-bit NormalFloat or floating point with blocks of 64 weights; embeddings and output head stay as they are."""

    method: Literal["bnb-nf4", "bnb-fp4"]
    double_quantization: bool = False


class QuantizeInt8(Strict):
    """bitsandbytes LLM.int8(): vector-wise int8, outlier features above `threshold` at 16 bits."""

    method: Literal["bnb-int8"]
    threshold: PositiveFloat = 6.0


class QuantizeRTN(Strict):
    """Round to nearest, symmetric, one scale per `group_size` weights of a row; the baseline of weight quantization."""

    method: Literal["rtn"]
    bits: Literal[4, 8] = 4
    group_size: PositiveInt = 32


class QuantizeGPTQ(Strict):
    """GPTQ: round one column after the other and correct the columns to come, in a GPTQ checkpoint that vLLM and transformers load.

    One scale per `group_size` weights of a row. `activation_order` visits the columns of largest activations first. `damping` is its
    share of the mean curvature.
    """

    method: Literal["gptq"]
    bits: Literal[2, 3, 4, 8] = 4
    group_size: PositiveInt = 32
    symmetric: bool = True
    activation_order: bool = True
    damping: PositiveFloat = 0.01


class QuantizeAWQ(Strict):
    """AWQ: scale up the input channels that matter before rounding to 4 bits, in an AWQ checkpoint that vLLM and transformers load."""

    method: Literal["awq"]
    group_size: PositiveInt = 32


class QuantizeTorchAO(Strict):
    """torchao's weight-only int8 (one scale a row) or int4 (one scale per `group_size` weights)."""

    method: Literal["torchao-int8", "torchao-int4"]
    group_size: PositiveInt = 32

    @model_validator(mode="after")
    def _groups_are_of_int4(self) -> QuantizeTorchAO:
        _refuse_unread(self, self.method, {"group_size": "torchao-int4"})
        return self


class Optimizer(Strict):
    """AdamW with linear warm-up, then a constant phase and a linear decay to zero (`wsd`), or a cosine to zero; shares are of all steps."""

    learning_rate: PositiveFloat = 3e-4
    schedule: Literal["wsd", "cosine"] = "wsd"
    weight_decay: float = Field(default=0.0, ge=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    decay: float = Field(default=0.3, ge=0, le=1)
    batch_tokens: PositiveInt = 2048
    micro_batch_tokens: PositiveInt = 2048
    max_grad_norm: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _phases_fit(self) -> Optimizer:
        if self.warmup + self.decay > 1:
            raise ValueError(f"warmup {self.warmup} and decay {self.decay} add up to more than the whole run (1); lower one of them")
        return self


class Distill(Strict):
    """Train the variant on its teacher's next-token distributions, over `tokens` tokens.

    `teacher` is `base` or the name of another variant of this study with the same tokenizer. The divergence is `method`'s, at
    `temperature`: `jsd` goes from the forward KL (`beta` near 0) to the reverse one (near 1), both small at the ends; `skewed-kl` mixes the
    share `skew` of the teacher into the student.

    `cross_entropy` is the share of the next-token loss in the mix; `hidden` the weight of matching the teacher's hidden states through
    learned projectors. `top_k` trains on the teacher's `top_k` largest logits, computed once for all students that read the same text.
    `on_policy` is the share of batches whose text the student writes itself, continuing the first `prompt` tokens of each sequence.
    """

    method: Literal["forward-kl", "reverse-kl", "jsd", "skewed-kl"] = "forward-kl"
    teacher: str = "base"
    tokens: PositiveInt
    temperature: PositiveFloat = 1.0
    beta: Share = 0.5
    skew: Share = 0.1
    cross_entropy: float = Field(default=0.0, ge=0, lt=1)
    hidden: float = Field(default=0.0, ge=0)
    top_k: PositiveInt | None = None
    on_policy: float = Field(default=0.0, ge=0, le=1)
    prompt: PositiveInt = 64
    optimizer: Optimizer = Optimizer()
    seed: Seed = 0

    @model_validator(mode="after")
    def _teacher_is_there(self) -> Distill:
        _refuse_unread(self, self.method, {"beta": "jsd", "skew": "skewed-kl"})
        if self.top_k is not None and (self.hidden or self.on_policy):
            needs = "hidden" if self.hidden else "on_policy"
            raise ValueError(f"{needs} needs the teacher itself, and top_k replaces it by stored logits; drop one of the two")
        return self


def _learning_rate(default: float) -> BeforeValidator:
    """A recipe that sets another field of the optimizer keeps the method's own learning rate, not the optimizer's."""
    return BeforeValidator(lambda given: {"learning_rate": default, **given} if isinstance(given, dict) else given)


class RetrainFull(Strict):
    """Continue training all weights on the training text, over `tokens` tokens, or `until` the loss on held-out text is as low as another
    model's: that of `parent` (the model before the last prune step), of `base` or of a variant.
    """

    method: Literal["full"]
    tokens: PositiveInt
    until: str | None = None
    optimizer: Annotated[Optimizer, _learning_rate(1e-4)] = Optimizer(learning_rate=1e-4)
    seed: Seed = 0


class RetrainLoRA(Strict):
    """Train low-rank adapters on every linear layer of the blocks and merge them at the end; `qlora` over weights held at 4 bits (NF4)."""

    method: Literal["lora", "qlora"]
    tokens: PositiveInt
    until: str | None = None
    rank: PositiveInt = 16
    alpha: PositiveFloat = 32.0
    dropout: float = Field(default=0.0, ge=0, lt=1)
    optimizer: Annotated[Optimizer, _learning_rate(1e-3)] = Optimizer(learning_rate=1e-3)
    seed: Seed = 0


class Adopt(Strict):
    """Take an existing model as the outcome of a chain; `how` says in words how it was made from its parent.

    `table` and `train_tokens` are as for the base.
    """

    model: Words
    how: str = ""
    table: Words | None = None
    train_tokens: PositiveFloat | None = None


Prune = Annotated[PruneDepth | PruneWidth | PruneSparse, Field(discriminator="method")]
Quantize = Annotated[
    Quantize4Bit | QuantizeInt8 | QuantizeRTN | QuantizeGPTQ | QuantizeAWQ | QuantizeTorchAO, Field(discriminator="method")
]
Retrain = Annotated[RetrainFull | RetrainLoRA, Field(discriminator="method")]
StepConfig = (
    PruneDepth
    | PruneWidth
    | PruneSparse
    | Quantize4Bit
    | QuantizeInt8
    | QuantizeRTN
    | QuantizeGPTQ
    | QuantizeAWQ
    | QuantizeTorchAO
    | Distill
    | RetrainFull
    | RetrainLoRA
    | Adopt
)
# What `until` calls the model before the last prune step.
BASE = "base"
PARENT = "parent"
STEP_KINDS = ("prune", "distill", "quantize", "retrain", "adopt")


class Step(Strict):
    """One step: exactly one of the kinds."""

    prune: Prune | None = None
    distill: Distill | None = None
    quantize: Quantize | None = None
    retrain: Retrain | None = None
    adopt: Adopt | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Step:
        given = [kind for kind in STEP_KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"a step has exactly one of {', '.join(STEP_KINDS)}; this one has {' and '.join(given) or 'none'}")
        return self

    @property
    def kind(self) -> str:
        """Which of the kinds this step is."""
        return next(kind for kind in STEP_KINDS if getattr(self, kind) is not None)

    @property
    def config(self) -> StepConfig:
        """The configuration of the step's kind."""
        config: StepConfig = getattr(self, self.kind)
        return config

    @property
    def looks_at(self) -> str | None:
        """The name of the other model that the step needs, if any: its teacher, or the one whose loss it trains until."""
        if self.distill is not None:
            return self.distill.teacher
        return self.retrain.until if self.retrain is not None and self.retrain.until != PARENT else None
