"""Studies whose recipes allow programs of a model (`evaluate.run_code`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report.studies import quickstart
from typer.testing import CliRunner, Result

import compresslab
from compresslab.cli.main import app
from compresslab.errors import BadInput
from compresslab.evaluation.sandbox import programs
from compresslab.runner import make as runner
from compresslab.runner.messages import Failed, NodeJob
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
