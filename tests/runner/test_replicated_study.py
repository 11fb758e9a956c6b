"""A study with replicates from its recipe to its page: they differ, their spread is recorded, and a missing one is said."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from compresslab.plan.prepare import prepare
from compresslab.records import StudyRecord
from compresslab.runner.run import RunResult, run
from compresslab.runner.watcher import Watcher
from compresslab.store.store import Store
from compresslab.studies.assemble import assemble
from compresslab.studies.run_study import run_study

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def studied(recipe_text: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyRecord]:
    """The folder of a study with two replicates of its distilled variant, and its record."""
    folder = tmp_path_factory.mktemp("replicates")
    once = folder / "once.yaml"
    once.write_text(recipe_text)
    assert not run(prepare(once), Store(folder / "store"), Watcher()).failures
    recipe = folder / "recipe.yaml"
    text = recipe_text.replace("micro_batch_tokens: 64}}}]", "micro_batch_tokens: 64}}, replicates: 2}]")
    assert text != recipe_text
    recipe.write_text(text)
    return folder, run_study(prepare(recipe), store=folder / "store", reports=folder / "reports")


def variant(record: StudyRecord, name: str):  # type: ignore[no-untyped-def]
    return next(one for one in record.variants if one.name == name)


def test_the_first_replicate_is_taken_from_the_store(studied: tuple[Path, StudyRecord]) -> None:
    _, record = studied
    assert record.nodes - record.cached_nodes == 2, "the second replicate's model and its scores"


def test_the_seeds_make_other_models_of_a_full_distillation(studied: tuple[Path, StudyRecord]) -> None:
    """Its own seed decides nothing; the order of the text does."""
    _, record = studied
    first, second = variant(record, "healed"), variant(record, "healed~2")
    assert first.scores[0].bits_per_byte != second.scores[0].bits_per_byte
    assert second.replicate_of == "healed"
    assert second.comparisons == []


def test_both_spreads_are_in_the_record_and_on_the_page(studied: tuple[Path, StudyRecord]) -> None:
    folder, record = studied
    comparisons = variant(record, "healed").comparisons
    assert [comparison.replicates for comparison in comparisons] == [2, 2]
    (to_parent, _) = variant(record, "packed").comparisons
    assert to_parent.replicates == 0, "the quantized copy and its parent come from the same replicate"
    page = (folder / "reports" / record.study / "index.html").read_text()
    assert re.search(r'aria-label="Replicates".*?healed', page, re.DOTALL)


def test_the_record_and_the_page_have_the_noise_floor_of_the_step(studied: tuple[Path, StudyRecord]) -> None:
    folder, record = studied
    noise = variant(record, "healed").noise
    assert {one.relation for one in noise.differences} == {"parent", "root"}
    loss = next(one for one in noise.differences if (one.relation, one.quantity, one.task) == ("parent", "bits per byte", ""))
    scores = [variant(record, name).scores for name in ("healed", "healed~2", "pruned")]
    means = [sum(score.bits_per_byte for score in own) / len(own) for own in scores]
    assert [*loss.values, *loss.others] == pytest.approx(means)
    assert loss.twice.value == pytest.approx(abs(means[0] - means[1]))
    kl = next(one for one in noise.divergences if (one.quantity, one.task) == ("KL of options", ""))
    assert (len(kl.to_parent), len(kl.between)) == (2, 2)
    assert variant(record, "packed").noise is None, "it has no replicates, and takes no spread over from another variant"
    page = (folder / "reports" / record.study / "index.html").read_text()
    assert re.search(r'aria-label="Noise floors".*?with two replicates the interval is very wide', page, re.DOTALL)


def test_a_replicate_without_scores_is_said_and_does_not_take_the_variant_with_it(
    studied: tuple[Path, StudyRecord], tmp_path: Path
) -> None:
    folder, record = studied
    shutil.copytree(folder / "store", tmp_path / "store")
    plan, store = prepare(folder / "recipe.yaml"), Store(tmp_path / "store")
    for key in plan.node(plan.variant("healed~2").evaluate).tasks.values():
        shutil.rmtree(store.folder(key))
    left = assemble(plan, store, RunResult({}, 0, 0.0))
    healed = variant(left, "healed")
    assert healed.density == variant(record, "healed").density
    assert [comparison.replicates for comparison in healed.comparisons] == [0, 0]
    assert any(note.startswith("healed: healed~2 of 2 replicates gave no scores") for note in left.notes)
    assert variant(left, "healed~2").failures
