"""The training runs behind the variants of a study."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from plan_helpers import FolderMaker, plan_of
from safetensors.torch import save_file

from compresslab.plan.graph import Plan
from compresslab.records import Shape, Size, StepRecord
from compresslab.store.store import Store
from compresslab.studies.embeddings import same_embeddings
from compresslab.studies.training_runs import training_runs

RECIPE = """
variants:
  pruned: [{prune: {method: depth, keep: 24}}]
  healed: {from: pruned, steps: [{distill: {tokens: 1000}}]}
  packed: {from: healed, steps: [{quantize: {method: bnb-nf4}}]}
  retrained: {from: healed, steps: [{retrain: {method: lora, tokens: 1000}}]}
  other: [{adopt: {model: OTHER}}]
  other-pruned: {from: other, steps: [{prune: {method: depth, keep: 3}}]}
"""


def recorded(kind: str, details: dict[str, str] | None = None, **dimensions: float) -> StepRecord:
    """The record of a step that left a model with these dimensions."""
    shape = Shape(architecture="llama", layers=30, hidden=64, intermediate=128, attention_width=64, key_value_width=32, vocabulary=99)
    size = Size(parameters=1, counted=1, active=1, nonzero=1, stored_bytes=2, effective_bits=16.0)
    changed = shape.model_copy(update=dimensions)
    return StepRecord(kind=kind, method=kind, config={}, seed=0, size=size, shape=changed, details=details or {})


EMPTY = Store(Path("no store here"))


def runs(plan: Plan, name: str, adopted: StepRecord | None = None, store: Store = EMPTY) -> list[str]:
    """The runs behind a variant. `adopted` is the record of the steps that adopt a model."""
    variant = plan.variant(name)
    kinds = [step[0] if (step := plan.node(key).step) else "base" for key in variant.chain]
    return training_runs(variant, plan, [adopted if adopted and kind == "adopt" else recorded(kind) for kind in kinds], store)


def test_a_copy_has_its_parents_runs_and_a_step_that_trains_adds_one(folder: FolderMaker) -> None:
    plan = plan_of(RECIPE.replace("OTHER", str(folder("other"))))
    base = plan.variant("base").model
    assert runs(plan, "base") == runs(plan, "pruned") == [base]
    assert runs(plan, "healed") == runs(plan, "packed") == [base, plan.variant("healed").model]
    assert runs(plan, "retrained") == [base, plan.variant("healed").model, plan.variant("retrained").model]


def test_an_adopted_model_was_trained_apart_from_the_base(folder: FolderMaker) -> None:
    plan = plan_of(RECIPE.replace("OTHER", str(folder("other"))))
    assert runs(plan, "other") == runs(plan, "other-pruned") == [plan.variant("other").model]
    assert plan.variant("base").model not in runs(plan, "other")


PACKED = recorded("adopt", {"quantization": "gptq"}, weight_bits=4.2)


def test_an_adopted_quantized_model_with_the_parents_dimensions_is_a_copy_of_its_weights(folder: FolderMaker) -> None:
    plan = plan_of(RECIPE.replace("OTHER", str(folder("other"))))
    base, other = plan.variant("base").model, plan.variant("other").model
    assert runs(plan, "other", PACKED) == runs(plan, "other-pruned", PACKED) == [base]
    # A GGUF file of quantized weights may be of any model of the architecture.
    assert runs(plan, "other", recorded("adopt", {"quantized_before": "Q4_K, 4.5 bits"})) == [other]
    assert runs(plan, "other", recorded("adopt", {"quantization": "gptq"}, layers=24)) == [other]


def test_the_recipe_has_the_last_word_on_whether_an_adopted_model_was_trained_and_no_key_changes(folder: FolderMaker) -> None:
    path = str(folder("other"))
    plain, trained, copied = (plan_of(RECIPE.replace("OTHER", f"{path}{said}")) for said in ("", ", trained: true", ", trained: false"))
    assert runs(trained, "other", PACKED) == [trained.variant("other").model]
    assert runs(copied, "other", recorded("adopt")) == [copied.variant("base").model]
    assert plain.variant("other").model == trained.variant("other").model == copied.variant("other").model


def stored(folder: Path, embedding: torch.Tensor) -> Path:
    """A model folder with that embedding and packed weights."""
    folder.mkdir(parents=True)
    save_file({"model.layers.0.q.qweight": torch.ones(4, 4, dtype=torch.int32), "model.embed.weight": embedding}, folder / "a.safetensors")
    return folder


@pytest.fixture
def embedding() -> torch.Tensor:
    """That of a model with the dimensions of `recorded`."""
    return torch.randn(99, 64, generator=torch.Generator().manual_seed(1)) * 0.02


def test_an_adopted_quantized_model_with_another_embedding_was_trained(
    folder: FolderMaker, tmp_path: Path, embedding: torch.Tensor
) -> None:
    """A quantized Instruct model beside its Base: dimensions and architecture are equal."""
    plan, store = plan_of(RECIPE.replace("OTHER", str(folder("other")))), Store(tmp_path)
    base, other = plan.variant("base").model, plan.variant("other").model
    stored(store.folder(base) / "model", embedding.bfloat16())
    tuned = embedding.clone()
    tuned[3, 5] *= 1.1
    saved = stored(store.folder(other) / "model", tuned.half())
    assert runs(plan, "other", PACKED, store) == [other]
    save_file({"model.embed.weight": embedding.bfloat16().half()}, saved / "a.safetensors")
    assert runs(plan, "other", PACKED, store) == [base]


def test_embeddings_are_compared_but_for_rounding_and_only_where_both_can_be_read(tmp_path: Path, embedding: torch.Tensor) -> None:
    shape = recorded("base").shape
    base = stored(tmp_path / "base", embedding)
    for number, (same, other) in enumerate(
        [(True, embedding.half()), (True, embedding.bfloat16()), (False, embedding * 1.02), (None, torch.ones(99, 64, dtype=torch.int8))]
    ):
        assert same_embeddings(base, stored(tmp_path / str(number), other), shape) is same
    assert same_embeddings(base, tmp_path / "gone", shape) is None
    (tmp_path / "0" / "a.safetensors").write_bytes(b"damaged")
    assert same_embeddings(base, tmp_path / "0", shape) is None


def test_a_model_unpacked_from_a_rounded_file_has_no_embedding_to_compare(
    folder: FolderMaker, tmp_path: Path, embedding: torch.Tensor
) -> None:
    plan, store = plan_of(RECIPE.replace("OTHER", str(folder("other")))), Store(tmp_path)
    base, other = plan.variant("base").model, plan.variant("other")
    stored(store.folder(base) / "model", embedding * 1.1)
    stored(store.folder(other.model) / "model", embedding)
    unpacked = recorded("base", {"quantized_before": "Q4_1 (5 bits a weight)"})
    assert training_runs(other, plan, [unpacked, PACKED], store) == [base]
