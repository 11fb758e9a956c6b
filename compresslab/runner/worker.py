"""A worker process from its first moment to its last report: settings, the job, and what went wrong in one sentence."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import time
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

from compresslab.errors import CompresslabError, disk_trouble, out_of_memory
from compresslab.runner.messages import Done, Failed, Job, ReloadJob
from compresslab.runner.provenance import peak_memory

# Variables by which libraries round float32 products to fewer bits: a record that says float32 would not be true.
LOWERS_PRECISION = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "NVIDIA_TF32_OVERRIDE")


def work(job: Job, pipe: Connection) -> None:
    """Entry point of a worker process. Every outcome, an exception too, is sent through the pipe."""
    started = time.perf_counter()
    try:
        _settle(job.log, job.share.threads)
        checked = _execute(job, pipe)
        difference, by_parts = checked if checked is not None else (None, False)
        pipe.send(Done(difference, time.perf_counter() - started, peak_memory(), job.compute.device, by_parts))
    except CompresslabError as error:
        pipe.send(Failed(str(error)))
    except KeyboardInterrupt as interruption:
        pipe.send(Failed(f"it was interrupted ({interruption}). Run again to go on from here"))
    except BaseException as error:  # whatever a library raised, a panic too: the parent must hear of it and go on with the rest
        with contextlib.suppress(OSError):  # the log's disk may be full
            traceback.print_exc()
            sys.stderr.flush()
        pipe.send(Failed(explained(error, job.log, job.compute.device), "memory" if out_of_memory(error) else ""))
    finally:
        pipe.close()


def _execute(job: Job, pipe: Connection) -> tuple[float, bool] | None:
    """The job itself; gives what a reload found: the difference of logits, and whether the folder was loaded by parts."""
    # Here, because the run itself imports this module and must not wait for torch.
    from compresslab.runner.nodes import NODES, reload

    if isinstance(job, ReloadJob):
        return reload(job)
    NODES[job.node.kind](job, pipe.send)
    return None


def explained(error: BaseException, log: Path, device: str = "cpu") -> str:
    """One clear sentence for an exception of somebody else's code while something was computed on `device`."""
    text = " ".join(str(error).split())
    if full := disk_trouble(error, log.parent.parent):
        return full
    if isinstance(error, SystemExit):
        return f"a library ended its process (SystemExit: {text[:200]}; the traceback is in {log})"
    # The class has no importable home: every library that is written in Rust makes its own.
    if type(error).__name__ == "PanicException":
        return f"a native library panicked: {text[:400]} (the traceback is in {log}); it cannot work with what it was given"
    if out_of_memory(error):
        where = "" if device == "cpu" else f" on {device}"
        else_cpu = "" if device == "cpu" else ", and --device cpu has the machine's own memory"
        return (
            f"not enough memory{where}: {text[:200]}. A smaller batch, fewer tokens a micro-batch or a smaller model needs less{else_cpu}"
        )
    # What torch raises for an operation without a kernel there, and MPS for float64.
    if device != "cpu" and (isinstance(error, NotImplementedError) or (isinstance(error, TypeError) and "MPS" in text)):
        return f"{device} has no kernel for an operation of this node: {text[:200]}. Run it with --device cpu"
    if device != "cpu" and type(error).__name__ == "AcceleratorError":
        return (
            f"{device} failed while it computed: {text[:200]}. Look at its driver (`compresslab doctor`), then run again to go on from here"
        )
    return f"{type(error).__name__}: {text[:400]} (the traceback is in {log})"


def _settle(log: Path, threads: int) -> None:
    """Send what the libraries print to the log, and use all processors."""
    log.parent.mkdir(parents=True, exist_ok=True)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(target, stream)
    os.close(target)
    faulthandler.enable()  # a crash of a native library leaves a trace in the log
    for name in LOWERS_PRECISION:
        os.environ.pop(name, None)
    warnings.simplefilter("default")
    import torch

    torch.set_num_threads(threads)
