"""The training runs behind the variants of a study."""

from __future__ import annotations

from plan_helpers import FolderMaker, plan_of

from compresslab.plan.graph import Plan
from compresslab.studies.assemble import _training_runs

RECIPE = """
variants:
  pruned: [{prune: {method: depth, keep: 24}}]
  healed: {from: pruned, steps: [{distill: {tokens: 1000}}]}
  packed: {from: healed, steps: [{quantize: {method: bnb-nf4}}]}
  retrained: {from: healed, steps: [{retrain: {method: lora, tokens: 1000}}]}
  other: [{adopt: {model: OTHER}}]
  other-pruned: {from: other, steps: [{prune: {method: depth, keep: 3}}]}
"""


def runs(plan: Plan, name: str) -> list[str]:
    return _training_runs(plan.variant(name), plan)


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
