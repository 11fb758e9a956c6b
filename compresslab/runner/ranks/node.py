"""A node that several processes make together: the first one writes the result."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from compresslab.errors import BadInput
from compresslab.records import StepRecord, read_record
from compresslab.runner.messages import Done, Failed, NodeJob, Progressed, Scored
from compresslab.runner.ranks.group import RankFailed, together
from compresslab.store.store import write_record

Send = Callable[[Progressed | Scored], None]


def make_together(job: NodeJob, send: Send) -> Done | Failed:
    """Make a node by as many processes as it has devices.

    Raises:
        BadInput: there are fewer devices than it needs. KeyboardInterrupt: after all had the time to save how far they were.
    """
    devices, device = job.node.devices, job.compute.device
    if device != "cpu":
        _check_devices(job)
    try:
        peak = together(devices, partial(_make, job), send, device=device, threads=job.threads, log=job.log)
    except RankFailed as error:
        return error.failed
    return Done(None, 0.0, peak, device)


def _make(job: NodeJob, rank: int, send: Send) -> None:
    """The part of one process. A model to train may be larger than a device: the processor loads it, and its shards go to the device."""
    from compresslab.runner.nodes import perform

    compute, kind = job.compute, job.compute.device.partition(":")[0]
    if job.node.kind != "model":
        device = kind if kind == "cpu" else f"{kind}:{rank}"
        perform(job._replace(compute=compute._replace(device=device)), send)
        return
    perform(job._replace(compute=compute._replace(device="cpu")), send)
    if compute.device != "cpu" and rank == 0:
        record = read_record(job.staged / "record.json", StepRecord, "run again")
        made = record.compute | {"backend": compute.backend} if record.compute else record.compute
        write_record(job.staged, record.model_copy(update={"compute": made}))


def _check_devices(job: NodeJob) -> None:
    """Refuse a node of more devices than this process sees, or on one that is not the first.

    Raises:
        BadInput: the message has both numbers.
    """
    import torch

    seen, needed = torch.accelerator.device_count(), job.node.devices
    kind, _, number = job.compute.device.partition(":")
    if kind == "mps" or seen < needed or number not in ("", "0"):
        found = f"{seen} of them" if number in ("", "0") else f"{job.compute.device} alone"
        raise BadInput(f"{job.node.label}: devices: {needed}, and there is {found} for it; lower devices, or run it where there are more")
