"""The trackers by name, and sending a study to one."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import NamedTuple, cast

from compresslab.errors import BadInput
from compresslab.records import StudyRecord
from compresslab.studies.page_folder import folder_of_record
from compresslab.tracking.tracked import Tracker, tracked
from compresslab.versions import version


class Kind(NamedTuple):
    """A tracker: its module here, and the packages of which one must be installed."""

    module: str
    packages: tuple[str, ...]


TRACKERS = {
    "mlflow": Kind("compresslab.tracking.mlflow_runs", ("mlflow", "mlflow-skinny")),
    "tensorboard": Kind("compresslab.tracking.tensorboard_files", ("tensorboard",)),
    "trackio": Kind("compresslab.tracking.trackio_runs", ("trackio",)),
    "wandb": Kind("compresslab.tracking.wandb_runs", ("wandb",)),
}


def check_tracker(name: str) -> None:
    """Refuse a tracker whose package is not installed, before anything runs. Raises BadInput."""
    if all(version(package) == "absent" for package in TRACKERS[name].packages):
        raise BadInput(f"--track {name} needs {name}, which is not installed: pip install 'compresslab[{name}]', or leave --track out")


def send(study: StudyRecord, name: str, store: Path, reports: Path) -> str:
    """Send a study to a tracker, under the name of its page's folder. A tracker that fails costs the study nothing.

    Args:
        name: of the tracker, which is installed.
        store, reports: their folders. TensorBoard's files are written beside the study's page.

    Returns:
        What went wrong, in one sentence; empty if nothing did.
    """
    page = folder_of_record(study, reports)
    try:
        tracker = cast(Tracker, importlib.import_module(TRACKERS[name].module).Runs(page))
        for variant in tracked(study, store, page):
            tracker.log(variant)
    except (Exception, SystemExit) as error:  # a tracker's library raises many types of errors; some end the process
        said = " ".join(str(error).split())[:200] or type(error).__name__
        return f"{name} has not all of {study.study} ({said}); the study and its page are whole, and running it again sends it again"
    return ""
