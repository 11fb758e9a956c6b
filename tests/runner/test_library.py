"""Studies and steps from a program: the same results as on the command line, and errors of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

import compresslab
from compresslab.report import tables


def test_a_study_is_run_read_and_looked_at_in_a_few_lines(recipe: Path, tmp_path: Path) -> None:
    def run() -> compresslab.StudyRecord:
        return compresslab.run_study(recipe, store=tmp_path / "store", settings=["evaluate.items=2"], only=["pruned"])

    study = run()
    assert [variant.name for variant in study.variants] == ["base", "pruned"]
    assert not any(variant.failures for variant in study.variants)
    page = compresslab.write_report(study, tmp_path / "reports" / "tiny")
    assert compresslab.read_study(page.parent) == compresslab.read_study(page.parent / "study.json") == study
    for make in tables.TABLES.values():
        assert len(make(study).columns) > 2
    assert run().cached_nodes == study.nodes


def test_a_step_alone_gives_a_folder_that_transformers_loads(tiny_folder: Path, tmp_path: Path) -> None:
    step = {"quantize": {"method": "rtn", "bits": 8, "group_size": 32}}
    record = compresslab.compress(str(tiny_folder), step, tmp_path / "out", dtype="float32")
    assert (record.kind, record.method) == ("quantize", "rtn")
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with pytest.raises(compresslab.BadInput, match="exists already"):
        compresslab.compress(str(tiny_folder), step, tmp_path / "out")


def test_a_step_that_trains_until_a_models_loss_gets_that_model(tiny_folder: Path, tiny_text: Path, tmp_path: Path) -> None:
    optimizer = {"batch_tokens": 64, "micro_batch_tokens": 64}
    step = {"retrain": {"method": "full", "tokens": 128, "until": "parent", "optimizer": optimizer}}
    text = {"source": str(tiny_text), "tokens": 4096, "length": 32}
    record = compresslab.compress(str(tiny_folder), step, tmp_path / "out", text=text, dtype="float32")
    assert record.method == "full"


def test_a_model_that_comes_out_broken_leaves_nothing(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise compresslab.RunFailed("not finite")

    monkeypatch.setattr("compresslab.steps.contract.check_finite", broken)
    with pytest.raises(compresslab.RunFailed):
        compresslab.compress(str(tiny_folder), {"prune": {"method": "magnitude", "sparsity": 0.5}}, tmp_path / "out" / "model")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("step", "text", "said"),
    [
        ({"quantize": {"method": "gptqq"}}, None, "step: quantize"),
        ({}, None, "step: Value error, a step has exactly one of"),
        ({"adopt": "some/model"}, None, "step: adopt"),
        ({"prune": {"method": "depth", "keep": 1}}, {"samples": 0}, "text: samples: Input should be greater than 0"),
    ],
)
def test_what_is_no_step_or_text_is_told(
    step: dict[str, object], text: dict[str, object] | None, said: str, tiny_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(compresslab.BadInput, match=said):
        compresslab.compress(str(tiny_folder), step, tmp_path / "out", text=text)
    assert not (tmp_path / "out").exists()


def test_a_record_that_is_not_there_or_not_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(compresslab.BadInput, match="no record at"):
        compresslab.read_study(tmp_path)
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(compresslab.BadInput, match="not written by this version of compresslab but by an older one"):
        compresslab.read_study(tmp_path)
