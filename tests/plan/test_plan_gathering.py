"""Data that several steps read of one model is one node, which runs only if one of the steps will run."""

from plan_helpers import plan_of

from compresslab.plan.graph import Plan


def gather_nodes(plan: Plan) -> dict[str, str]:
    """Label of each gather node -> the variants that read it."""
    return {
        node.label: " ".join(model.variant for model in plan.of_kind("model") if model.gathered == node.key)
        for node in plan.of_kind("gather")
    }


def test_one_pass_over_the_text_serves_every_step_on_one_model() -> None:
    plan = plan_of(
        "variants:\n"
        "  a: [{prune: {method: depth, keep: 24}}]\n"
        "  b: [{prune: {method: width, keep: 0.5}}]\n"
        "  c: [{prune: {method: wanda, sparsity: 0.5}}]\n"
        "  d: [{prune: {method: magnitude, sparsity: 0.5}}]\n"
        "  e: [{prune: {method: depth, keep: 24}}, {prune: {method: width, keep: 0.5}}]\n"
    )
    assert gather_nodes(plan) == {"calibrate base": "a b c", "calibrate a": "e"}


def test_second_moments_serve_those_too_who_need_less() -> None:
    plan = plan_of("variants:\n  a: [{prune: {method: depth, keep: 24}}]\n  b: [{prune: {method: sparsegpt, sparsity: 0.5}}]\n")
    assert gather_nodes(plan) == {"calibrate base": "a b"}
    assert next(plan.of_kind("gather")).gathers == "grams"


def test_what_a_step_gives_does_not_depend_on_who_else_reads_the_statistics() -> None:
    alone = plan_of("variants:\n  a: [{prune: {method: depth, keep: 24}}]\n")
    among = plan_of("variants:\n  a: [{prune: {method: depth, keep: 24}}]\n  b: [{prune: {method: sparsegpt, sparsity: 0.5}}]\n")
    assert alone.variant("a").model == among.variant("a").model
    assert next(alone.of_kind("gather")).key != next(among.of_kind("gather")).key


def test_the_greedy_order_of_a_sweep_is_found_once() -> None:
    plan = plan_of(
        'sweeps:\n  d-{keep}:\n    grid: {keep: [28, 26, 24]}\n    steps: [{prune: {method: depth, keep: "{keep}", by: loss}}]\n'
    )
    assert gather_nodes(plan) == {"order the layers of base": "d-28 d-26 d-24"}
    longer = plan_of(
        "variants:\n  a: [{prune: {method: depth, keep: 20, by: loss}}]\n  b: [{prune: {method: depth, keep: 28, by: loss}}]\n"
    )
    assert next(plan.of_kind("gather")).key != next(longer.of_kind("gather")).key


def test_stored_logits_are_shared_by_students_and_take_the_teacher_s_place() -> None:
    plan = plan_of(
        "variants:\n"
        "  small: [{prune: {method: depth, keep: 20}}]\n"
        "  a: {from: small, steps: [{distill: {tokens: 1000, top_k: 16}}]}\n"
        "  b: [{prune: {method: depth, keep: 24}}, {distill: {tokens: 2000, top_k: 16, method: jsd}}]\n"
        "  c: {from: small, steps: [{distill: {tokens: 1000, top_k: 32}}]}\n"
        "  d: {from: small, steps: [{distill: {tokens: 1000}}]}\n"
    )
    logits = [node for node in plan.of_kind("gather") if node.gathers == "logits"]
    by_name = {node.variant: node for node in plan.of_kind("model")}
    assert {node.label for node in logits} == {"store the logits of base"}
    assert {node.readers[0].top_k for node in logits} == {16, 32}
    assert by_name["a"].gathered == by_name["b"].gathered != by_name["c"].gathered
    assert (by_name["a"].other, by_name["d"].other) == (None, plan.variant("base").model)


def test_training_until_the_parent_looks_at_the_model_before_the_last_prune_step() -> None:
    plan = plan_of(
        "variants:\n"
        "  a: [{prune: {method: depth, keep: 24}}]\n"
        "  b: {from: a, steps: [{prune: {method: width, keep: 0.5}}, {retrain: {method: full, tokens: 1000, until: parent}}]}\n"
        "  c: {from: a, steps: [{retrain: {method: lora, tokens: 1000, until: b}}]}\n"
    )
    by_name = {node.variant: node for node in plan.of_kind("model")}
    assert by_name["b"].other == plan.variant("a").model
    assert by_name["c"].other == plan.variant("b").model


def test_the_plan_says_what_stored_logits_lose_of_the_reverse_kl() -> None:
    said = {
        method: [
            one
            for one in plan_of(f"variants: {{v: [distill: {{cross_entropy: 0.5, tokens: 9, {method}}}]}}").warnings
            if "stored" in one or "top_k" in one
        ]
        for method in ("method: reverse-kl, top_k: 64", "method: reverse-kl", "method: forward-kl, top_k: 64")
    }
    (warning,) = said.pop("method: reverse-kl, top_k: 64")
    assert warning.startswith("variants.v, distill: reverse-kl with top_k: 64 sees as one event all tokens but the teacher's 64 largest")
    assert list(said.values()) == [[], []]
