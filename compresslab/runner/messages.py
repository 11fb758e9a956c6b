"""What passes between a run and its workers: a job there, reports back."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from compresslab.models.progress import Amount
from compresslab.plan.graph import Node
from compresslab.recipe.schema import Recipe
from compresslab.records.compute import Compute


class Share(NamedTuple):
    """What of a machine a node may use.

    Attributes:
        threads: of the processor. environment: the variables that show its process the accelerators that it may use, and no others.
        devices: these accelerators, as the machine counts them; empty if it computes on the one that the plan names, or on the processor.
        asked: what tells this attempt from others at the same node, if its command needs that.
    """

    threads: int
    environment: dict[str, str]
    devices: tuple[str, ...] = ()
    asked: str = ""


class NodeJob(NamedTuple):
    """One node's work.

    Attributes:
        staged: folder to write the result into. log: file that takes what the libraries print.
        models: model folders of the nodes that it needs, by key.
        scores: for evaluate nodes, where each task's finished scores are to be put, by task (a folder each, staged).
        gathered: folder of the gather node that the step reads. checkpoints: where a training step or an evaluation keeps how far it
            has come. encodings: where a study keeps its tasks' token ids. machine: its name. compute: what is multiplied in, and on what.
        share: what of the machine it may use.
        trust_code: whether programs of the model run without a sandbox.
    """

    node: Node
    recipe: Recipe
    staged: Path
    log: Path
    models: dict[str, Path]
    scores: dict[str, Path]
    gathered: Path | None
    checkpoints: Path
    encodings: Path
    machine: str
    share: Share
    compute: Compute
    trust_code: bool = False

    @property
    def threads(self) -> int:
        """Of the processor, that it may use."""
        return self.share.threads


class ReloadJob(NamedTuple):
    """The check after a model node, in a process of its own: does the saved folder give the logits it should?

    Attributes:
        own_code: whether the code in the folder may be run. The recipe trusts it, and the folder was saved from the recipe's base.
    """

    folder: Path
    probe: Path
    log: Path
    share: Share
    compute: Compute
    own_code: bool = False


class Progressed(NamedTuple):
    """The share done in [0, 1], what is going on, and the amount behind the share where it is known."""

    share: float
    text: str
    amount: Amount | None = None


class Scored(NamedTuple):
    """The scores of a task are staged."""

    task: str


class Done(NamedTuple):
    """The job is finished; the worker's last report.

    Attributes:
        difference: of a reload, the largest absolute difference of a logit; `None` of a node. by_parts: whether it was loaded by parts.
        seconds: wall time of the job. peak_memory: of the worker, in bytes. device: by torch's name.
    """

    difference: float | None
    seconds: float
    peak_memory: int
    device: str
    by_parts: bool = False


class Failed(NamedTuple):
    """The job has failed, for one clear cause; the worker's last report, or what is known of a worker that died without one.

    Attributes:
        kind: what decides whether it is worth another try: memory ran out, the process or its host was lost, or neither.
    """

    cause: str
    kind: Literal["", "memory", "lost"] = ""


Report = Progressed | Scored | Done | Failed
Job = NodeJob | ReloadJob
