"""Studies whose recipes allow programs of a model (`evaluate.run_code`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from report.studies import quickstart
from typer.testing import CliRunner, Result

import compresslab
from compresslab.cli.main import app
from compresslab.errors import BadInput
from compresslab.evaluation.sandbox import programs
from compresslab.plan.prepare import prepare
from compresslab.recipe.changes import Changes
from compresslab.runner import make as runner
from compresslab.runner.messages import Failed, NodeJob
from compresslab.store.store import Store
from compresslab.store.upkeep import note
from compresslab.studies import assemble

Run = Callable[..., Result]


@pytest.fixture
def run(recipe: Path, tmp_path: Path) -> Run:
    """`compresslab run` of the tiny study, which allows programs."""

    def call(*options: str) -> Result:
        places = ["--store", str(tmp_path / "store"), "--reports", str(tmp_path / "reports")]
        return CliRunner().invoke(app, ["run", str(recipe), *places, "--set", "evaluate.run_code=true", *options])

    return call


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[NodeJob]:
    """The jobs that a run gives to its workers, each of which fails."""
    given: list[NodeJob] = []

    def execute(job: NodeJob, *_: Any) -> Failed:
        given.append(job)
        return Failed("not in this test")

    monkeypatch.setattr(runner, "execute", execute)
    return given


@pytest.fixture
def no_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    programs.check.cache_clear()
    monkeypatch.setattr(programs, "refusal", lambda: "bubblewrap is not installed; install it")


@pytest.mark.usefixtures("no_sandbox")
def test_without_a_sandbox_nothing_is_computed(run: Run, jobs: list[NodeJob]) -> None:
    result = run()
    assert isinstance(result.exception, BadInput)
    assert str(result.exception).startswith(
        "programs that a model wrote cannot be run here: bubblewrap is not installed; install it. --trust-code"
    )
    assert jobs == []


@pytest.mark.usefixtures("no_sandbox")
def test_a_study_without_programs_needs_no_sandbox(run: Run, jobs: list[NodeJob]) -> None:
    run("--set", "evaluate.run_code=false")
    assert jobs


@pytest.mark.usefixtures("no_sandbox")
def test_trust_code_reaches_the_workers(run: Run, jobs: list[NodeJob]) -> None:
    run("--trust-code")
    assert jobs
    assert all(job.trust_code for job in jobs)


@pytest.mark.usefixtures("no_sandbox")
def test_a_program_may_trust_code_too_and_does_not_by_default(recipe: Path, tmp_path: Path, jobs: list[NodeJob]) -> None:
    settings = ["evaluate.run_code=true"]
    with pytest.raises(BadInput, match="bubblewrap is not installed"):
        compresslab.run_study(recipe, store=tmp_path / "store", settings=settings)
    study = compresslab.run_study(recipe, store=tmp_path / "store", settings=settings, trust_code=True)
    assert all(variant.failures for variant in study.variants)
    assert [job.trust_code for job in jobs] == [True]


@pytest.mark.usefixtures("jobs")
def test_a_report_is_of_the_last_run_whether_it_trusted_programs_or_not(recipe: Path, tmp_path: Path) -> None:
    store, text = Store(tmp_path / "store"), yaml.safe_load(recipe.read_text())
    text["evaluate"] |= {"run_code": True, "tasks": ["humaneval"]}
    recipe.write_text(yaml.safe_dump(text))
    trusted, confined = (prepare(recipe, trust_code=trust) for trust in (True, False))
    for plan in (trusted, confined, trusted):
        note(plan, store)
        found = prepare(recipe, noted=store.notes())
        assert found.trust_code == plan.trust_code
        assert [node.tasks for node in found.of_kind("evaluate")] == [node.tasks for node in plan.of_kind("evaluate")]
    scores = {key for plan in (trusted, confined) for node in plan.of_kind("evaluate") for key in node.tasks.values()}
    assert len(scores) == 2 * len(list(trusted.of_kind("evaluate")))
    assert scores <= set(store.notes()["tiny"].keys or ())
    assert not prepare(recipe, Changes(("evaluate.run_code=false",)), noted=store.notes()).trust_code


def test_a_prepared_plan_says_itself_whether_programs_are_trusted(recipe: Path) -> None:
    with pytest.raises(BadInput, match="give them to plan_study"):
        compresslab.run_study(compresslab.plan_study(recipe), trust_code=True)


@pytest.mark.usefixtures("no_sandbox")
@pytest.mark.parametrize("command", ["plan", "validate"])
def test_what_looks_at_a_recipe_warns_that_there_is_no_sandbox(command: str, recipe: Path) -> None:
    def lines(*options: str) -> list[str]:
        result = CliRunner().invoke(app, [command, str(recipe), *options], catch_exceptions=False)
        return [line for line in result.output.splitlines() if "sandbox" in line or "bubblewrap" in line]

    assert lines("--set", "evaluate.run_code=true") == [
        "warning: evaluate.run_code: programs that a model wrote cannot be run here: bubblewrap is not installed; install it"
    ]
    assert lines() == []
    if command == "plan":
        assert lines("--set", "evaluate.run_code=true", "--trust-code") == []


def test_no_recipe_can_trust_code(run: Run) -> None:
    result = run("--set", "evaluate.trust_code=true")
    assert isinstance(result.exception, BadInput)
    assert "trust_code" in str(result.exception)


@pytest.mark.usefixtures("no_sandbox")
def test_no_study_runs_before_all_are_checked(jobs: list[NodeJob], recipe: Path, tmp_path: Path) -> None:
    first = tmp_path / "first.yaml"
    first.write_text(recipe.read_text().replace("study: tiny", "study: first"))
    second = tmp_path / "second.yaml"
    second.write_text(recipe.read_text().replace("items: 12", "items: 12, run_code: true"))
    result = CliRunner().invoke(app, ["run", str(first), str(second), "--store", str(tmp_path / "s"), "--reports", str(tmp_path / "r")])
    assert isinstance(result.exception, BadInput)
    assert jobs == []


def test_a_page_says_that_programs_ran_without_a_sandbox() -> None:
    study = quickstart()
    score = study.variants[1].scores[0].model_copy(update={"metric": f"pass@1{programs.UNCONFINED}"})
    trusted = study.variants[1].model_copy(update={"scores": [score]})
    assert list(assemble._trusted(study.variants)) == []
    assert trusted.name in next(assemble._trusted([trusted]))
