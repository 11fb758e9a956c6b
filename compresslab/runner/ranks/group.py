"""Starts the processes that make a node together, hears them, and ends all of them when one ends without having done its part."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from compresslab.runner import endings
from compresslab.runner.messages import Done, Failed, Progressed, Scored
from compresslab.runner.ranks.member import PATIENCE, Group, LostTouch, Work, take_part
from compresslab.runner.server import TO_SAVE

Hear = Callable[[Progressed | Scored], None]
# Seconds in which the others tell their causes when the first one has failed.
TO_TELL = 5.0
# Seconds less than `TO_SAVE` that they have to save, since this process is then to end itself.
TO_KILL = 2.0


class RankFailed(Exception):
    """A process of the group failed; `failed` names it and its cause."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.cause)
        self.failed = failed


class _Member(NamedTuple):
    process: BaseProcess
    pipe: Connection


def together(size: int, work: Work, hear: Hear, *, device: str, threads: int, log: Path) -> int:
    """Let `size` processes do `work` together, and wait for all of them.

    Args:
        work: gets the number of its process. hear: gets the reports of the first process.
        device: torch's name of the first one's device; the others have those after it. threads: of the processor, for all together.
        log: where libraries print.

    Returns: the sum of the peaks of their memory, in bytes.

    Raises:
        RankFailed: one of them failed; all are gone then.
        KeyboardInterrupt: after all had the time to save how far they were.
    """
    known = endings.before(log)
    with tempfile.TemporaryDirectory() as folder:
        group = Group(size, Path(folder, "store"), log, device, max(1, threads // size))
        members = dict(enumerate(_start(group, work)))
        try:
            ended = _until_ended(members, hear)
        except KeyboardInterrupt:
            _interrupt(members)
            raise
        finally:
            for member in members.values():
                member.process.kill()
                member.process.join()
                member.pipe.close()
    if failed := _cause(ended, members, known):
        raise RankFailed(failed)
    return sum(report.peak_memory for report in ended.values() if isinstance(report, Done))


def _start(group: Group, work: Work) -> Iterator[_Member]:
    # A fork is quick, and safe as long as this process computes nothing. A driver of accelerators does not survive it.
    context = multiprocessing.get_context("fork" if group.device == "cpu" else "spawn")
    for rank in range(group.size):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=take_part, args=(rank, group, work, theirs), daemon=False)  # type: ignore[attr-defined]
        process.start()
        theirs.close()
        yield _Member(process, ours)


Report = Done | Failed | LostTouch | None


def _until_ended(members: dict[int, _Member], hear: Hear) -> dict[int, Report]:
    """The last reports of the processes, `None` of one that ended without. Those that have not ended `TO_TELL` seconds after the first
    failure are missing.
    """
    ended: dict[int, Report] = {}
    deadline = float("inf")
    while len(ended) < len(members) and (left := deadline - time.monotonic()) > 0:
        pipes = {member.pipe: rank for rank, member in members.items() if rank not in ended}
        for pipe in wait(list(pipes), None if left == float("inf") else left):
            assert isinstance(pipe, Connection)
            rank = pipes[pipe]
            try:
                report: Progressed | Scored | Report = pipe.recv()
            except (EOFError, OSError):
                report = None
            if isinstance(report, Progressed | Scored):
                if rank == 0:
                    hear(report)
                continue
            ended[rank] = report
            if not isinstance(report, Done):
                deadline = min(deadline, time.monotonic() + TO_TELL)
    return ended


def _interrupt(members: dict[int, _Member]) -> None:
    """Interrupt the processes and give them the time to save."""
    for member in members.values():
        with contextlib.suppress(ProcessLookupError, TypeError):
            os.kill(member.process.pid, signal.SIGINT)  # type: ignore[arg-type]
    deadline = time.monotonic() + TO_SAVE - TO_KILL
    for member in members.values():
        member.process.join(max(0.0, deadline - time.monotonic()))


def _cause(ended: dict[int, Report], members: dict[int, _Member], known: endings.Before) -> Failed | None:
    """What failed first: a process that died, then one that tells its cause, then one that does not answer."""
    who = f"process {{}} of {len(members)}"
    for rank, report in ended.items():
        code = members[rank].process.exitcode
        if report is None and code is not None:
            return Failed(endings.why_it_ended(code, known, f"{who.format(rank)}, of the node,"), endings.kind_of_end(code, known))
    if failed := next((report for report in ended.values() if isinstance(report, Failed)), None):
        return failed
    if lost := {rank: report.why for rank, report in ended.items() if isinstance(report, LostTouch)}:
        rank, why = next(iter(lost.items()))
        if silent := [str(rank) for rank in members if rank not in ended]:
            return Failed(f"{who.format(', '.join(silent))} gave the others no answer within {PATIENCE} s. {endings.AGAIN}", "lost")
        return Failed(f"{who.format(rank)} could not reach the others ({why}). {endings.AGAIN}", "lost")
    return None
