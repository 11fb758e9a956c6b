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

from compresslab.errors import CompresslabError, out_of_memory
from compresslab.runner.endings import explained
from compresslab.runner.messages import Done, Failed, Job, NodeJob, ReloadJob
from compresslab.runner.provenance import peak_memory

# Variables by which libraries round float32 products to fewer bits: a record that says float32 would not be true.
LOWERS_PRECISION = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "NVIDIA_TF32_OVERRIDE")


def work(job: Job, pipe: Connection) -> None:
    """Entry point of a worker process. Every outcome, an exception too, is sent through the pipe."""
    started = time.perf_counter()
    try:
        _settle(job.log, job.share.threads)
        done = _execute(job, pipe)
        pipe.send(done if isinstance(done, Failed) else done._replace(seconds=time.perf_counter() - started))
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


def _execute(job: Job, pipe: Connection) -> Done | Failed:
    """The job itself; its seconds are filled in later."""
    if isinstance(job, NodeJob) and job.node.devices > 1:
        from compresslab.runner.ranks.node import make_together

        return make_together(job, pipe.send)
    # Here, because the run itself imports this module and must not wait for torch.
    from compresslab.runner.nodes import perform, reload

    difference, by_parts = None, False
    if isinstance(job, ReloadJob):
        difference, by_parts = reload(job)
    else:
        perform(job, pipe.send)
    return Done(difference, 0.0, peak_memory(), job.compute.device, by_parts)


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
