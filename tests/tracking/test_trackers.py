"""Studies in real trackers on this machine: what is written is read back by the tracker's own reader."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from report.studies import quickstart

from compresslab.errors import BadInput
from compresslab.recipe.changes import Changes
from compresslab.records import StudyRecord
from compresslab.tracking import choose
from compresslab.tracking.choose import check_tracker, send
from compresslab.tracking.tracked import TrackedVariant, tracked

# What the libraries of trackers warn of is about their own insides.
pytestmark = pytest.mark.filterwarnings("default")
LOSSES = [3.0, 2.0, 1.5]


def study() -> StudyRecord:
    """A study with a variant that was trained for 300 steps, of which three losses are kept."""
    made = quickstart()
    variant = made.variants[1]
    last = variant.steps[-1].model_copy(update={"details": {"loss": LOSSES, "steps": 300}, "config": {"bits": 4, "optimizer": {"lr": 0.1}}})
    variant = variant.model_copy(update={"steps": [*variant.steps[:-1], last], "keys": {"model": "ab"}})
    return made.model_copy(update={"study": "tiny", "variants": [made.variants[0], variant]})


@pytest.fixture
def variant(tmp_path: Path) -> TrackedVariant:
    return tracked(study(), tmp_path / "store", tmp_path / "reports" / "tiny")[1]


def test_a_variant_is_params_metrics_curves_and_places(variant: TrackedVariant, tmp_path: Path) -> None:
    record = study().variants[1]
    prefix = f"step1/{record.steps[1].kind}"
    assert variant.params[f"{prefix}/bits"] == 4
    assert variant.params[f"{prefix}/optimizer/lr"] == 0.1
    assert variant.curves == {f"{prefix}/loss": [(100, 3.0), (200, 2.0), (300, 1.5)]}
    for score in record.scores:
        assert variant.metrics[f"accuracy/{score.task}"] == score.accuracy
    assert record.density is not None
    assert record.density.params is not None
    assert variant.metrics["density/params"] == record.density.params.value
    assert variant.metrics["density/params_low"] == record.density.params.low
    assert variant.references["model"] == (tmp_path / "store" / "objects" / "ab").as_uri()


def test_tensorboard_reads_the_files(variant: TrackedVariant, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # a second run replaces the first
        assert send(study(), "tensorboard", tmp_path / "store", tmp_path / "reports") == ""
    read = EventAccumulator(str(tmp_path / "reports" / "tiny" / "tensorboard" / variant.name))
    read.Reload()
    [(name, curve)] = variant.curves.items()
    assert [(event.step, event.value) for event in read.Scalars(name)] == curve
    for metric, value in variant.metrics.items():
        assert [event.value for event in read.Scalars(metric)] == [pytest.approx(value)]


def test_mlflow_reads_the_runs(variant: TrackedVariant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    assert send(study(), "mlflow", tmp_path / "store", tmp_path / "reports") == ""
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("tiny")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"base", variant.name}
    run = runs[variant.name]
    assert run.info.status == "FINISHED"
    assert run.data.params == {name: str(value) for name, value in variant.params.items()}
    assert {name: run.data.metrics[name] for name in variant.metrics} == variant.metrics
    [(name, curve)] = variant.curves.items()
    assert [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)] == curve
    assert run.data.tags["compresslab.model"] == variant.references["model"]


def wandb_records(data: bytes) -> Iterator[bytes]:
    """The records of a file of W&B: LevelDB's log, in blocks of 32 KiB, after 7 bytes. Not every version of wandb has a reader."""
    place, record = 7, b""
    while place + 7 <= len(data):
        if (left := 2**15 - place % 2**15) < 7:
            place += left
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def test_wandb_writes_runs_offline(variant: TrackedVariant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    assert send(study(), "wandb", tmp_path / "store", tmp_path / "reports") == ""
    # wandb's service writes the files, those of the last run also after the run is finished. wandb awaits it when a program exits, as here.
    wandb.teardown()
    files = sorted((tmp_path / "reports" / "tiny").rglob("*.wandb"))
    assert len(files) == 2
    names, curve, summary = set(), [], set()
    for file in files:
        for data in wandb_records(file.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                names.add((record.run.project, record.run.display_name))
            items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            curve += [float(value) for name, value in items.items() if name in variant.curves]
            summary |= {item.key or "/".join(item.nested_key) for item in record.summary.update}
    assert names == {("tiny", "base"), ("tiny", variant.name)}
    assert curve == LOSSES
    assert set(variant.metrics) <= summary


def test_trackio_keeps_runs_on_this_machine(variant: TrackedVariant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trackio = pytest.importorskip("trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    assert send(study(), "trackio", tmp_path / "store", tmp_path / "reports") == ""
    api = trackio.Api()
    assert {run.name for run in api.runs("tiny")} == {"base", variant.name}


def test_a_changed_run_is_a_group_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[TrackedVariant] = []

    class Runs:
        def __init__(self, page: Path) -> None:
            self.page = page

        def log(self, variant: TrackedVariant) -> None:
            assert variant.references["page"] == (self.page / "index.html").as_uri()
            sent.append(variant)

    monkeypatch.setattr(choose.importlib, "import_module", lambda _: type("Module", (), {"Runs": Runs}))
    text = "study: tiny\nbase: {model: offline:smollm2-135m-instruct}\nvariants: {}\nevaluate: {tasks: [arc_easy], items: 200}\n"
    whole = study()
    provenance = whole.provenance.model_copy(update={"recipe_sha256": hashlib.sha256(text.encode()).hexdigest()})
    for recipe in (text, Changes(("evaluate.items=60",)).described() + text):
        record = whole.model_copy(update={"recipe": recipe, "provenance": provenance})
        assert send(record, "mlflow", tmp_path / "store", tmp_path / "reports") == ""
    assert {variant.study for variant in sent[:2]} == {"tiny"}
    assert {variant.study for variant in sent[2:]} == {"tiny~items-60"}


def test_a_tracker_that_cannot_be_reached_costs_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said = send(study(), "mlflow", tmp_path / "store", tmp_path / "reports")
    assert said.startswith("mlflow has not all of tiny (")
    assert "\n" not in said


def test_a_tracker_that_breaks_costs_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, page: Path) -> None:
            raise SystemExit("no key\nwas given")

    monkeypatch.setattr(choose.importlib, "import_module", lambda _: type("Module", (), {"Runs": Broken}))
    said = send(study(), "wandb", tmp_path / "store", tmp_path / "reports")
    assert said == "wandb has not all of tiny (no key was given); the study and its page are whole, and running it again sends it again"


@pytest.mark.parametrize("name", sorted(choose.TRACKERS))
def test_a_tracker_that_is_not_installed_is_refused_before_anything_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "version", lambda _: "absent")
    with pytest.raises(BadInput, match=rf"--track {name} needs {name}, which is not installed: pip install 'compresslab\[{name}\]'"):
        check_tracker(name)
