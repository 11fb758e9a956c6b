"""A whole study: its variants, its failures, where its figures come from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from compresslab.records.base import Record, StoredRecord
from compresslab.records.densities import Comparison, Curve, Density
from compresslab.records.fidelity import Fidelity, TextDivergence
from compresslab.records.laws import PublishedLaws
from compresslab.records.models import Cost, Size, StepRecord
from compresslab.records.noise import Noise
from compresslab.records.overlaps import TextOverlap
from compresslab.records.scores import LostItem, TaskScore, Timing


class Failure(Record):
    """Why a variant, or a part of its results, is missing.

    Attributes:
        node: the node's label. cause: one clear sentence.
        because: content key of the node whose failure is the cause; `None` where the node itself failed or has not run.
        pending: nothing failed; the node has not run yet.
    """

    node: str
    cause: str
    because: str | None = None
    pending: bool = False


class VariantRecord(Record):
    """One variant of a study with everything known about it.

    Attributes:
        parent: the variant before its last step ("" for the base). A chain that passes through unnamed variants has
            parents that are named `<variant>/<step number>`. root: the base's name.
        steps: the whole chain from the base, the base's own record first.
        keys: content keys of its nodes in the store, by kind ("model", "evaluate", "measure", "fidelity").
        costs: what each of its own nodes cost when it ran, by kind.
        lost_items: the items that it answers worst against its parent, over all tasks.
        fidelity: how far its answers are those of its parent, by task; `None` where nobody looked, and for the base.
        divergence: how far its next-token distributions are from its parent's on the recipe's text; `None` where nobody looked.
        noise: what its replicates differ by, beside what sets it apart from others; `None` without replicates, and where nobody looked.
        named: whether the recipe names it; a step inside a chain gives an unnamed variant.
        replicate_of: the variant from which it differs in the seeds of one step alone; "" for any other. It has no comparisons of its
            own: those of that variant are means over its replicates.
    """

    name: str
    parent: str
    root: str
    named: bool = True
    replicate_of: str = ""
    steps: list[StepRecord]
    keys: dict[str, str] = Field(default_factory=dict)
    costs: dict[str, Cost] = Field(default_factory=dict)
    scores: list[TaskScore] = Field(default_factory=list)
    timing: Timing | None = None
    density: Density | None = None
    comparisons: list[Comparison] = Field(default_factory=list)
    failures: list[Failure] = Field(default_factory=list)
    lost_items: list[LostItem] = Field(default_factory=list)
    fidelity: list[Fidelity] | None = None
    divergence: TextDivergence | None = None
    noise: Noise | None = None

    @property
    def size(self) -> Size | None:
        """The size after the last step, or `None` if the chain did not get that far."""
        return self.steps[-1].size if self.steps else None


class Provenance(Record):
    """Where a study's figures come from.

    Attributes:
        compute: dtype and backend of its forward and backward passes; empty for published scores.
        differing: the installed packages that differ from the lock: locked and installed version. `None` if nobody looked.
    """

    recipe_sha256: str
    recipe_path: str
    commit: str
    dirty: bool
    versions: dict[str, str]
    differing: dict[str, tuple[str, str]] | None = None
    python: str
    machine: str
    compute: dict[str, str] = Field(default_factory=dict)
    cores: int
    memory_bytes: int
    finished: str


class StudyRecord(StoredRecord):
    """A whole study: the input of the report and what `reports/<study>/study.json` holds.

    Form 2 adds the variants' fidelity and divergence, form 3 their noise floors, the share of generated answers that were cut, and
    whether a missing part has not run yet. A file of an older form is read, as of a study where nobody looked for it.

    Attributes:
        workload: the request whose time is modelled and measured.
        curves: the reference on each task that a density rests on.
        overlaps: every text that steps read, compared with the tasks' items; `None` where nobody looked.
        laws: what published laws predict, beside what was measured; `None` where nobody looked.
        ranked: whether the answer names the highest of all variants; not where several studies on one page rest on different benchmarks.
        notes: what a reader must know of the figures, in whole sentences. caveats: the same, for the head of the page.
    """

    version: Literal[1, 2, 3] = 3

    @model_validator(mode="before")
    @classmethod
    def _without_refits_of_form_1(cls, given: Any) -> Any:
        """Refits of form 1 had another error than the interval of now; they are left out, as where there are too few variants for one."""
        if isinstance(given, dict) and given.get("version") == 1 and isinstance(laws := given.get("laws"), dict):
            return {**given, "laws": {**laws, "refits": []}}
        return given

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
    curves: list[Curve] = Field(default_factory=list)
    overlaps: list[TextOverlap] | None = None
    laws: PublishedLaws | None = None
    ranked: bool = True
    notes: list[str] = Field(default_factory=list)
    caveats: list[str] = Field(default_factory=list)
