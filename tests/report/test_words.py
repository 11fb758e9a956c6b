"""Numbers and steps in words."""

from __future__ import annotations

import pytest

from compresslab.recipe.steps import Step
from compresslab.report.words import budget, step, times
from report.studies import quickstart


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"prune": {"method": "width", "keep": 0.75}}, "prune width (keep 0.75)"),
        ({"prune": {"method": "width", "groups": 0.5}}, "prune width (groups 0.5)"),
        ({"prune": {"method": "width", "hidden": 512}}, "prune width (hidden 512)"),
        ({"prune": {"method": "width", "keep": 0.75, "groups": 2, "hidden": 0.5}}, "prune width (keep 0.75, groups 2, hidden 0.5)"),
        ({"prune": {"method": "width", "parameters": 100_000_000}}, "prune width (parameters 100 M)"),
        ({"prune": {"method": "depth", "parameters": 0.8}}, "prune depth (parameters 0.8)"),
        ({"prune": {"method": "wanda", "pattern": "2:4"}}, "prune wanda (pattern 2:4)"),
        ({"quantize": {"method": "gptq", "bits": 3, "group_size": 64}}, "quantize gptq (bits 3, group size 64)"),
        ({"quantize": {"method": "bnb-nf4"}}, "quantize bnb-nf4"),
    ],
)
def test_a_label_names_the_settings_that_tell_steps_of_one_method_apart(given: dict[str, dict[str, object]], expected: str):
    made = Step.model_validate(given)
    record = (
        quickstart()
        .variants[1]
        .steps[-1]
        .model_copy(
            update={"kind": made.kind, "method": made.config.method, "config": made.config.model_dump(mode="json"), "tokens_seen": 0}
        )
    )
    assert step(record) == expected


@pytest.mark.parametrize(
    ("tokens", "per_parameter", "expected"), [(1e12, None, "1 T tokens"), (None, 200.0, "200 tokens a parameter"), (None, None, "–")]
)
def test_d0_is_one_number_of_tokens_or_one_for_each_parameter(tokens: float | None, per_parameter: float | None, expected: str):
    density = quickstart().variants[0].density
    assert density is not None
    assert budget(density.model_copy(update={"tokens": tokens, "tokens_per_parameter": per_parameter})) == expected


@pytest.mark.parametrize(
    ("factor", "expected"), [(0.8149, "×0.81"), (0.99, "×0.99"), (0.9964, "×0.996"), (0.9997, "×1.00"), (1.0, "×1.00"), (1.418, "×1.42")]
)
def test_a_factor_of_almost_one_is_written_like_one_of_one(factor: float, expected: str):
    assert times(factor) == expected
