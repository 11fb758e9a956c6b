"""Files that lm-eval itself wrote, unmodified, give the study that running the same models gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from compresslab.density.references.build import reference_json
from compresslab.density.references.user import fit_table
from compresslab.errors import BadInput
from compresslab.studies.imported.page import write_imported
from compresslab.studies.imported.study import ImportRequest, import_study
from compresslab.studies.read_study import read_study
from compresslab.studies.run_study import run_study
from studies.conftest import Evaluated

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

RECIPE = """
study: run
base: {model: parent, dtype: float32}
compute: float32
variants:
  child: [{adopt: {model: child}}]
evaluate: {tasks: [sciq]}
density: {reference: own.json, hardware: [], measure: false}
"""


@pytest.fixture(scope="module")
def reference(evaluated: Evaluated) -> Path:
    """A reference whose models answer `sciq` about as badly as random ones."""
    sizes = [2e4, 5e4, 1.2e5, 3e5, 8e5, 2e6, 5e6]
    losses = [3 + 4 * (n / 187e3) ** -0.3 + 0.01 * k for k, n in enumerate(sizes)]
    rows = [{"run": f"{n:g}", "params": n, "tokens": 200 * n, "task": "sciq", "bpb": loss} for n, loss in zip(sizes, losses, strict=True)]
    table = pd.DataFrame(rows).assign(score=float("nan"), chance=float("nan"), size=[row["params"] for row in rows])
    (path := evaluated.folder / "own.json").write_text(reference_json(fit_table(table, "own", "made up")))
    return path


def test_import_gives_the_r_of_the_run_study(evaluated: Evaluated, reference: Path) -> None:
    imported = import_study(ImportRequest(evaluated.files, ["parent"], reference=str(reference)))
    (evaluated.folder / "recipe.yaml").write_text(RECIPE)
    command = [sys.executable, "-m", "compresslab", "run", "recipe.yaml", "--store", "store", "--reports", "reports"]
    environment = os.environ | {"HF_DATASETS_CACHE": str(evaluated.folder / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=evaluated.folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    run = read_study(evaluated.folder / "reports" / "run")
    (base, child), (base_of_run, child_of_run) = imported.variants, run.variants
    for one, other in ((base, base_of_run), (child, child_of_run)):
        assert one.size is not None
        assert other.size is not None
        assert one.size.model_copy(update={"nonzero": other.size.nonzero}) == other.size
        assert one.steps[-1].shape == other.steps[-1].shape
        (score,), (score_of_run,) = one.scores, other.scores
        assert score.bits_per_byte == pytest.approx(score_of_run.bits_per_byte, rel=1e-4)
        fields = {"task", "items", "accuracy", "metric", "chance", "accuracy_stderr"}
        assert score.model_dump(include=fields) == score_of_run.model_dump(include=fields)
    (own,), (of_run,) = child.comparisons, child_of_run.comparisons
    for name in ("ratio", "ratio_by_score", "ratio_bits"):
        here, there = getattr(own, name), getattr(of_run, name)
        assert (here is None) == (there is None)
        if here is not None:
            assert here.value == pytest.approx(there.value, rel=1e-3)
            # A percentile of draws moves by the distance of two draws where log-likelihoods differ in their last digits.
            assert (here.low, here.high) == pytest.approx((there.low, there.high), rel=5e-3)
    assert own.ratio is not None
    assert not own.ratio.bound
    assert 0 < own.ratio.low < own.ratio.value < own.ratio.high
    assert own.verdict == of_run.verdict
    assert own.runs_apart == of_run.runs_apart == 2
    assert own.tasks[0].mcnemar == of_run.tasks[0].mcnemar
    assert child.fidelity is not None
    assert child_of_run.fidelity is not None
    assert child.fidelity[0].changed == child_of_run.fidelity[0].changed
    assert [item.item for item in child.lost_items] == [item.item for item in child_of_run.lost_items]


def test_its_page_and_the_recipe_that_it_stands_for_are_written(evaluated: Evaluated, reference: Path, tmp_path: Path) -> None:
    record = import_study(ImportRequest(evaluated.files, ["parent"], reference=str(reference), study="mine"))
    page = write_imported(record, tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "were imported from results_" in text
    assert "adopt" in (tmp_path / "mine" / "recipe.yaml").read_text(encoding="utf-8")
    assert read_study(tmp_path / "mine").model_dump() == record.model_dump()
    before = page.read_bytes()
    with pytest.raises(BadInput, match=r"mine has a page that was imported .*; name another folder with --reports, or copy"):
        run_study(tmp_path / "mine" / "recipe.yaml", store=tmp_path / "store", reports=tmp_path)
    assert page.read_bytes() == before


def test_without_samples_r_is_less_sure(evaluated: Evaluated, reference: Path) -> None:
    record = import_study(ImportRequest([str(evaluated.parent[0]), str(evaluated.child[0])], ["parent"], reference="pythia"))
    (score,) = record.variants[1].scores
    assert (score.bits_per_byte, score.items, score.task) == (None, 40, "lm-eval:sciq")
    assert score.accuracy_stderr == pytest.approx((score.accuracy * (1 - score.accuracy) / 39) ** 0.5)
    with_samples = import_study(ImportRequest(evaluated.files, ["parent"], reference=str(reference)))
    widths = [one.variants[1].comparisons[0].tasks[0].accuracy for one in (record, with_samples)]
    assert widths[0].high - widths[0].low > widths[1].high - widths[1].low


def test_samples_of_another_number_of_items_do_not_pair(evaluated: Evaluated) -> None:
    from studies import lm_eval_runs

    fewer = lm_eval_runs.evaluate(evaluated.folder / "child", evaluated.folder / "fewer", limit=30)
    files = [*map(str, evaluated.parent), f"child={fewer[0]}", str(fewer[1])]
    with pytest.raises(BadInput, match=r"do not pair: 30 and 40 items, 30 of them of the same number; evaluate both"):
        import_study(ImportRequest(files, ["parent"]))


def test_other_shots_are_named(evaluated: Evaluated) -> None:
    from studies import lm_eval_runs

    shots = lm_eval_runs.evaluate(evaluated.folder / "child", evaluated.folder / "shots", shots=2)
    with pytest.raises(BadInput, match="sciq: parent was asked with 0 shots, child with 2; evaluate both with the same --num_fewshot"):
        import_study(ImportRequest([*map(str, evaluated.parent), *map(str, shots)], ["parent"]))
