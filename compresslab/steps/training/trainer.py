"""The training loop of distillation and retraining."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from compresslab.algorithms.schedule import warmup_cosine, warmup_stable_decay
from compresslab.errors import BadInput, RunFailed
from compresslab.methods.settings import Optimizer
from compresslab.models.anatomy import backbone, output_head
from compresslab.models.chunks import chunks
from compresslab.models.device import random_states, set_random_states
from compresslab.models.documents.boundaries import ModelInput, refuse_crossing
from compresslab.models.progress import Amount, Progress
from compresslab.models.ranks import this_rank
from compresslab.models.text import TokenSequences
from compresslab.steps.training.activations import recomputing
from compresslab.steps.training.checkpoints import TrainingState, fingerprint
from compresslab.steps.training.decay import decay_groups
from compresslab.steps.training.held_out import Goal
from compresslab.steps.training.master_weights import MasterWeights
from compresslab.steps.training.optimizer import adamw, restored, saved
from compresslab.steps.training.parallel import NotFirst, Whole, refuse_random
from compresslab.steps.training.sharded_weights import ShardedWeights
from compresslab.steps.training.shared_checkpoints import SharedCheckpoints

LOSSES_KEPT = 200

# (logits (positions, vocabulary), the slice of the positions) -> summed loss in nats
ChunkLoss = Callable[[Tensor, slice], Tensor]
# Hidden states (n, length, hidden) before the first layer and after each -> loss per token
HiddenLoss = Callable[[tuple[Tensor, ...]], Tensor]


class MicroBatch(NamedTuple):
    """A micro-batch: sequences (n, length), the number (n,) of each among the different ones, and the step."""

    text: ModelInput
    numbers: Tensor
    step: int


class Objective(NamedTuple):
    """The loss of a micro-batch.

    Attributes:
        text: what the model reads, (n, length). chunk_loss: the loss of a chunk of logits.
        first, last: the slice of each sequence's positions whose logits count, but for those that end a document that is kept apart.
        hidden_loss: the loss of hidden states, if there is one.
    """

    text: ModelInput
    chunk_loss: ChunkLoss
    first: int = 0
    last: int | None = None
    hidden_loss: HiddenLoss | None = None

    def counted(self, values: Tensor, text: ModelInput) -> Tensor:
        """The values (positions, ...) at positions whose logits count, of those at all positions (n, length, ...) of a text."""
        return text.counted(values, self.first, self.last)


LossFn = Callable[[MicroBatch], Objective]


class TrainSettings(NamedTuple):
    """Settings of a training run.

    Attributes:
        companions: modules that are trained with the model and discarded (projectors).
        checkpoints: folder for the run's state. config: the step's settings, which identify the run's checkpoints.
        goal: loss on held-out text at which the run stops. compute: dtype of the forward and backward passes.
        activation_checkpointing: whether activations are computed again in the backward pass, and not kept.
    """

    optimizer: Optimizer
    seed: int
    progress: Progress
    companions: tuple[nn.Module, ...] = ()
    checkpoints: Path | None = None
    config: str = ""
    goal: Goal | None = None
    compute: torch.dtype = torch.float32
    activation_checkpointing: bool = False


class TrainResult(NamedTuple):
    """Tokens and optimizer steps of a training run, the mean loss in nats per token of at most 200 steps, and held-out losses."""

    tokens: int
    steps: int
    losses: list[float]
    checks: list[tuple[int, float]]


def train(model: PreTrainedModel, text: TokenSequences, settings: TrainSettings, loss_fn: LossFn) -> TrainResult:
    """Train the parameters that require gradients: float32 masters, forward and backward passes in the compute dtype.

    Each sequence of `text` is used once, in order. Logits are computed in chunks, so that a vocabulary of 256k tokens takes no more memory
    than one of 32k.

    In a process group, all processes train the one model, in shards. A batch is the same sequences with any number of processes, and its
    loss the mean over all of its tokens, so results differ in rounding only. All call this with the same model and the same text.

    Args:
        model: changed in place; the trained parameters are float32 afterwards.

    Raises:
        BadInput: there is less text than one batch, several processes are to train a model that draws random numbers (dropout), or the
            model does not keep documents apart that the text does.
        RunFailed: the loss is NaN or infinite. NotFirst: this is not the first process of its group, which alone has the trained model.
    """
    training = _Training(model, text, settings, loss_fn)
    with recomputing(model) if settings.activation_checkpointing else contextlib.nullcontext():
        training.run_and_release()
    model.eval()
    steps, losses = training.step, training.losses
    return TrainResult(steps * training.per_batch * text.ids.shape[1], steps, downsampled(losses), training.checks)


class _Training:
    """A training run. `_state` returns everything that changes from step to step."""

    def __init__(self, model: PreTrainedModel, text: TokenSequences, settings: TrainSettings, loss_fn: LossFn) -> None:
        optimizer, length = settings.optimizer, text.ids.shape[1]
        self.model, self.text, self.settings, self.loss_fn = model, text, settings, loss_fn
        self.ranks, self.input = this_rank(), text.input
        if self.input.positions is not None:
            refuse_crossing(model)
        self.per_batch, self.per_micro = max(1, optimizer.batch_tokens // length), max(1, optimizer.micro_batch_tokens // length)
        if self.ranks.size > 1:
            refuse_random(model)
            self.per_micro = min(self.per_micro, -(-self.per_batch // self.ranks.size))  # so that each process has a part of the batch
        self.steps = text.ids.shape[0] // self.per_batch
        if self.steps == 0:
            raise BadInput(
                f"{text.ids.numel()} training tokens are less than one batch of {optimizer.batch_tokens}; "
                "raise tokens or lower optimizer.batch_tokens"
            )
        torch.manual_seed(settings.seed)
        identity = {
            "config": settings.config,
            "steps": self.steps,
            "text": fingerprint([text.ids, *([] if self.input.positions is None else [self.input.positions])]),
            "weights": fingerprint([*model.parameters()]),
        }
        trained, several = [model, *settings.companions], self.ranks.size > 1
        self.checkpoints = SharedCheckpoints(settings.checkpoints, identity, self.ranks)
        self.master_weights = ShardedWeights(trained, settings.compute) if several else MasterWeights(trained, settings.compute)
        self.passes = self.master_weights.passes if isinstance(self.master_weights, ShardedWeights) else Whole()
        self.head = self.passes.look(lambda: output_head(model))
        groups = decay_groups(trained, self.master_weights.parameters, self.master_weights.weights, optimizer.weight_decay)
        self.adam = adamw(groups, optimizer)
        self.step = 0
        self.losses: list[float] = []
        self.checks: list[tuple[int, float]] = []
        self.random = random_states(model.device)
        self._came: list[tuple[int, FrameType | None]] = []

    def run(self) -> None:
        """Train until the last step or the goal, from the checkpoint if there is one."""
        state = self.checkpoints.load(lambda why: self.settings.progress(0.0, why))
        if state is not None:
            self._resume(state)
        self.model.train()
        if self.ranks.size == 1:
            self._steps()
            return
        # An interruption meets several processes at different places; they stop together where `_stop_if_asked` is called.
        with _uninterrupted() as self._came:
            self._steps()
            if self.ranks.any(bool(self._came)):
                # All is trained. The process that watches these may end them before the model is saved.
                self.checkpoints.save(self._state())
            self._came.clear()

    def _steps(self) -> None:
        """Take the steps that are left. An interruption leaves a checkpoint."""
        try:
            while not self._reached() and self.step < self.steps:
                self._one_step()
        except KeyboardInterrupt:
            if self.step:
                self.checkpoints.save(self._state())
            raise

    def run_and_release(self) -> None:
        """Train, then make the model plain again.

        Raises:
            NotFirst: this is not the first process of its group. After another error of several processes their shards stay.
        """
        if isinstance(self.master_weights, ShardedWeights):
            self.run()
            self.master_weights.release(first=self.ranks.rank == 0)
            if self.ranks.rank:
                raise NotFirst
            return
        try:
            self.run()
        finally:
            self.master_weights.release()
            self.model.eval()

    def _stop_if_asked(self) -> None:
        """Interrupt all processes if a signal has come to one of them."""
        if self.ranks.size > 1 and self.ranks.any(bool(self._came)):
            raise KeyboardInterrupt(signal.Signals(self._came[0][0]).name if self._came else "by a signal to another of its processes")

    def _reached(self) -> bool:
        """Whether the loss on held-out text reaches the goal. It is measured every `goal.interval` steps and at the end."""
        goal = self.settings.goal
        if goal is None or (self.step % goal.interval(self.steps) and self.step < self.steps):
            return False
        if not self.checks or self.checks[-1][0] != self.step:
            self._report("looking at held-out text")
            self.checks.append((self.step, self.passes.look(lambda: goal.loss_of(self.model, self.ranks))))
        return self.checks[-1][1] <= goal.loss

    def _one_step(self) -> None:
        optimizer = self.settings.optimizer
        for group in self.adam.param_groups:
            group["lr"] = optimizer.learning_rate * learning_rate_factor(optimizer, self.step, self.steps)
        total = 0.0
        first = self.step * self.per_batch
        batch = self.input.rows(slice(first, first + self.per_batch))
        for number, counted in self.ranks.turns(-(-self.per_batch // self.per_micro)):
            self._stop_if_asked()
            start = first + number * self.per_micro
            rows = slice(start, min(start + self.per_micro, first + self.per_batch))
            micro = MicroBatch(self.input.rows(rows).to(self.model.device), self.text.numbers[rows], self.step)
            total += self._backward(micro, batch, counted)
            if rows.stop < first + self.per_batch:  # a batch with many micro-batches may take minutes
                self._report(f"step {self.step + 1} of {self.steps}", (rows.stop - first) / self.per_batch)
        total = self.ranks.sum(total)
        if not math.isfinite(total):
            raise RunFailed(f"the training loss is {total} at step {self.step + 1} of {self.steps}; lower optimizer.learning_rate")
        nn.utils.clip_grad_norm_(self.master_weights.weights, optimizer.max_grad_norm)
        with _uninterrupted():
            self.adam.step()
            self.master_weights.after_step()
            self.losses.append(total)
            self.random = random_states(self.model.device)
            self.step += 1
        if self.ranks.any(self.checkpoints.due()):
            self.checkpoints.save(self._state())
        self._report(f"loss {total:.3f}")

    def _report(self, what: str, part: float = 0.0) -> None:
        """Report the steps done, and a part of the next one."""
        share, tokens = (self.step + part) / self.steps, self.per_batch * self.text.ids.shape[1]
        self.settings.progress(share, what, Amount((self.step + part) * tokens, self.steps * tokens, "tokens"))

    def _backward(self, micro: MicroBatch, batch: ModelInput, counted: bool) -> float:
        """Forward and backward of one micro-batch; returns its share of the batch's mean loss, which is 0 if it is not `counted`.

        Documents that are kept apart end in some sequences more often than in others, so the positions that count are those of the batch.
        """
        objective = self.loss_fn(micro)
        keep_states = objective.hidden_loss is not None
        output = self.passes(lambda: backbone(self.model)(**objective.text.arguments, output_hidden_states=keep_states))
        hidden = objective.counted(output.last_hidden_state, objective.text)
        tokens = len(objective.counted(batch.ids, batch)) if counted else math.inf
        # The gradient of the head is accumulated chunk by chunk, then the backbone's backward pass runs once.
        leaf = hidden.detach().requires_grad_()
        total = 0.0
        for part in chunks(leaf.shape[0], self.model):
            loss = objective.chunk_loss(self.head(leaf[part]), part) / tokens
            torch.autograd.backward(loss)
            total += loss.item()
        outputs, gradients = [hidden], [leaf.grad]
        if objective.hidden_loss is not None:
            matching = objective.hidden_loss(output.hidden_states) * (len(micro.numbers) / self.per_batch if counted else 0.0)
            outputs, gradients = [hidden, matching], [leaf.grad, None]
            total += matching.item()
        torch.autograd.backward(outputs, gradients)
        return total

    def _state(self) -> TrainingState:
        tensors = {f"master.{number}": weight.detach() for number, weight in enumerate(self.master_weights.weights)}
        for number, weight in enumerate(self.master_weights.weights):
            tensors |= {f"adam.{number}.{name}": value for name, value in saved(self.adam, weight).items()}
        return TrainingState(self.step, self.losses, self.checks, tensors | self.random)

    def _resume(self, state: TrainingState) -> None:
        moments: dict[int, dict[str, Any]] = {}
        # AdamW numbers the weights group by group.
        places = {id(weight): place for place, weight in enumerate(one for group in self.adam.param_groups for one in group["params"])}
        with torch.no_grad():
            for number, weight in enumerate(self.master_weights.weights):
                weight.copy_(state.tensors[f"master.{number}"])
                start = f"adam.{number}."
                own = {name.removeprefix(start): value for name, value in state.tensors.items() if name.startswith(start)}
                moments[places[id(weight)]] = restored(self.adam, own)
        self.adam.load_state_dict({"state": moments, "param_groups": self.adam.state_dict()["param_groups"]})
        self.master_weights.refresh()
        self.step, self.losses, self.checks = state.step, state.losses, state.checks
        self.random = {name: value for name, value in state.tensors.items() if name.startswith("random.")}
        set_random_states(self.random, self.model.device)
        self._report(f"going on from step {self.step} of {self.steps}")


@contextlib.contextmanager
def _uninterrupted() -> Iterator[list[tuple[int, FrameType | None]]]:
    """Hold back the signals that interrupt a process until the end of the block, so that an interruption never meets half an update.

    The block gets the list of those that have come. Python runs handlers in the main thread only; a training in another thread is not
    interrupted anyway.
    """
    names = ("SIGINT", "SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ()
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: handler for number in numbers if callable(handler := signal.getsignal(number))}
    came: list[tuple[int, FrameType | None]] = []
    for number in before:
        signal.signal(number, lambda signum, frame: came.append((signum, frame)))
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        before[came[0][0]](*came[0])


def learning_rate_factor(optimizer: Optimizer, step: int, steps: int) -> float:
    """The share of the peak learning rate at a step, by the schedule."""
    if optimizer.schedule == "cosine":
        return warmup_cosine(step, steps, optimizer.warmup)
    return warmup_stable_decay(step, steps, optimizer.warmup, optimizer.decay)


def downsampled(losses: list[float]) -> list[float]:
    """At most `LOSSES_KEPT` evenly spaced values including the last one, rounded to six digits."""
    stride = max(1, -(-len(losses) // LOSSES_KEPT))
    return [round(value, 6) for value in losses[::-1][::stride][::-1]]
