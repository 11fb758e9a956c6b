"""The schema of recipes: every field that a user may write, with its meaning, unit and default.

The models validate values; `recipe.load` adds file, line, column and "did you mean" to their errors.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from compresslab.methods.layerwise import BATCH_TOKENS
from compresslab.methods.settings import NonEmptyText, Seed, Strict
from compresslab.recipe.steps import Step
from compresslab.records.compute import ComputeChoice, Dtype

# Names become folders and page addresses, also on systems that ignore upper and lower case.
NAME_FORM = "a name of at most 100 letters (a-z), digits, '.', '_' and '-' that starts with a letter or a digit"
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description=NAME_FORM)]


def _not_base(name: str) -> str:
    if name.lower() == "base":
        raise ValueError("'base' is the model that every variant starts from; give the variant another name")
    return name


VariantName = Annotated[Name, AfterValidator(_not_base)]


class Base(Strict):
    """The model that every variant starts from.

    `model` is `offline:<name>`, a Hub id with or without `@<revision>`, a folder, or a `.gguf` file; in a study of published
    scores `published:<name>` with the `table` of its scores.

    `dtype` is that of its checkpoint and of its variants' checkpoints; `compute` is that of the matrix products.

    The store refers to a folder of plain safetensors in this dtype, and to such folders that are adopted; `store_copy` keeps copies.
    A copy is another result than the folder (its files are saved anew), so a study that changes `store_copy` is made again.

    `trust_remote_code` runs the code that a folder or a Hub model brings (`auto_map`), for architectures and tokenizers that transformers
    does not have. Read it first: it runs with your rights. It goes along into every variant's folder.

    `train_tokens` is the number of tokens that it was trained on, which `compresslab reference build` and published laws need.
    """

    model: NonEmptyText
    dtype: Dtype = "bfloat16"
    store_copy: bool = False
    trust_remote_code: bool = False
    table: NonEmptyText | None = None
    train_tokens: PositiveFloat | None = None


class Packing(Strict):
    """How documents are packed into sequences; see `Text`."""

    documents: Literal["packed", "bounded"] = "packed"
    bos: Literal["auto", "always", "never"] = "auto"


class Calibration(Packing):
    """Text that calibration-based methods read: `samples` sequences of `length` tokens, packed as `documents` and `bos` say.

    `devices` read it together, each with the whole model and a part of the text; on a processor they are processes. Sums differ in rounding
    alone, so the number is in no content key.
    """

    source: NonEmptyText = "installed-docs"
    samples: PositiveInt = 32
    length: PositiveInt = Field(default=256, ge=8)
    seed: Seed = 0
    devices: PositiveInt = Field(default=1, exclude=True)

    @model_validator(mode="after")
    def _batch_for_each_device(self) -> Calibration:
        batches = -(-self.samples // max(1, BATCH_TOKENS // self.length))
        if self.devices > batches:
            raise ValueError(f"devices: the text has {batches} batches of {BATCH_TOKENS} tokens, so {batches} devices at most can read it")
        return self


class Training(Packing):
    """Text that distill and retrain read: `tokens` tokens of it, in sequences of `length`, packed as `documents` and `bos` say.

    A step with more tokens reads them again, each time in another order.
    """

    source: NonEmptyText = "installed-docs"
    tokens: PositiveInt = 60_000
    length: PositiveInt = Field(default=512, ge=8)
    seed: Seed = 0


class Text(Strict):
    """Where calibration and training text come from: `installed-docs`, a file, or `hub:<dataset>[@<revision>][:<config>][#<split>]`, whose
    column `text` is read. A file is UTF-8 text, with two blank lines between documents, or JSON: an object with a `text` in each line
    (.jsonl) or a list of them. Tables, compressed files and other encodings are refused.

    `installed-docs` is the part of it for this place, which shares no document with the others; `installed-docs#<part>` names a part
    (`training`, `calibration`, `held-out`) or `all`. Another seed reads the same documents in another order: it gives no held-out text.

    `documents` is `packed`, one after the other, so that attention reaches from a document into those before it, or `bounded`: attention
    stays in a document, its positions begin at 0, and the first token of a document is no target of a loss. Models with a state (Mamba,
    linear attention) cannot keep documents apart.

    `bos` puts a token before each document and at the start of each sequence: `auto` the one that the tokenizer itself puts before a text
    (Llama, Gemma), `always` its beginning-of-sequence token, or where that is missing or begins a turn of a chat the token that ends a
    document, `never` none.
    """

    calibration: Calibration = Calibration()
    training: Training = Training()


class Variant(Strict):
    """A chain of steps, from the base or from another variant. A bare list of steps is the same as `{steps: …}`."""

    start: str = Field(default="base", alias="from")
    steps: list[Step] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_replicated_step(self) -> Variant:
        if (replicated := sum(step.replicates > 1 for step in self.steps)) > 1:
            raise ValueError(f"{replicated} steps have replicates; keep one, and let another variant start from this one for the next")
        return self


class Sweep(Strict):
    """One variant for each point of `grid`; `{key}` in its name, `from` and steps is replaced by the point's value."""

    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(min_length=1)
    start: str = Field(default="base", alias="from")
    steps: list[Any] = Field(min_length=1)


class FidelityText(Packing):
    """A text on which every variant's next-token distributions are compared with its parent's: `tokens` tokens of it, in sequences of
    `length`, packed as `documents` and `bos` say. Best is a text that no step reads; `installed-docs` is a part of it that no step reads
    unless its source names that part."""

    source: NonEmptyText
    tokens: PositiveInt = 8192
    length: PositiveInt = Field(default=512, ge=8)
    seed: Seed = 0


class Evaluate(Strict):
    """Which tasks every variant answers. Names of OLMES tasks (`compresslab doctor` lists them) or of stock lm-eval tasks.

    The prefix `lm-eval:` selects lm-eval's task for a name that both have.

    `items` is the number of items per task, from the first in the task's order; `all` is every item.

    `run_code` allows tasks that run programs written by the model (humaneval, mbpp), in a sandbox that bubblewrap makes; where it
    cannot, they are refused, and so are tasks that run programs by their own means (cruxeval). `truncate` allows prompts that are longer
    than the model's context, which are cut from the left; each score then has the number of cut items.

    `backend` computes the answers: `tree` computes shared prefixes once, `hf` is lm-eval's own, `vllm` needs vLLM and serves each
    variant's folder on all GPUs, with the kernels of its format.

    `devices` answer a variant's items together, each with the whole model and a part of the items; on a processor they are processes.
    With as many threads each the answers are those of one. Where there are as many variants as devices, `--jobs` is faster.

    `fidelity` compares every variant with its parent on a text: KL(parent || variant) over the whole vocabulary in nats a token, and how
    often both find the same token most likely.

    `source: published` runs nothing: it reads the scores of `published:` models from `table`, for all its benchmarks or those in `tasks`.
    `table` is one that ships, or a `.csv` file of your own (docs/bring-your-own.md).
    Parent and child from different tables are an error unless `across_tables` is true.
    """

    source: Literal["run", "published"] = "run"
    tasks: list[NonEmptyText] = Field(default_factory=list, min_length=1)
    items: PositiveInt | Literal["all"] = "all"
    seed: Seed = 0
    table: NonEmptyText | None = None
    across_tables: bool = False
    run_code: bool = False
    truncate: bool = False
    backend: Literal["tree", "hf", "vllm"] = "tree"
    fidelity: FidelityText | None = None
    # Answers do not depend on it, so it is in no dump of the settings, neither for keys nor for records.
    devices: PositiveInt = Field(default=1, exclude=True)

    @field_validator("tasks")
    @classmethod
    def _unique_tasks(cls, tasks: list[str]) -> list[str]:
        duplicates = sorted(task for task, count in Counter(tasks).items() if count > 1)
        if duplicates:
            raise ValueError(f"named twice: {', '.join(duplicates)}; name each task once")
        return tasks

    @model_validator(mode="after")
    def _has_tasks(self) -> Evaluate:
        if self.source == "run" and not self.tasks:
            raise ValueError("tasks is missing or empty; name at least one task, such as [arc_easy]")
        if self.source == "run" and (self.table or self.across_tables):
            raise ValueError("table and across_tables are for source: published; a run evaluates the models itself")
        if self.source == "published" and self.fidelity:
            raise ValueError("fidelity: published scores are read, and no model runs that could be compared; leave it out")
        if self.devices > 1 and (self.source == "published" or self.backend == "vllm"):
            why = "vllm takes all accelerators itself" if self.source == "run" else "published scores are read, not computed"
            raise ValueError(f"devices: {why}; leave it out")
        return self


class Workload(Strict):
    """One request batch: `batch` sequences, `prompt` tokens read, then `decode` tokens generated, each."""

    batch: PositiveInt = 1
    prompt: PositiveInt = 512
    decode: PositiveInt = 128


class DensityConfig(Strict):
    """The reference, its training budget D0, and the hardware and workload of modelled times.

    D0 is `tokens_per_parameter` tokens for each parameter of the reference's model. `tokens`, if it is given, is one number for all sizes.
    `measure` also times every variant against its parent on this machine.
    """

    reference: NonEmptyText = "olmo-ladder"
    tokens_per_parameter: PositiveFloat = 200.0
    tokens: PositiveFloat | None = None
    hardware: list[NonEmptyText] = Field(default=["this-machine"])
    workload: Workload = Workload()
    measure: bool = True
    resamples: Annotated[int, Field(ge=200, le=100_000)] = 2000
    seed: Seed = 0


class Recipe(Strict):
    """A whole study. `variants` has those in the file and those that the sweeps expand to.

    `compute` is the dtype of matrix products in everything that runs a model: calibration, training, evaluation and
    timing. Checkpoints have `base.dtype`. `auto` is `base.dtype` if the device multiplies in it at least as fast as in float32, else
    float32; a short probe measures it once on each machine.
    """

    study: Name
    question: str = "Does each step raise capability density, or only shrink the model?"
    base: Base
    compute: ComputeChoice = "auto"
    text: Text = Text()
    variants: dict[VariantName, Variant] = Field(default_factory=dict)
    evaluate: Evaluate
    density: DensityConfig = DensityConfig()
