"""One recipe computed in both dtypes, on whatever processor this is: folders of the same form, scores that agree, and only what the weights
alone decide is shared."""

from __future__ import annotations

from pathlib import Path

import pytest

from compresslab.plan.graph import Plan
from compresslab.plan.prepare import prepare
from compresslab.recipe.changes import Changes
from compresslab.records import StudyRecord
from compresslab.runner.run import RunResult, run
from compresslab.runner.watcher import Watcher
from compresslab.store.store import Store
from compresslab.studies.assemble import assemble


class Both:
    """A study that ran in each dtype, over one store."""

    def __init__(self, recipe: Path, store: Store) -> None:
        self.recipe, self.store = recipe, store
        self.plans: list[Plan] = []
        self.ran: list[RunResult] = []
        self.records: list[StudyRecord] = []
        for dtype in ("float32", "bfloat16"):
            self.plans.append(prepare(recipe, Changes((f"compute={dtype}",))))
            self.ran.append(run(self.plans[-1], store, Watcher()))
            self.records.append(assemble(self.plans[-1], store, self.ran[-1]))


@pytest.fixture(scope="module")
def both(recipe_text: str, tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = tmp_path_factory.mktemp("both")
    text = recipe_text.replace("dtype: float32", "dtype: bfloat16")
    start, end = text.index("  packed:"), text.index("evaluate:")
    text = f"{text[:start]}  packed: [{{quantize: {{method: rtn, bits: 8, group_size: 32}}}}]\n{text[end:]}"
    (folder / "recipe.yaml").write_text(text)
    return Both(folder / "recipe.yaml", Store(folder / "store"))


def test_only_what_the_weights_alone_decide_is_shared(both: Both) -> None:
    assert not any(ran.failures for ran in both.ran)
    first, second = ({node.key: node.label for node in plan.nodes} for plan in both.plans)
    assert {first[key] for key in first.keys() & second.keys()} == {"load base", "quantize packed"}
    assert both.ran[1].cached == 2


def test_sizes_and_bits_are_the_same_and_scores_agree(both: Both) -> None:
    for one, other in zip(*(record.variants for record in both.records), strict=True):
        assert one.size == other.size
        assert one.size is not None
        assert one.size.effective_bits <= 16
        for left, right in zip(one.scores, other.scores, strict=True):
            assert left.bits_per_byte == pytest.approx(right.bits_per_byte, abs=0.05)


def test_the_record_says_what_computed(both: Both) -> None:
    assert [record.variants[1].steps[-1].compute["dtype"] for record in both.records] == ["float32", "bfloat16"]
    assert [record.provenance.compute["dtype"] for record in both.records] == ["float32", "bfloat16"]


def test_published_laws_use_the_tokens_of_the_recipe_whatever_the_store_recorded(both: Both) -> None:
    plan = prepare(both.recipe, Changes(("compute=float32", "base.train_tokens=20000000000")))
    assert [node.key for node in plan.nodes] == [node.key for node in both.plans[0].nodes]
    before, after = both.records[0].laws, assemble(plan, both.store, both.ran[0]).laws
    assert before is not None
    assert after is not None
    assert {row.law for row in before.predictions if row.predicted} == set()
    losses = {row.law: row for row in after.predictions if row.quantity == "nats a token" and row.variant == "packed"}
    assert set(losses) == {"precision", "undertrained"}
    for row in losses.values():
        assert row.predicted is not None
        assert row.measured is not None
        assert row.measured.low <= row.measured.value <= row.measured.high
        assert any(one.startswith("rounded by rtn") for one in row.outside)
