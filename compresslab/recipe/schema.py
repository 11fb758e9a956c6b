"""The recipe's form. Every field that a user may write stands here with its meaning, its unit and its default.

The models validate values; `recipe.load` adds file, line, column and "did you mean" to what they refuse.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

Dtype = Literal["bfloat16", "float32", "float16"]

# Names become folders and addresses of pages, on systems that tell no upper from lower case.
NAME_FORM = "a name of at most 100 letters (a-z), digits, '.', '_' and '-' that starts with a letter or a digit"
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description=NAME_FORM)]


def _not_base(name: str) -> str:
    if name.lower() == "base":
        raise ValueError("'base' is the model that every variant starts from; give the variant another name")
    return name


VariantName = Annotated[Name, AfterValidator(_not_base)]
Words = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy and torch both take


class Strict(BaseModel):
    """Unknown keys are errors: a typo must never be swallowed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Base(Strict):
    """The model that every variant starts from.

    `model` is `offline:<name>`, a Hub id with or without `@<revision>`, a folder, or a `.gguf` file; in a study of published
    scores `published:<name>`, and `table` says which of its tables counts.

    `train_tokens` is how many tokens it was trained on: what `compresslab reference build` fits on.
    """

    model: Words
    dtype: Dtype = "bfloat16"
    trust_remote_code: bool = False
    table: Words | None = None
    train_tokens: PositiveFloat | None = None


class Calibration(Strict):
    """Text that calibration-based methods read: `samples` sequences of `length` tokens."""

    source: Words = "installed-docs"
    samples: PositiveInt = 32
    length: PositiveInt = Field(default=256, ge=8)
    seed: Seed = 0


class Training(Strict):
    """Text that distill and retrain read: `tokens` tokens of it, cut into sequences of `length`.

    A step that asks for more tokens goes over them again, each time in another order.
    """

    source: Words = "installed-docs"
    tokens: PositiveInt = 60_000
    length: PositiveInt = Field(default=512, ge=8)
    seed: Seed = 0


class Text(Strict):
    """Where calibration and training text come from: `installed-docs`, a .txt or .jsonl file, or `hub:<dataset>`."""

    calibration: Calibration = Calibration()
    training: Training = Training()


class PruneDepth(Strict):
    """Drop whole layers by block influence; `keep` is the number of layers that stay (or their share, below 1)."""

    method: Literal["depth"]
    keep: PositiveInt | Annotated[float, Field(gt=0, lt=1)]


class PruneWidth(Strict):
    """Drop MLP neurons by activation importance; `keep` is the number a layer keeps (or its share, below 1).

    A share is rounded to the nearest multiple of `multiple`, which keeps matrix shapes that kernels like.
    """

    method: Literal["width"]
    keep: PositiveInt | Annotated[float, Field(gt=0, lt=1)]
    multiple: PositiveInt = 32


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
        if (self.sparsity is None) == (self.pattern is None):
            given = "both are given" if self.pattern else "neither is given"
            raise ValueError(f"{given}; set exactly one of sparsity (a share, such as 0.5) and pattern (such as 2:4)")
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


class QuantizeNF4(Strict):
    """bitsandbytes 4-bit NormalFloat with blocks of 64 weights; embeddings and output head stay as they are."""

    method: Literal["bnb-nf4"]
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


class Optimizer(Strict):
    """AdamW with linear warm-up, a constant phase and a linear decay to zero (WSD); shares are of all steps."""

    learning_rate: PositiveFloat = 3e-4
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
    """Train the variant on the teacher's logits: forward KL at `temperature`, over `tokens` tokens.

    `teacher` is `base` or the name of another variant of this study with the same tokenizer.
    """

    method: Literal["forward-kl"] = "forward-kl"
    teacher: str = "base"
    tokens: PositiveInt
    temperature: PositiveFloat = 1.0
    optimizer: Optimizer = Optimizer()
    seed: Seed = 0


def _learning_rate(default: float) -> BeforeValidator:
    """A recipe that sets another field of the optimizer keeps the method's own learning rate, not the optimizer's."""
    return BeforeValidator(lambda given: {"learning_rate": default, **given} if isinstance(given, dict) else given)


class RetrainFull(Strict):
    """Continue training all weights on the training text, over `tokens` tokens."""

    method: Literal["full"]
    tokens: PositiveInt
    optimizer: Annotated[Optimizer, _learning_rate(1e-4)] = Optimizer(learning_rate=1e-4)
    seed: Seed = 0


class RetrainLoRA(Strict):
    """Train low-rank adapters on every linear layer of the blocks and merge them at the end."""

    method: Literal["lora"]
    tokens: PositiveInt
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
Quantize = Annotated[QuantizeNF4 | QuantizeInt8 | QuantizeRTN, Field(discriminator="method")]
Retrain = Annotated[RetrainFull | RetrainLoRA, Field(discriminator="method")]
StepConfig = PruneDepth | PruneWidth | PruneSparse | QuantizeNF4 | QuantizeInt8 | QuantizeRTN | Distill | RetrainFull | RetrainLoRA | Adopt
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


class Variant(Strict):
    """A chain of steps, from the base or from another variant. A bare list of steps is the same as `{steps: …}`."""

    start: str = Field(default="base", alias="from")
    steps: list[Step] = Field(min_length=1)


class Sweep(Strict):
    """One variant for each point of `grid`; `{key}` in its name, `from` and steps is replaced by the point's value."""

    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(min_length=1)
    start: str = Field(default="base", alias="from")
    steps: list[Any] = Field(min_length=1)


class Evaluate(Strict):
    """Which tasks every variant answers. Names of OLMES tasks (`compresslab doctor` lists them) or of stock lm-eval tasks.

    `lm-eval:` before a name that both have means lm-eval's.

    `items` is the number of items per task, the first ones in the task's order; `all` takes every one.

    `source: published` runs nothing: it takes the scores of `published:` models from `table`, all its benchmarks or those that `tasks`
    names. Parent and child from different tables are refused unless `across_tables` allows it.
    """

    source: Literal["run", "published"] = "run"
    tasks: list[Words] = Field(default_factory=list, min_length=1)
    items: PositiveInt | Literal["all"] = "all"
    dtype: Dtype = "bfloat16"
    seed: Seed = 0
    table: Words | None = None
    across_tables: bool = False

    @field_validator("tasks")
    @classmethod
    def _each_once(cls, tasks: list[str]) -> list[str]:
        twice = sorted({task for task in tasks if tasks.count(task) > 1})
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}; name each task once")
        return tasks

    @model_validator(mode="after")
    def _something_to_answer(self) -> Evaluate:
        if self.source == "run" and not self.tasks:
            raise ValueError("tasks is missing or empty; name at least one task, such as [arc_easy]")
        if self.source == "run" and (self.table or self.across_tables):
            raise ValueError("table and across_tables are for source: published; a run evaluates the models itself")
        return self


class Workload(Strict):
    """One request batch: `batch` sequences, `prompt` tokens read, then `decode` tokens generated, each."""

    batch: PositiveInt = 1
    prompt: PositiveInt = 512
    decode: PositiveInt = 128


class DensityConfig(Strict):
    """The ruler: which reference, at which training budget D0 (`tokens`), on which hardware and workload.

    `measure` times every variant against its parent on this machine, beside the model of inference time.
    """

    reference: Words = "olmo-ladder"
    tokens: PositiveFloat = 1e12
    hardware: list[Words] = ["this-machine"]
    workload: Workload = Workload()
    measure: bool = True
    resamples: Annotated[int, Field(ge=200, le=100_000)] = 2000
    seed: Seed = 0


class Recipe(Strict):
    """A whole study. `variants` holds those written out and those that the sweeps expanded to."""

    study: Name
    question: str = "Does each step raise capability density, or only shrink the model?"
    base: Base
    text: Text = Text()
    variants: dict[VariantName, Variant] = Field(default_factory=dict)
    evaluate: Evaluate
    density: DensityConfig = DensityConfig()
