"""The frozen records in which the rooms meet: what a step did, what a variant scored, how dense it is.

Everything here is plain data that survives a round trip through JSON. A record holds only what is decided by its
inputs; seconds, memory and dates live in `Cost`, which is stored apart, so that the same work twice gives the same bytes.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Verdict = Literal["raised", "lowered", "inconclusive"]
Estimator = Literal["loss", "score"]


class Record(BaseModel):
    """A frozen record; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), ser_json_inf_nan="constants")


class Size(Record):
    """What a model weighs, counted from the files written and never from a config.

    Attributes:
        parameters: all parameters; tied tensors count once.
        counted: parameters that multiply activations: everything but a pure input-embedding lookup. This is N.
        active: those of `counted` that one token meets (smaller than `counted` only for mixtures of experts).
        nonzero: parameters whose stored value is not zero.
        stored_bytes: bytes of all tensors in the weight files, scales and zero points included.
        effective_bits: stored bits per parameter, 8 * stored_bytes / parameters.
    """

    parameters: int
    counted: int
    active: int
    nonzero: int
    stored_bytes: int
    effective_bits: float


class Shape(Record):
    """The dimensions that decide inference time, read from a model's config.

    Attributes:
        architecture: transformers' `model_type`.
        key_value_width: KV heads times head dimension (features of K, and as many of V, per token and layer).
        attention_width: attention heads times head dimension.
        weight_bits: mean stored bits of a weight that a matrix product reads.
        weight_only: the weights are stored below 16 bits but multiplied at 16 (GPTQ, NF4), so compute does not shrink.
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


class StepRecord(Record):
    """What one step of a chain did.

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
        details: what the method wants to tell: layers dropped, importances, loss curve.
    """

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
    details: dict[str, Any] = Field(default_factory=dict)


class Cost(Record):
    """What a node cost. Differs from run to run, so it is stored beside the record and never inside it.

    Attributes:
        seconds: wall time. peak_memory_bytes: peak resident set of the worker. started: ISO 8601, UTC.
        tokens_per_second: throughput where tokens were processed.
    """

    seconds: float
    peak_memory_bytes: int
    started: str
    threads: int
    device: str
    tokens_per_second: float | None = None


class TaskScore(Record):
    """One variant on one task.

    Attributes:
        items: number of items answered.
        bits_per_byte: mean over items of -log2 P(gold | prompt) / bytes of the gold continuation without its leading
            space (the OLMo ladder's count). `None` for tasks without a gold continuation.
        accuracy: mean over items of the task's accuracy; for OLMES tasks length-normalised by characters.
        metric: which accuracy this is, e.g. "acc_per_char", "acc", "exact_match".
        chance: accuracy of a uniform guess. `None` where the task has no options.
        engine: how the answers were computed: "tree", "shared", "plain"; "published" for a score taken from a table.
        weights: "as stored" or "dequantized" (equal mathematics, much faster than a packed kernel on a CPU).
        bos: whether a beginning-of-sequence token was put first.
        truncated: items whose prompt did not fit the model's context and was cut from the left.
        prompts: sha256 over all prompts and continuations.
    """

    task: str
    items: int
    bits_per_byte: float | None
    bits_per_byte_stderr: float | None
    accuracy: float
    accuracy_stderr: float
    metric: str
    chance: float | None
    engine: str
    weights: str
    bos: bool
    truncated: int
    prompts: str


class ItemScores(Record):
    """Per-item results of one variant on one task, column by column, in the task's own order.

    Attributes:
        item: the task's identifier of each item, for pairing child and parent.
        bits_per_byte: of the gold continuation; NaN-free, `None` for tasks without one.
        correct: 1.0 or 0.0 (or the metric's value in [0, 1]) for each item.
        choice: index of the option chosen, -1 where there are no options.
        gold: index of the right option, -1 where there are no options.
        logprob: log P(gold continuation | prompt) in nats, whole; `None` for tasks without one. LAMBADA's loss a word is this.
    """

    task: str
    item: list[str]
    bits_per_byte: list[float] | None
    correct: list[float]
    choice: list[int]
    gold: list[int]
    logprob: list[float] | None = None


class Timing(Record):
    """Measured inference time of a variant and of its parent, taken in turn in one run on one machine.

    Attributes:
        seconds: median wall time of one request (prefill and decode of the workload). parent_seconds: the parent's.
        prefill_seconds: the prefill's part of it.
        ratio: median over rounds of child time / parent time, with `low` and `high` its smallest and largest round.
        weights: which kernel ran, in words.
    """

    machine: str
    batch: int
    prompt: int
    decode: int
    rounds: int
    seconds: float
    prefill_seconds: float
    parent_seconds: float | None
    ratio: float | None
    low: float | None
    high: float | None
    weights: str


class MachineSpeed(Record):
    """What this machine reaches: `bandwidth` in bytes per second, `flops` in bfloat16 operations per second."""

    bandwidth: float
    flops: float
    threads: int
    device: str


class Interval(Record):
    """A value with its 95% interval. `bound` is "<" or ">" when the value is only a bound, else empty.

    `extrapolated` says that the value was read off the reference outside the range it was fitted on.
    """

    value: float
    low: float
    high: float
    extrapolated: bool = False
    bound: Literal["", "<", ">"] = ""


class TaskDensity(Record):
    """Effective parameters of a variant on one task, in parameters. A missing estimate is `None` with its `reason`."""

    task: str
    by_loss: Interval | None
    by_score: Interval | None
    reason: str = ""


class Density(Record):
    """Capability density of one variant.

    Attributes:
        tokens: D0, the training-token budget given to the reference.
        effective_by_loss, effective_by_score: N_hat over all tasks, in parameters (geometric mean over tasks).
        estimator: what `params`, `active`, `bits` and `time` rest on: "loss", or "score" where the reference or the study has no losses.
        params, active, bits: N_hat over N, over active N, over N * stored bits / 16. Their intervals hold three things: the
            items, the fit, and the scatter of the reference's own models around it.
        time: N_hat over N_time, by hardware profile; N_time is modelled (see `density.inference_time`).
        modelled_seconds: modelled time of one request of the workload, by hardware profile.
    """

    reference: str
    tokens: float
    effective_by_loss: Interval | None
    effective_by_score: Interval | None
    params: Interval | None
    active: Interval | None
    bits: Interval | None
    params_by_score: Interval | None
    estimator: Estimator = "loss"
    time: dict[str, Interval] = Field(default_factory=dict)
    modelled_seconds: dict[str, float] = Field(default_factory=dict)
    tasks: list[TaskDensity] = Field(default_factory=list)


class TaskComparison(Record):
    """Child against parent on one task: paired differences over the same items, child minus parent.

    Attributes:
        lost, gained: items that the parent had right and the child has not, and the other way round. mcnemar: two-sided p of McNemar's
            exact test on these. `None` where items are not simply right or wrong, or not known.
    """

    task: str
    items: int
    bits_per_byte: Interval | None
    accuracy: Interval
    ratio_by_loss: Interval | None
    ratio_by_score: Interval | None
    lost: int | None = None
    gained: int | None = None
    mcnemar: float | None = None


class Alternative(Record):
    """The density ratio under one other choice that the study could have made.

    Attributes:
        choice: what is chosen otherwise: "D0", "reference", "scatter", "curve", "weights", "estimator", "task alone", "task left out".
        setting: the other choice. verdict: by the interval alone, without the study's correction.
        flips: it decides the other way, or (a single task excepted) its value lies on the other side of 1 with an interval
            that does not hold the study's own.
        reason: why there is no ratio.
    """

    choice: str
    setting: str
    ratio: Interval | None
    verdict: Verdict
    flips: bool = False
    reason: str = ""


class Comparison(Record):
    """A variant against its parent, or against its root.

    Attributes:
        against: name of the other variant. relation: "parent" or "root".
        ratio: density ratio r by params, by `estimator`; the verdict rests on it.
        ratio_by_score: r by params and by score. ratio_bits, ratio_time: r by stored bits, by modelled time.
        ratio_active: r by active parameters, for mixtures of experts.
        verdict: "raised" or "lowered" if the 95% interval of `ratio` lies on one side of 1 and the false-discovery rate over all
            comparisons of this relation in the study stays at 5% (Benjamini and Hochberg 1995), else "inconclusive".
        verdict_bits, verdict_time: the same rule on the other two counts of N.
        p, q: of `ratio` being 1: from the draws, two-sided; and adjusted for the study's number of comparisons.
        items_needed: for an inconclusive verdict, how many items a task would decide it with 80% chance if r is what it seems, at the
            variance observed; infinite if the ruler's own uncertainty forbids it with any number.
        fragile: another choice of D0, reference, estimator or tasks turns the verdict round; `robustness` shows which.
        density_days: ln(r) / A: days of the field's progress that the compression gained (or cost, if negative).
        reason: why there is no ratio, or what is special about it (parent and child from different tables).
    """

    against: str
    relation: Literal["parent", "root"]
    ratio: Interval | None
    ratio_by_score: Interval | None
    ratio_bits: Interval | None
    ratio_active: Interval | None = None
    ratio_time: dict[str, Interval] = Field(default_factory=dict)
    verdict: Verdict
    verdict_by_score: Verdict
    verdict_bits: Verdict
    verdict_time: dict[str, Verdict] = Field(default_factory=dict)
    density_days: Interval | None
    tasks: list[TaskComparison] = Field(default_factory=list)
    resamples: int
    seed: int
    p: float | None = None
    q: float | None = None
    items_needed: float | None = None
    fragile: bool = False
    robustness: list[Alternative] = Field(default_factory=list)
    estimator: Estimator = "loss"
    reason: str = ""


class Failure(Record):
    """Why a variant, or a part of its results, is missing. `cause` is one clear sentence; `node` names the node."""

    node: str
    cause: str


class VariantRecord(Record):
    """One variant of a study with everything known about it.

    Attributes:
        parent: the variant before its last step ("" for the base). A chain that passes through unnamed variants has
            parents that are named `<variant>/<step number>`. root: the base's name.
        steps: the whole chain from the base, the base's own record first.
        keys: content keys of its nodes in the store, by kind ("model", "evaluate", "measure").
        costs: what each of its own nodes cost when it ran, by kind.
        named: whether the recipe names it; a step inside a chain gives an unnamed variant.
    """

    name: str
    parent: str
    root: str
    named: bool = True
    steps: list[StepRecord]
    keys: dict[str, str] = Field(default_factory=dict)
    costs: dict[str, Cost] = Field(default_factory=dict)
    scores: list[TaskScore] = Field(default_factory=list)
    timing: Timing | None = None
    density: Density | None = None
    comparisons: list[Comparison] = Field(default_factory=list)
    failures: list[Failure] = Field(default_factory=list)

    @property
    def size(self) -> Size | None:
        """The size after the last step, or `None` if the chain did not get that far."""
        return self.steps[-1].size if self.steps else None


class Provenance(Record):
    """Where a study's figures come from."""

    recipe_sha256: str
    recipe_path: str
    commit: str
    dirty: bool
    versions: dict[str, str]
    python: str
    machine: str
    cores: int
    memory_bytes: int
    finished: str


class StudyRecord(Record):
    """A whole study: the input of the report and what `reports/<study>/study.json` holds.

    `notes`: what a reader must know of the figures, in whole sentences.
    """

    study: str
    question: str
    base: str
    recipe: str
    variants: list[VariantRecord]
    provenance: Provenance
    seconds: float
    cached_nodes: int
    nodes: int
    workload: dict[str, int] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
