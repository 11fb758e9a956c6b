"""One of the processes that make a node together, from its first moment to its last report."""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from compresslab.errors import CompresslabError, out_of_memory
from compresslab.runner.messages import Done, Failed, Progressed, Scored

Send = Callable[[Progressed | Scored], None]
# What the processes of a group do: each gets its number and a function that sends reports.
Work = Callable[[int, Send], None]
# Seconds that a process waits for the others in a collective.
PATIENCE = 600
# What libraries say when another process of the group does not answer.
LOST_TOUCH = ("gloo", "connection closed by peer", "connection reset by peer", "broken pipe", "nccl", "timed out", "timeout")


class Group(NamedTuple):
    """What all processes of a node have in common.

    Attributes:
        size: how many there are. store: the file by which they find one another. log: takes what libraries print.
        device: torch's name of the device of the first process: "cpu", "cuda:0". threads: of the processor, each.
    """

    size: int
    store: Path
    log: Path
    device: str
    threads: int


class LostTouch(NamedTuple):
    """A process could not go on because another one did not answer; its last report."""

    why: str


def take_part(rank: int, group: Group, work: Work, pipe: Connection) -> None:
    """Entry point of a process. Every outcome, an exception too, is sent through the pipe."""
    from compresslab.runner.endings import explained
    from compresslab.runner.provenance import peak_memory

    try:
        _join(rank, group)
        _do(rank, work, pipe)
        pipe.send(Done(None, 0.0, peak_memory(), group.device))
    except CompresslabError as error:
        pipe.send(Failed(str(error)))
    except KeyboardInterrupt as interruption:
        pipe.send(Failed(f"it was interrupted ({interruption}). Run again to go on from here", "lost"))
    except BaseException as error:  # as in `worker.work`
        with contextlib.suppress(OSError):
            traceback.print_exc()
            sys.stderr.flush()
        if _lost_touch(error):
            pipe.send(LostTouch(" ".join(str(error).split())[:200]))
        else:
            why = f"process {rank} of {group.size}: {explained(error, group.log, group.device)}"
            pipe.send(Failed(why, "memory" if out_of_memory(error) else ""))
    finally:
        pipe.close()
        # A group that is taken apart waits for processes that may be gone.
        os._exit(0)


def _do(rank: int, work: Work, pipe: Connection) -> None:
    from compresslab.steps.training.parallel import NotFirst

    with contextlib.suppress(NotFirst):
        work(rank, pipe.send)


def _join(rank: int, group: Group) -> None:
    """Join the process group: gloo on processors, the vendor's collectives on accelerators, gloo there too for numbers on the processor."""
    import torch
    from torch import distributed

    torch.set_num_threads(group.threads)
    # They are on one host. Its own name may not be known to it.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    kind = group.device.partition(":")[0]
    backend = "gloo"
    if kind != "cpu":
        torch.accelerator.set_device_index(rank)
        backend = f"cpu:gloo,{kind}:{distributed.get_default_backend_for_device(kind)}"
    distributed.init_process_group(
        backend,
        store=distributed.FileStore(str(group.store), group.size),  # type: ignore[attr-defined]
        rank=rank,
        world_size=group.size,
        timeout=datetime.timedelta(seconds=PATIENCE),
    )


def _lost_touch(error: BaseException) -> bool:
    """Whether the cause of an error is that another process of the group does not answer."""
    from torch.distributed import DistError

    if isinstance(error, DistError):
        return True
    # Other libraries speak of timeouts, too. A collective is called by torch itself, or raises from its own code without a frame.
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    of_torch = bool(frames) and "torch" in Path(frames[-1]).parts
    return isinstance(error, RuntimeError) and of_torch and any(words in str(error).lower() for words in LOST_TOUCH)
