"""MLflow: an experiment a study, a run a variant, at `MLFLOW_TRACKING_URI` or where MLflow keeps runs by default."""

from __future__ import annotations

import re
from pathlib import Path

import mlflow
from mlflow.entities import Metric, Param, RunTag

from compresslab.tracking.tracked import TrackedVariant

# MLflow takes at most this many letters of a parameter's value, and this many metrics and parameters a call.
LONGEST_VALUE, METRICS_A_CALL, PARAMS_A_CALL = 6000, 1000, 100


class Runs:
    """Writes through MLflow's client, which has no global state but the address of the server."""

    def __init__(self, page: Path) -> None:
        del page
        self._client = mlflow.MlflowClient()

    def log(self, variant: TrackedVariant) -> None:
        found = self._client.get_experiment_by_name(variant.study)
        experiment = self._client.create_experiment(variant.study) if found is None else found.experiment_id
        run = self._client.create_run(experiment, run_name=variant.name)
        started = run.info.start_time
        params = [Param(_name(name), str(value)[:LONGEST_VALUE]) for name, value in variant.params.items()]
        metrics = [Metric(_name(name), value, started, 0) for name, value in variant.metrics.items()]
        metrics += [Metric(_name(name), value, started, step) for name, curve in variant.curves.items() for step, value in curve]
        tags = [RunTag(f"compresslab.{name}", place) for name, place in variant.references.items()]
        for start in range(0, len(params), PARAMS_A_CALL):
            self._client.log_batch(run.info.run_id, params=params[start : start + PARAMS_A_CALL])
        for start in range(0, len(metrics), METRICS_A_CALL):
            self._client.log_batch(run.info.run_id, metrics=metrics[start : start + METRICS_A_CALL])
        self._client.log_batch(run.info.run_id, tags=tags)
        self._client.set_terminated(run.info.run_id)


def _name(name: str) -> str:
    """A name of the letters that MLflow allows."""
    return re.sub(r"[^\w\-. /]", "_", name)
