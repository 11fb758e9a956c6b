"""The processes that do one node's work together, one a device: how many there are, and what they tell one another."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")
# How long a process waits for what the others tell one another, if a part of their work may take any time. The process that started
# them sees when one of them is gone, and ends the others.
PATIENCE = datetime.timedelta(days=30)


class Ranks(NamedTuple):
    """The processes that do something together: the number of this one, from 0, and how many there are."""

    rank: int = 0
    size: int = 1

    def turns(self, count: int) -> Iterator[tuple[int, bool]]:
        """The numbers below `count` of the units that are this process's turn, and whether each counts.

        The processes take the units one after the other. All take equally many, since a process that computes nothing would let the others
        wait in a collective. Where there are too few units left, a process takes the last one again, and it does not count.
        """
        for first in range(0, count, self.size):
            number = first + self.rank
            yield min(number, count - 1), number < count

    def part(self, units: Sequence[T]) -> Sequence[T]:
        """This process's part of consecutive units. The parts differ in length by one at most."""
        return units[len(units) * self.rank // self.size : len(units) * (self.rank + 1) // self.size]

    def sum(self, value: float) -> float:
        """The sum of a number of each process."""
        return self._reduced(value, distributed.ReduceOp.SUM) if self.size > 1 else value

    def any(self, here: bool) -> bool:
        """Whether something is so in any process."""
        return self._reduced(float(here), distributed.ReduceOp.MAX) > 0 if self.size > 1 else here

    def gathered(self, value: T) -> list[T]:
        """What each process has, by number. They wait for one another as long as it takes."""
        if self.size == 1:
            return [value]
        values: list[T] = [value] * self.size
        distributed.all_gather_object(values, value, group=_patient_group())
        return values

    def add_to_first(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by name, to which the first process has added those of the others, one process after the other; `values` elsewhere.

        The order is fixed, so that the same number of processes has the same sums. A name may be missing in some of the processes. Only one
        tensor of another process is held beside `values`.
        """
        if self.size == 1:
            return values
        known = self.gathered({name: (value.shape, value.dtype) for name, value in values.items()})
        for rank, theirs in enumerate(known[1:], 1):
            for name in sorted(theirs):
                if self.rank == rank:
                    distributed.send(values[name].cpu().contiguous(), 0, group=_patient_group())
                elif self.rank == 0:
                    shape, dtype = theirs[name]
                    received = torch.empty(shape, dtype=dtype)
                    distributed.recv(received, rank, group=_patient_group())
                    values[name] = values[name].add_(received.to(values[name].device)) if name in values else received
        return values

    def shared(self, value: T) -> T:
        """What the first process has. The others wait for it as long as it takes."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0, group=_patient_group())
        return values[0]

    def _reduced(self, value: float, operation: distributed.ReduceOp.RedOpType) -> float:
        held = torch.tensor([value], dtype=torch.float64)
        distributed.all_reduce(held, operation)
        return float(held.item())


ALONE = Ranks()


def this_rank() -> Ranks:
    """This process among those of its process group; the only one without a group."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return ALONE
    return Ranks(distributed.get_rank(), distributed.get_world_size())


@functools.cache
def _patient_group() -> distributed.ProcessGroup:
    group: distributed.ProcessGroup = distributed.new_group(timeout=PATIENCE, backend="gloo")
    return group
