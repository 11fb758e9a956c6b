"""Warnings of a plan where a published law says that a setting collapses."""

from __future__ import annotations

import pytest
from plan_helpers import FolderMaker, plan_of

from compresslab.density.published_laws.law import short

HEAD = "study: s\nbase: {{model: offline:smollm2-135m-instruct{tokens}}}\nevaluate: {{tasks: [arc_easy, csqa], items: 10}}\n"
KNOWN, UNKNOWN = HEAD.format(tokens=", train_tokens: 2_000_000_000_000"), HEAD.format(tokens="")


def warnings(steps: str, head: str = KNOWN) -> list[str]:
    plan = plan_of(f"variants:\n  v: [{steps}]\n", head=head)
    return [warning for warning in plan.warnings if "arXiv" in warning]


def test_two_bits_of_a_small_model_of_many_tokens_collapse() -> None:
    [warning] = warnings("{quantize: {method: gptq, bits: 2, group_size: 32}}")
    # 6.03 nats by the formula, over e^1.1277; a size of 3.4% has the loss of the base plus so much.
    assert warning == (
        "variants.v, quantize: Kumar et al. 2024 (arXiv 2411.04330) predict at least 2 nats a token more at 2 bits, the loss of a model of "
        "3.4% of the size on as many tokens. Outside the law's fit: 2T training tokens (fitted on 1.5B to 26B), 2 bits (fitted on 3 to 16)."
    )


@pytest.mark.parametrize("bits", [4, 8])
def test_usual_widths_do_not(bits: int) -> None:
    assert warnings(f"{{quantize: {{method: rtn, bits: {bits}, group_size: 32}}}}") == []


def test_nothing_is_said_without_the_training_tokens() -> None:
    assert warnings("{quantize: {method: gptq, bits: 2, group_size: 32}}", UNKNOWN) == []


def test_nothing_is_said_of_models_larger_than_those_of_the_law(folder: FolderMaker) -> None:
    large = {"num_hidden_layers": 40, "hidden_size": 4096, "intermediate_size": 16384, "num_attention_heads": 32, "num_key_value_heads": 8}
    head = KNOWN.replace("offline:smollm2-135m-instruct", str(folder("large", **large)))
    assert warnings("{quantize: {method: gptq, bits: 2, group_size: 32}}", head) == []


@pytest.mark.parametrize("step", ["{method: magnitude, sparsity: 0.8}", "{method: depth, keep: 8}"])
def test_most_weights_gone_without_training_collapse(step: str) -> None:
    [warning] = warnings(f"{{prune: {step}}}", UNKNOWN)
    assert warning.endswith("collapse from 70% on.")


@pytest.mark.parametrize(
    "steps",
    ["{prune: {method: magnitude, sparsity: 0.6}}", "{prune: {method: depth, keep: 8}}, {retrain: {method: full, tokens: 1000}}"],
)
def test_fewer_weights_gone_or_training_after_it_do_not(steps: str) -> None:
    assert warnings(steps) == []


def test_training_in_a_variant_that_goes_on_counts_too() -> None:
    cut = "variants:\n  v: [{prune: {method: depth, keep: 8}}]\n"
    healed = "  w: {from: v, steps: [{quantize: {method: bnb-nf4}}]}\n"
    assert len([one for one in plan_of(cut + healed, head=UNKNOWN).warnings if "arXiv" in one]) == 1
    trained = "  w: {from: v, steps: [{retrain: {method: full, tokens: 1000}}]}\n"
    assert not [one for one in plan_of(cut + trained, head=UNKNOWN).warnings if "arXiv" in one]


def test_cuts_of_one_chain_add_up() -> None:
    [warning] = warnings("{prune: {method: depth, keep: 14}}, {prune: {method: depth, keep: 7}}", UNKNOWN)
    assert warning.startswith("variants.v, prune: 77% of the weights go")


def test_numbers_are_short() -> None:
    assert [short(value) for value in (2e12, 106_203_456, 1.5e9, 4, 0.35)] == ["2T", "106M", "1.5B", "4", "0.35"]
