"""Studies and steps from a program: the same results as on the command line, and errors of ours."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

import compresslab
from compresslab.plan.graph import Node, Plan
from compresslab.recipe.arguments import checked
from compresslab.recipe.steps import Step
from compresslab.report import tables
from compresslab.runner import processes, server_process
from compresslab.runner.processes import Listener
from compresslab.runner.watcher import Watcher
from compresslab.store.store import Store
from compresslab.studies.run_study import plan_study


def test_a_study_is_run_read_and_looked_at_in_a_few_lines(recipe: Path, tiny_text: Path, tmp_path: Path) -> None:
    def run() -> compresslab.StudyRecord:
        settings = ["evaluate.items=2", f"evaluate.fidelity={{source: {tiny_text}, tokens: 128, length: 32}}"]
        return compresslab.run_study(recipe, store=tmp_path / "store", settings=settings, only=["pruned"])

    study = run()
    assert [variant.name for variant in study.variants] == ["base", "pruned"]
    assert not any(variant.failures for variant in study.variants)
    page = compresslab.write_report(study, tmp_path / "reports" / "tiny")
    assert compresslab.read_study(page.parent) == compresslab.read_study(page.parent / "study.json") == study
    for make in tables.TABLES.values():
        assert len(make(study).columns) > 2
    assert tables.divergences(study)[["variant", "against", "sequences"]].to_numpy().tolist() == [["pruned", "base", 4]]
    assert tables.fidelity(study)["items"].tolist() == [score.items for score in study.variants[1].scores]
    assert run().cached_nodes == study.nodes


def test_a_step_alone_gives_a_folder_that_transformers_loads(tiny_folder: Path, tmp_path: Path) -> None:
    step = {"quantize": {"method": "rtn", "bits": 8, "group_size": 32}}
    record = compresslab.compress(str(tiny_folder), step, tmp_path / "out", dtype="float32")
    assert (record.kind, record.method) == ("quantize", "rtn")
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with pytest.raises(compresslab.BadInput, match="exists already"):
        compresslab.compress(str(tiny_folder), step, tmp_path / "out")


def test_a_step_that_trains_until_a_models_loss_gets_that_model(tiny_folder: Path, tmp_path: Path) -> None:
    optimizer = {"batch_tokens": 64, "micro_batch_tokens": 64}
    step = {"retrain": {"method": "full", "tokens": 128, "until": "parent", "optimizer": optimizer}}
    several = tmp_path / "documents.txt"  # the last of them are held out
    several.write_text("\n\n\n".join(f"Question {number}." for number in range(400)))
    text = {"source": str(several), "tokens": 4096, "length": 32}
    record = compresslab.compress(str(tiny_folder), step, tmp_path / "out", text=text, dtype="float32")
    assert record.method == "full"


def test_a_model_that_comes_out_broken_leaves_nothing(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise compresslab.RunFailed("not finite")

    monkeypatch.setattr("compresslab.steps.contract.check_finite", broken)
    with pytest.raises(compresslab.RunFailed, match="not finite"):
        compresslab.compress(str(tiny_folder), {"prune": {"method": "magnitude", "sparsity": 0.5}}, tmp_path / "out" / "model")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("step", "text", "said"),
    [
        ({"quantize": {"method": "gptqq"}}, None, r"^step\.quantize\.method: unknown method 'gptqq'; did you mean 'gptq'\? give "),
        ({"prune": {"method": "dpth", "keep": 1}}, None, r"^step\.prune\.method: unknown method 'dpth'; did you mean 'depth'\?"),
        ({"quantise": {"method": "gptq"}}, None, r"^step\.quantise: unknown key 'quantise'; did you mean 'quantize'\?"),
        ({"prune": {"method": "depth", "kep": 1}}, None, r"^step\.prune\.kep: unknown key 'kep'; did you mean 'keep'\?"),
        ({}, None, "^step: a step has exactly one of prune, distill, quantize, retrain, adopt; this one has none$"),
        ({"adopt": "some/model"}, None, r"^step\.adopt: 'some/model' does not fit here; give a mapping"),
        ({"adopt": {"model": "some/model"}}, None, r"^step\.adopt: an existing model is taken as it is"),
        ({"quantize": {"method": "gptq", "bits": "4"}}, None, r"^step\.quantize\.bits: '4' does not fit here; give one of 2, 3, 4 or 8"),
        ({"prune": {"method": "depth", "keep": Path("x")}}, None, r"^step\.prune\.keep: PosixPath is no value of a recipe"),
        (
            {"prune": {"method": "depth", "keep": 1}},
            {"samples": 0},
            r"^text\.samples: 0 does not fit here; give a whole number of at least 1",
        ),
        ({"prune": {"method": "magnitude", "sparsity": 0.5}}, {"samples": 1}, "^text: this step reads no text; leave it out"),
    ],
)
def test_what_is_no_step_or_text_is_told(
    step: dict[str, object], text: dict[str, object] | None, said: str, tiny_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(compresslab.BadInput, match=said):
        compresslab.compress(str(tiny_folder), step, tmp_path / "out", text=text)
    assert not (tmp_path / "out").exists()


def test_all_that_is_wrong_with_a_step_is_told_at_once(tiny_folder: Path, tmp_path: Path) -> None:
    step = {"quantize": {"method": "gptq", "bits": 5, "groupsize": 32}}
    with pytest.raises(compresslab.BadInput) as caught:
        compresslab.compress(str(tiny_folder), step, tmp_path / "out")
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["step.quantize.bits", "step.quantize.groupsize"]


@pytest.mark.parametrize("given", [{"dtype": "bfloat"}, {"compute": "fp32"}])
def test_a_dtype_that_is_none_is_told(given: dict[str, str], tiny_folder: Path, tmp_path: Path) -> None:
    (name,) = given
    step = {"prune": {"method": "magnitude", "sparsity": 0.5}}
    with pytest.raises(compresslab.BadInput, match=f"^{name}: '{given[name]}' is none of "):
        compresslab.compress(str(tiny_folder), step, tmp_path / "out", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [{"settings": "evaluate.items=2"}, {"only": "pruned"}])
def test_a_text_where_a_list_belongs_is_not_taken_letter_by_letter(given: dict[str, str], recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(compresslab.BadInput, match="is a list of texts"):
        compresslab.run_study(recipe, store=tmp_path / "store", **given)  # type: ignore[arg-type]


def test_settings_belong_to_the_preparation_of_a_plan(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(compresslab.BadInput, match="give them to plan_study"):
        compresslab.run_study(plan_study(recipe), store=tmp_path / "store", only=["pruned"])


def test_a_study_tells_its_watcher_and_writes_its_page(recipe: Path, tmp_path: Path) -> None:
    heard: list[str] = []

    class Hearing(Watcher):
        def planned(self, plan: Plan, store: Store) -> None:
            heard.append(f"{len(plan.nodes)} nodes into {store.root.name}")

        def starting(self, node: Node, estimated: float | None) -> Listener:
            assert estimated is not None
            heard.append(f"starting {node.label}")
            # Whatever becomes of the file, the record holds what ran.
            recipe.write_text("study: another\n")
            return Listener()

        def ended(self, node: Node, seconds: float, failure: str) -> None:
            heard.append(f"ended {node.label}{failure}")

        def assessing(self, plan: Plan) -> None:
            heard.append(f"assessing {plan.recipe.study}")

    written = recipe.read_text()
    plan = plan_study(recipe, settings=["evaluate.items=2"], only=["base"])
    study = compresslab.run_study(plan, store=tmp_path / "store", reports=tmp_path / "reports", watcher=Hearing())
    labels = [node.label for node in plan.nodes]
    told = [f"{what} {label}" for label in labels for what in ("starting", "ended")]
    assert heard == [f"{len(labels)} nodes into store", *told, f"assessing {study.study}"]
    assert study.recipe.endswith(written)
    (record,) = (tmp_path / "reports").glob("*/study.json")  # of a changed run, beside that of the recipe
    assert compresslab.read_study(record.parent) == study
    assert (tmp_path / "reports" / "index.html").is_file()


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"prune": None}, "step.prune: None is no value of a recipe"),
        (None, "step: None is no value of a recipe"),
        ({"prune": {"method": "depth", "keep": None, "parameters": None}}, "step.prune.keep: None is no value of a recipe"),
    ],
)
def test_nothing_where_a_value_belongs_is_told(step: dict[str, object] | None, said: str, tmp_path: Path) -> None:
    with pytest.raises(compresslab.BadInput) as caught:
        compresslab.compress("any", step, tmp_path / "out")  # type: ignore[arg-type]
    assert said in str(caught.value)


def test_numbers_of_numpy_are_numbers() -> None:
    given = {"prune": {"method": "width", "keep": np.float32(0.5), "hidden": np.int64(64)}}
    config = checked(Step, given, "step").config.model_dump()
    assert (config["keep"], config["hidden"]) == (0.5, 64)


def test_a_folder_that_no_page_can_be_written_into_is_refused_before_anything_runs(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("a file")
    with pytest.raises(compresslab.BadInput, match="no page can be written into"):
        compresslab.run_study(recipe, store=tmp_path / "store", reports=tmp_path / "reports")
    assert not (tmp_path / "store").exists()


def told_environment(_: None, pipe: Connection) -> None:
    pipe.send([os.environ.get(name) for name in server_process.ENVIRONMENT] + [os.getppid()])


def test_threads_share_one_fork_server(tmp_path: Path) -> None:
    before, stderr = dict(os.environ), os.fstat(2)

    def parent(number: int) -> int:
        with processes.Worker(tmp_path / f"{number}.log") as worker:
            worker.start(told_environment, None)
            *_, pid = worker.pipe.recv()
            worker.finish(5)
        return int(pid)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(parent, range(4)))) == 1
    assert (dict(os.environ), os.fstat(2)) == (before, stderr)


def test_a_run_leaves_the_environment_of_its_caller_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    monkeypatch.setattr(server_process, "PRELOAD", [])
    monkeypatch.setattr(server_process, "_servers", [])
    before = dict(os.environ)
    with processes.Worker(tmp_path / "log") as worker:
        worker.start(told_environment, None)
        inherited = worker.pipe.recv()
        worker.finish(5)
    worker.server.close()
    assert dict(os.environ) == before
    assert inherited[:2] == ["PASSIVE", "0"], "what the user has set stays"


def test_a_record_that_is_not_there_or_not_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(compresslab.BadInput, match="no record at"):
        compresslab.read_study(tmp_path)
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(compresslab.BadInput, match="not written by this version of compresslab but by an older one"):
        compresslab.read_study(tmp_path)


def test_a_step_alone_is_held_against_the_model_before_it(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compresslab.steps import prune_sparse

    step = {"prune": {"method": "magnitude", "sparsity": 0.5}}
    record = compresslab.compress(str(tiny_folder), step, tmp_path / "out")
    assert record.counted is not None
    assert record.counted.unchanged == 0
    monkeypatch.setattr(
        prune_sparse, "pruned", lambda weights, *_: [2 * weight * (weight.abs() > weight.abs().median()) for weight in weights]
    )
    with pytest.raises(compresslab.RunFailed, match="other values than the parent's in"):
        compresslab.compress(str(tiny_folder), step, tmp_path / "again")
    with pytest.raises(compresslab.BadInput, match=r"^other: a distill step learns from another model"):
        compresslab.compress(str(tiny_folder), {"distill": {"tokens": 64}}, tmp_path / "again")
