"""The graph: shared prefixes are one node, names are those of the recipe if there is one, nodes come after those they need."""

from __future__ import annotations

import json
from pathlib import Path

from plan_helpers import CONFIG, HEAD, FolderMaker, plan_of, write_safetensors

from compresslab.plan.graph import Plan

PRUNE = "{prune: {method: depth, keep: 24}}"
DISTILL = "{distill: {tokens: 1000}}"
PACK = "{quantize: {method: bnb-nf4}}"


def names(plan: Plan) -> list[str]:
    return [variant.name for variant in plan.variants]


def parents(plan: Plan) -> dict[str, str]:
    return {variant.name: variant.parent for variant in plan.variants}


def models(plan: Plan) -> list[str]:
    return [node.variant for node in plan.of_kind("model")]


def in_order(plan: Plan) -> bool:
    """Whether each node comes after those that it needs."""
    met: set[str] = set()
    for node in plan.nodes:
        if not met.issuperset(node.needs):
            return False
        met.add(node.key)
    return True


def test_a_shared_prefix_is_one_node() -> None:
    plan = plan_of(f"variants:\n  a: [{PRUNE}, {DISTILL}]\n  b: [{PRUNE}, {PACK}]\n")
    assert parents(plan) == {"base": "", "a/1": "base", "a": "a/1", "b": "a/1"}
    assert models(plan) == ["base", "a/1", "a", "b"]
    assert not plan.variant("a/1").named
    assert plan.variant("a").named
    assert plan.variant("b").chain == (plan.variant("base").model, plan.variant("a/1").model, plan.variant("b").model)
    assert in_order(plan)


def test_a_prefix_that_the_recipe_names_is_known_by_that_name() -> None:
    expected = {"base": "", "pruned": "base", "healed": "pruned", "packed": "healed"}
    for text in (
        f"variants:\n  packed: [{PRUNE}, {DISTILL}, {PACK}]\n  healed: [{PRUNE}, {DISTILL}]\n  pruned: [{PRUNE}]\n",
        f"variants:\n  pruned: [{PRUNE}]\n  healed: {{from: pruned, steps: [{DISTILL}]}}\n  packed: [{PRUNE}, {DISTILL}, {PACK}]\n",
        f"variants:\n  packed: [{PRUNE}, {DISTILL}, {PACK}]\n  healed: {{from: pruned, steps: [{DISTILL}]}}\n  pruned: [{PRUNE}]\n",
    ):
        plan = plan_of(text)
        assert parents(plan) == expected
        assert all(variant.named for variant in plan.variants)
        assert in_order(plan)


def test_two_names_for_one_thing_are_two_variants_of_one_node() -> None:
    plan = plan_of(f"variants:\n  one: [{PRUNE}]\n  two: [{PRUNE}]\n  three: {{from: two, steps: [{PACK}]}}\n")
    assert parents(plan) == {"base": "", "one": "base", "two": "base", "three": "two"}
    assert models(plan) == ["base", "one", "three"]
    assert plan.variant("one").model == plan.variant("two").model
    assert plan.warnings == ("variants.two: made exactly like 'one', so both show the same results",)


def test_a_teacher_comes_first_and_is_needed() -> None:
    plan = plan_of(
        f"variants:\n  taught: [{PRUNE}, {{distill: {{teacher: big, tokens: 1000}}}}]\n"
        "  big: [{retrain: {method: full, tokens: 1000}}]\n"
    )
    taught = plan.node(plan.variant("taught").model)
    assert taught.other == plan.variant("big").model
    assert taught.needs == (plan.variant("taught/1").model, plan.variant("big").model)
    assert in_order(plan)


def test_the_base_as_teacher_and_parent_is_needed() -> None:
    plan = plan_of("variants: {a: [{distill: {teacher: base, tokens: 10, cross_entropy: 0.5}}]}")
    base = plan.variant("base").model
    assert plan.node(plan.variant("a").model).needs == (base, base)


def test_nodes_run_models_first_and_times_last() -> None:
    plan = plan_of(f"variants:\n  a: [{PRUNE}]\n")
    kinds = [node.kind for node in plan.nodes]
    assert kinds == ["machine", "model", "gather", "model", "evaluate", "evaluate", "measure", "measure"]
    assert [node.label for node in plan.nodes] == [
        "measure this machine", "load base", "calibrate base", "prune a", "evaluate base", "evaluate a", "time base", "time a",
    ]  # fmt: skip
    measure = plan.node(str(plan.variant("a").measure))
    assert measure.needs == (plan.variant("a").model, plan.variant("base").model)


def test_nothing_is_measured_that_is_not_asked_for() -> None:
    plan = plan_of("density: {hardware: [h100-sxm], measure: false}")
    assert {node.kind for node in plan.nodes} == {"model", "evaluate"}
    assert plan.variant("base").measure is None


def test_sweeps_become_variants() -> None:
    plan = plan_of("sweeps:\n  d-{k}: {grid: {k: [28, 26]}, steps: [{prune: {method: depth, keep: '{k}'}}]}\n")
    assert names(plan) == ["base", "d-28", "d-26"]


def test_models_that_may_change_are_told() -> None:
    adopt = "variants:\n  one: [{adopt: {model: owner/model@main}}]\n  two: [{adopt: {model: 'owner/model@0123abc'}}]\n"
    plan = plan_of(adopt, head=HEAD.replace("offline:smollm2-135m-instruct", "owner/base"))
    assert [warning.split(";")[0] for warning in plan.warnings] == [
        "base.model: owner/base names no @<commit>",
        "variants.one, adopt: owner/model names no @<commit>",
    ]


def test_code_that_may_change_is_told(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", {"w": [0]})
    named = {"AutoConfig": "owner/name--code.Config", "AutoModelForCausalLM": "owner/name--code.Model"}
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "model_type": "mine", "auto_map": named}))
    head = HEAD.replace("offline:smollm2-135m-instruct", str(tmp_path))
    (warning,) = plan_of("", head=head.replace("}", ", trust_remote_code: true}", 1)).warnings
    assert "runs code of owner/name on the hub, at no fixed commit" in warning


def test_texts_that_may_change_are_told_where_a_step_reads_them() -> None:
    texts = 'text: {calibration: {source: "hub:owner/texts"}, training: {source: "hub:owner/more@main"}}\n'
    assert plan_of(texts).warnings == (), "no step reads them"
    steps = "variants:\n  a: [{prune: {method: wanda, sparsity: 0.5}}]\n  b: [{retrain: {method: full, tokens: 10}}]\n"
    assert [warning.split(";")[0] for warning in plan_of(texts + steps).warnings] == [
        "text.calibration: owner/texts names no @<commit>",
        "text.training: owner/more names no @<commit>",
    ]
    pinned = texts.replace("owner/texts", "owner/texts@0123abc").replace("@main", "@0123abc")
    assert plan_of(pinned + steps).warnings == ()


def test_facts_follow_the_chain(folder: FolderMaker) -> None:
    plan = plan_of(
        f"variants:\n  a: [{PRUNE}, {{prune: {{method: width, keep: 0.5}}}}, {PACK}]\n"
        f"  b: {{from: a, steps: [{{adopt: {{model: {folder('m')}}}}}]}}\n"
    )
    dimensions = {variant.name: plan.node(variant.model).dimensions for variant in plan.variants}
    assert {name: (f.layers, f.intermediate) for name, f in dimensions.items() if f} == {
        "base": (30, 1536), "a/1": (24, 1536), "a/2": (24, 768), "a": (24, 768), "b": (4, 96),
    }  # fmt: skip
    assert dimensions["a"] == dimensions["a/2"]
