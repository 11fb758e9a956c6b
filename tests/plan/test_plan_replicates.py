"""Replicates in recipes and plans: what they are called, which results they share, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from plan_helpers import HEAD, plan_of

from compresslab.cli.plan import _replicates, costs
from compresslab.errors import BadInput, RecipeError
from compresslab.plan.graph import Node, Plan
from compresslab.plan.replicates import with_text_seeds
from compresslab.recipe.load import loads
from compresslab.store.store import Store
from compresslab.studies.compress import compress

RECIPE = """
variants:
  pruned: [{prune: {method: depth, keep: 24}}]
  healed: {from: pruned, steps: [{distill: {tokens: 1000, seed: 5}, replicates: 3}]}
  packed: {from: healed, steps: [{quantize: {method: rtn}}]}
"""
CHAIN = """
variants:
  healed: [{prune: {method: depth, keep: 24}}, {distill: {tokens: 1000}, replicates: 2}, {quantize: {method: rtn}}]
"""


def variant(step: str) -> str:
    return f"variants: {{one: [{step}]}}\n"


def model(plan: Plan, name: str) -> Node:
    return plan.node(plan.variant(name).model)


def test_the_first_replicate_is_the_variant_and_keeps_every_key() -> None:
    plain, replicated = plan_of(RECIPE.replace(", replicates: 3", "")), plan_of(RECIPE)
    assert {node.key for node in plain.nodes} < {node.key for node in replicated.nodes}
    for name in ("base", "pruned", "healed", "packed"):
        assert plain.variant(name).keys == replicated.variant(name).keys


def test_each_further_replicate_has_other_seeds_and_its_own_results() -> None:
    plan = plan_of(RECIPE)
    assert [one.name for one in plan.variants] == ["base", "pruned", "healed", "packed", "healed~2", "healed~3"]
    assert plan.variant("healed").replicates == ("healed~2", "healed~3")
    assert plan.variant("healed").replicated == plan.variant("healed").model
    nodes = [model(plan, name) for name in ("healed", "healed~2", "healed~3")]
    assert [node.step[1].seed for node in nodes if node.step] == [5, 6, 7]
    assert [node.replicate for node in nodes] == [0, 1, 2]
    assert len({node.key for node in nodes}) == 3
    for name in ("healed~2", "healed~3"):
        one = plan.variant(name)
        assert (one.parent, one.named, one.replicate_of, one.replicates) == ("pruned", False, "healed", ())
        assert one.measure is None, "a replicate is as fast as the variant"
        assert plan.node(one.evaluate).tasks.keys() == {"arc_easy", "csqa"}


def test_other_variants_go_on_from_the_first_replicate() -> None:
    plan = plan_of(RECIPE)
    assert plan.variant("packed").chain[-2] == plan.variant("healed").model
    assert plan.variant("packed").replicates == ()


def test_the_steps_after_the_replicated_one_are_made_on_each_replicate() -> None:
    plan = plan_of(CHAIN)
    assert [one.name for one in plan.variants] == ["base", "healed/1", "healed/2", "healed", "healed~2/2", "healed~2"]
    assert plan.variant("healed").replicates == ("healed~2",)
    assert plan.variant("healed/2").replicates == ("healed~2/2",)
    assert plan.variant("healed").replicated == plan.variant("healed/2").model == plan.variant("healed/2").replicated
    assert plan.variant("healed~2").replicate_of == "healed"
    assert plan.variant("healed~2/2").replicate_of == "healed/2"
    assert plan.variant("healed~2/2").parent == "healed/1"
    assert plan.variant("healed/1").replicates == ()
    assert model(plan, "healed~2").replicate == 0, "only the replicated step reads the text in another order"


def test_replicates_of_a_calibrated_step_read_another_sample_of_the_text() -> None:
    plan = plan_of(variant("{prune: {method: depth, keep: 24}, replicates: 2}") + "text: {calibration: {seed: 7}}\n")
    gathers = {node.replicate: node for node in plan.of_kind("gather")}
    assert set(gathers) == {0, 1}
    assert model(plan, "one~2").gathered == gathers[1].key != gathers[0].key == model(plan, "one").gathered
    seeds = [with_text_seeds(plan.recipe, number).text.calibration.seed for number in (0, 1)]
    assert seeds == [7, 8]


def test_a_replicate_of_a_training_step_reads_the_text_in_another_order() -> None:
    """The seed of a full distillation alone decides nothing: the order of the text does."""
    plan = plan_of(RECIPE)
    same_seed = RECIPE.replace("seed: 5}, replicates: 3", "seed: 6}")
    assert model(plan, "healed~2").key != model(plan_of(same_seed), "healed").key
    other_text = plan_of(same_seed + "text: {training: {seed: 1}}\n")
    assert model(plan, "healed~2").key == model(other_text, "healed").key


def test_stored_logits_are_those_of_the_text_that_the_replicate_reads() -> None:
    plan = plan_of(variant("{distill: {cross_entropy: 0.5, tokens: 1000, top_k: 8}, replicates: 2}"))
    gathers = {node.replicate: node.key for node in plan.of_kind("gather")}
    assert len(set(gathers.values())) == 2
    assert model(plan, "one~2").gathered == gathers[1]


def test_variants_that_begin_alike_share_their_replicates() -> None:
    plan = plan_of("""
variants:
  one: [{distill: {cross_entropy: 0.5, tokens: 1000, method: jsd, on_policy: 0.5}, replicates: 2}]
  two: [{distill: {cross_entropy: 0.5, tokens: 1000, method: jsd, on_policy: 0.5}, replicates: 3}, {quantize: {method: rtn}}]
""")
    assert plan.variant("one").replicates == ("one~2", "two~3/1")
    assert plan.variant("two").replicates == ("two~2", "two~3")
    assert plan.variant("two").parent == "one"
    assert plan.variant("two~2").parent == "one~2"
    assert {one.name: one.replicate_of for one in plan.variants if one.replicate_of} == {
        "one~2": "one",
        "two~3/1": "one",
        "two~2": "two",
        "two~3": "two",
    }


@pytest.mark.parametrize("value", ["0", "-1", "21", "2.5", "'3'", "three", "true", "[3]"])
def test_a_number_of_replicates_that_makes_no_sense_is_one_error_in_its_place(value: str) -> None:
    with pytest.raises(RecipeError) as raised:
        loads(HEAD + variant(f"{{distill: {{tokens: 1000}}, replicates: {value}}}"), "r.yaml")
    assert str(raised.value).startswith("1 problem")
    assert "[0].replicates: " in str(raised.value)
    assert "a whole number of at least 1 and of at most 20" in str(raised.value)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ("{quantize: {method: rtn}, replicates: 3}", "quantize rtn reads no text and draws nothing"),
        ("{prune: {method: magnitude, sparsity: 0.5}, replicates: 3}", "prune magnitude reads no text"),
        ("{adopt: {model: offline:smollm2-135m-instruct}, replicates: 3}", "an adopted model is taken as it is"),
        ("{distill: {tokens: 1000, replicates: 3}}", "replicates stands beside the step's kind"),
        ("{quantize: {method: rtn, replicates: 3}}", "replicates stands beside the step's kind"),
        ("{distill: {tokens: 1000, seed: 4294967295}, replicates: 2}", "lower seed"),
        ("{distill: {tokens: 9}, replicates: 2}, {distill: {tokens: 9}, replicates: 2}", "2 steps have replicates; keep one"),
    ],
)
def test_replicates_that_cannot_differ_are_refused_with_one_sentence(step: str, reason: str) -> None:
    with pytest.raises(RecipeError) as raised:
        loads(HEAD + variant(step), "r.yaml")
    assert reason in str(raised.value)
    assert str(raised.value).startswith("1 problem")


def test_seeds_of_a_text_that_leave_no_room_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"lower text\.calibration\.seed"):
        plan_of(variant("{prune: {method: depth, keep: 24}, replicates: 2}") + "text: {calibration: {seed: 4294967295}}\n")


def test_plan_says_what_the_replicates_add(tmp_path: Path) -> None:
    plan, store = plan_of(RECIPE), Store(tmp_path)
    (line,) = _replicates(plan, costs(plan, store))
    assert line.startswith("replicates are 4 nodes of these, about ")
    plain = plan_of(RECIPE.replace(", replicates: 3", ""))
    assert _replicates(plain, costs(plain, store)) == []


def test_one_replicate_is_none() -> None:
    assert plan_of(variant("{quantize: {method: rtn}, replicates: 1}")).variant("one").replicates == ()


def test_a_program_that_applies_one_step_makes_one_model(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="one model is made here"):
        compress("offline:smollm2-135m-instruct", {"distill": {"tokens": 1000}, "replicates": 2}, tmp_path / "out")
