"""Plans of studies that compare variants with their parents on a text."""

from __future__ import annotations

from pathlib import Path

import pytest
from plan_helpers import HEAD, FolderMaker, plan_of

from compresslab.plan.advice import _parts
from compresslab.plan.estimate import estimate
from compresslab.plan.graph import Plan
from compresslab.recipe.places import RecipeError
from compresslab.store.done import RECORDS

STUDY = """
variants:
  depth: [{prune: {method: depth, keep: 24}}]
  packed: {from: depth, steps: [{quantize: {method: rtn, group_size: 64}}]}
"""


def compared(fidelity: str, study: str = STUDY, head: str = HEAD) -> Plan:
    return plan_of(study, head=head.replace("items: 10", f"items: 10, fidelity: {fidelity}"))


def keys(plan: Plan) -> dict[str, str | None]:
    return {variant.name: variant.fidelity for variant in plan.variants}


def test_every_variant_is_compared_with_its_parent_and_the_base_with_nothing() -> None:
    plan = compared("{source: installed-docs}")
    nodes = {node.variant: node for node in plan.of_kind("fidelity")}
    assert set(nodes) == {"depth", "packed"}
    models = {variant.name: variant.model for variant in plan.variants}
    assert nodes["packed"].needs == (models["packed"], models["depth"])
    assert nodes["packed"].label == "compare packed with its parent"
    assert plan.variant("packed").keys["fidelity"] == nodes["packed"].key
    assert plan.variant("base").fidelity is None
    assert set(RECORDS) >= {node.kind for node in plan.nodes}


def test_the_stored_logits_of_the_study_are_part_of_the_comparison() -> None:
    """What a distillation's `top_k` sees of the divergence is told beside it, so the key depends on it, in its own chain alone."""
    more = "  healed: [{prune: {method: depth, keep: 20}}, {distill: {tokens: 1000, top_k: TOP}}]\n"
    plain, few, many = (
        compared("{source: installed-docs}", STUDY + text) for text in ("", more.replace("TOP", "8"), more.replace("TOP", "64"))
    )
    told = [{node.variant: node.top_ks for node in plan.of_kind("fidelity")} for plan in (plain, few, many)]
    assert [one.get("healed") for one in told] == [None, (8,), (64,)]
    assert [(one["depth"], one["packed"]) for one in told] == [((), ())] * 3
    assert keys(few)["healed"] != keys(many)["healed"]
    assert {name: key for name, key in keys(few).items() if not name.startswith("healed")} == keys(plain)
    tail = "  later: {from: healed, steps: [{quantize: {method: rtn, group_size: 64}}]}\n"
    later = compared("{source: installed-docs}", STUDY + more.replace("TOP", "8") + tail)
    assert {node.variant: node.top_ks for node in later.of_kind("fidelity")}["later"] == (8,)
    without = compared("{source: installed-docs}", STUDY + more.replace(", top_k: TOP", ""))
    assert keys(without)["depth"] == keys(plain)["depth"]
    assert keys(without)["healed"] != keys(few)["healed"]


def test_a_study_compares_nothing_unless_it_says_so() -> None:
    plan = plan_of(STUDY)
    assert not list(plan.of_kind("fidelity"))
    assert set(keys(plan).values()) == {None}
    with_text = compared("{source: installed-docs}")
    assert [variant.evaluate for variant in plan.variants] == [variant.evaluate for variant in with_text.variants]


@pytest.mark.parametrize("setting", ["tokens: 4096", "length: 256", "seed: 1"])
def test_another_text_gives_another_comparison(setting: str) -> None:
    one, other = keys(compared("{source: installed-docs}")), keys(compared(f"{{source: installed-docs, {setting}}}"))
    assert {name for name in one if one[name] != other[name]} == {"depth", "packed"}


def test_another_parent_gives_another_comparison_with_it() -> None:
    one, other = keys(compared("{source: installed-docs}")), keys(compared("{source: installed-docs}", STUDY.replace("24", "20")))
    assert {name for name in one if one[name] != other[name]} == {"depth", "packed"}


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    path, copy = tmp_path / "a.txt", tmp_path / "b.txt"
    for file in (path, copy):
        file.write_text("some text")
    before = keys(compared(f"{{source: {path}}}"))
    assert keys(compared(f"{{source: {copy}}}")) == before
    path.write_text("another text")
    assert keys(compared(f"{{source: {path}}}")) != before


def test_a_text_that_is_not_there_is_told_at_its_place() -> None:
    with pytest.raises(RecipeError, match=r"evaluate\.fidelity\.source: no text file at gone\.txt"):
        compared("{source: gone.txt}")


def test_both_models_are_in_memory_and_every_token_takes_a_pass_of_each() -> None:
    plan = compared("{source: installed-docs}")
    [depth, _] = plan.of_kind("fidelity")
    few, many = estimate(depth, plan), estimate(depth, compared("{source: installed-docs, tokens: 81920}"))
    base, own = plan.node(plan.variant("base").model).dimensions, depth.dimensions
    assert base is not None
    assert own is not None
    assert few.memory is not None
    assert few.memory >= 2 * (base.parameters + own.parameters)
    assert few.seconds is not None
    assert many.seconds is not None
    assert many.seconds > 5 * (few.seconds - 2.5)
    assert [nodes for what, _, nodes in _parts(plan, plan.nodes) if what == "comparing with parents"] == [list(plan.of_kind("fidelity"))]


def test_an_adopted_model_of_another_vocabulary_is_refused(folder: FolderMaker) -> None:
    base, other = folder("base", "a b c"), folder("other", "a c b")
    head = HEAD.replace("offline:smollm2-135m-instruct", str(base))
    text = f"variants:\n  t: [adopt: {{model: {other}}}]\n"
    plan_of(text, head=head)
    with pytest.raises(
        RecipeError, match=r"variants\.t\[0\]\.adopt\.model: .*other has another tokenizer than its parent .*base, so their"
    ):
        compared("{source: installed-docs}", text, head)


def test_text_that_a_step_reads_is_told() -> None:
    healed = "variants:\n  healed: [{distill: {cross_entropy: 0.5, tokens: 1000}}]\n"
    said = "evaluate.fidelity: installed-docs#{} shares documents with text.training, so variants are compared on text that steps"
    for part in ("all", "training"):
        warnings = compared(f"{{source: 'installed-docs#{part}', seed: 1}}", healed).warnings
        assert any(warning.startswith(said.format(part)) for warning in warnings)
        assert not any("text.training" in warning for warning in compared(f"{{source: 'installed-docs#{part}'}}").warnings)
    assert not any("shares documents" in warning for warning in compared("{source: installed-docs}", healed).warnings)


def test_published_scores_have_no_models_to_compare() -> None:
    head = "study: s\nbase: {model: published:a/b}\nevaluate: {source: published, fidelity: {source: installed-docs}}\n"
    with pytest.raises(RecipeError, match="no model runs that could be compared"):
        plan_of("", head=head)
