"""The advice of a plan for a long study."""

from __future__ import annotations

from pathlib import Path

import pytest

from compresslab.plan.advice import LONG_SECONDS, advice
from compresslab.plan.graph import Plan
from compresslab.plan.prepare import prepare

RECIPE = """
study: long
base: {model: offline:smollm2-135m-instruct}
variants:
  depth: [{prune: {method: depth, keep: 24, by: loss}}]
  healed: {from: depth, steps: [{distill: {tokens: 9_000_000, top_k: 8}}]}
  packed: [{quantize: {method: gptq, bits: 4, group_size: 32}}]
evaluate: {tasks: [arc_easy, csqa], items: 400}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    path = tmp_path / "long.yaml"
    path.write_text(RECIPE)
    return prepare(path)


def taking(plan: Plan, **seconds: float) -> dict[str, float | None]:
    """Estimates by kind of node, or by the data of a gather node; all others have none."""
    kinds = {node.key: node.gathers or (node.step[0] if node.step else node.kind) for node in plan.nodes}
    return {key: seconds.get(kind) for key, kind in kinds.items()}


def test_an_hour_calls_for_no_advice(plan: Plan) -> None:
    assert advice(plan, taking(plan, distill=LONG_SECONDS)) == []
    assert advice(plan, taking(plan)) == []
    assert advice(plan, {}) == []


def test_the_longest_nodes_and_the_settings_that_shrink_them_are_named(plan: Plan) -> None:
    sentences = advice(plan, taking(plan, distill=5000, evaluate=500, measure=500, removals=600, grams=600, logits=600))
    assert sentences[0] == "most of the time goes to distill healed (46%), order the layers of base (6%), store the logits of base (6%)"
    assert sentences[1:] == [
        "evaluation takes 19%; less with fewer items (evaluate.items is 400; or --limit) or fewer tasks (evaluate.tasks names 2)",
        "training takes 46%; less with fewer tokens in the steps of healed (9,000,000)",
        "storing logits takes 6%; less with fewer tokens in the distill steps, or in text.training.tokens (60,000)",
        "calibration takes 6%; less with fewer calibration tokens (text.calibration: 32 samples of 256)",
        "ordering layers by loss takes 6%; less with by: block-influence, or fewer calibration tokens "
        "(text.calibration: 32 samples of 256)",
        "timing takes 19%; less with density.measure: false, or a smaller density.workload (512 + 128 tokens, batch 1)",
        "--only VARIANT runs one of the 3 variants and what it needs",
    ]


def test_what_takes_little_is_not_worth_shrinking(plan: Plan) -> None:
    sentences = advice(plan, taking(plan, distill=50_000, evaluate=10))
    assert [line.split(" takes ")[0] for line in sentences if " takes " in line] == ["training"]
