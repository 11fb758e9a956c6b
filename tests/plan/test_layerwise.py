"""What is planned for nodes that hold one layer of a model, against what was measured (docs/measurements.md)."""

from __future__ import annotations

import pytest

from compresslab.methods.dimensions import Dimensions
from compresslab.methods.layerwise import Layers


def dimensions(hidden: int, width: int, layers: int, heads: int, groups: int, head: int, vocabulary: int) -> Dimensions:
    found = Dimensions(0, layers, hidden, width, vocabulary, 3 * hidden * width, 2 * hidden, groups, heads // groups, head, True, True)
    return found._replace(parameters=found.computed_parameters)


# The models of benchmarks/large.py, in bfloat16.
LARGE = Layers(dimensions(3072, 8192, 28, 24, 8, 128, 128256), 2, 2)
MEDIUM = Layers(dimensions(2048, 8192, 16, 32, 8, 64, 128256), 2, 2)


def test_the_estimated_parameters_are_those_of_the_model() -> None:
    assert LARGE.model.parameters == 3_212_749_824
    assert MEDIUM.model.parameters == 1_235_814_400


@pytest.mark.parametrize(
    ("planned", "measured"),
    [
        (LARGE.loading, 0.885e9),
        (LARGE.gathering(1024, grams=False), 0.838e9),
        (MEDIUM.loading, 0.685e9),
        (MEDIUM.gathering(1024, grams=True), 1.1e9),
        (LARGE.step(grams=False, cuts=True), 0.783e9),
        (LARGE.step(grams=False), 1.192e9),
        (LARGE.step(grams=False), 1.571e9),
    ],
)
def test_planned_memory_is_within_a_factor_of_what_was_measured(planned: float, measured: float) -> None:
    assert 1 / 1.3 < planned / measured < 1.3


def test_a_layer_in_another_dtype_is_held_twice() -> None:
    assert LARGE._replace(computed=4).layer == 3 * LARGE.layer


def test_a_mixture_of_experts_is_not_held_by_layers() -> None:
    experts = LARGE.model._replace(mlp_parameters=8 * LARGE.model.mlp_parameters)
    assert not LARGE._replace(model=experts).possible
    assert LARGE.possible
