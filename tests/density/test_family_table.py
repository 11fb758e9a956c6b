"""A reference from a user's table of scores alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from compresslab.catalog.published_settings import TASKS
from compresslab.cli.main import app
from compresslab.density import Reference
from compresslab.density.references.family import fitted
from compresslab.density.references.laws import N_UNIT
from compresslab.errors import BadInput
from compresslab.studies.imported.family_table import read_family_table

SIZES = (0.5e9, 1.5e9, 3e9, 7e9, 14e9, 32e9)
HEADER = "model,params,train_tokens,benchmark,shots,metric,score"


def score(size: float, chance: float) -> float:
    """A score that grows with size as a logistic curve."""
    return chance + (1 - chance) / (1 + np.exp(-0.8 * (np.log(size / 1e9) - 1.5)))


def table(folder: Path, sizes: tuple[float, ...] = SIZES, tokens: str = "1e13") -> Path:
    rows = [HEADER]
    for size in sizes:
        for name, (benchmark, shots, metric) in {"MMLU": ("MMLU", 5, "acc"), "GSM8K 4-shot": ("GSM8K", 4, "em")}.items():
            rows.append(f"m{size:g},{size:g},{tokens},{benchmark},{shots},{metric},{score(size, TASKS[name].chance):.4f}")
    (path := folder / "family.csv").write_text("\n".join(rows) + "\n")
    return path


def test_the_models_of_a_family_have_density_one(tmp_path: Path) -> None:
    read = read_family_table(table(tmp_path), "own")
    assert read.tasks == ("MMLU", "GSM8K 4-shot")
    reference = Reference.parse({**fitted(read, 20), "reach": [1.0, 1.0], "reach_tested": [False, False]})
    for size in SIZES[1:-1]:
        found = reference.effective_params(task="MMLU", score=score(size, 0.25))
        assert found.value == pytest.approx(size, rel=0.15)
    assert reference.kind == "family"
    assert reference.parameters_range == (SIZES[0] / N_UNIT * N_UNIT, SIZES[-1])


@pytest.mark.slow
def test_the_command_writes_a_reference_that_a_study_reads(tmp_path: Path) -> None:
    out = tmp_path / "own.json"
    shown = CliRunner().invoke(
        app, ["reference", "fit", "--family", str(table(tmp_path)), "--name", "own", "--out", str(out)], catch_exceptions=False
    )
    assert shown.exit_code == 0
    assert set(Reference.load(str(out)).tasks) == {"MMLU", "GSM8K 4-shot"}


def test_what_makes_no_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"m5e[+]08.* without train_tokens; a reference knows"):
        read_family_table(table(tmp_path, tokens=""), "own")
    with pytest.raises(BadInput, match="has models of 3 sizes; a family needs at least 4"):
        read_family_table(table(tmp_path, SIZES[:3]), "own")
    path = table(tmp_path)
    path.write_text(path.read_text().replace(",5,acc", ",0,acc").replace(",4,em", ",1,em"))
    with pytest.raises(BadInput, match=r"no benchmark in one setting with scores of 4 models; not read: GSM8K \(1 shots, em\), MMLU"):
        read_family_table(path, "own")
    path.write_text(HEADER + "\n" + "\n".join(f"m{k},{k}e9,1e12,MMLU,5,acc,0.5" for k in range(1, 6)) + "\n")
    with pytest.raises(BadInput, match="the scores of MMLU are nearly all the same"):
        read_family_table(path, "own")


def test_one_table_is_needed(tmp_path: Path) -> None:
    for arguments in ([], [str(tmp_path / "a.csv"), "--family", str(tmp_path / "b.csv")]):
        shown = CliRunner().invoke(app, ["reference", "fit", *arguments])
        assert isinstance(shown.exception, BadInput)
        assert "give one table" in str(shown.exception)
