"""What is planned for nodes that hold one layer of a model, against what was measured (docs/measurements.md)."""

from __future__ import annotations

import json

import pytest
from plan_helpers import CONFIG, FolderMaker, plan_of, write_safetensors

from compresslab.methods.dimensions import Dimensions
from compresslab.methods.layerwise import Layers
from compresslab.plan.estimate import WORKER_BYTES, estimate


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


def test_a_base_that_is_not_stored_as_its_copy_would_be_is_planned_whole(folder: FolderMaker) -> None:
    shapes = {"model.embed_tokens.weight": [100, 64]}
    with_head = shapes | {"lm_head.weight": [100, 64]}
    plain = folder("plain", shapes=shapes, dtype="bfloat16")
    untied = folder("untied", shapes=with_head, dtype="bfloat16", tie_word_embeddings=False)
    tied = folder("tied", shapes=with_head, dtype="bfloat16", tie_word_embeddings=True)
    # Whether it is tied depends on the architecture: Gemma is, Llama is not.
    perhaps = folder("perhaps", shapes=with_head, dtype="bfloat16")
    unsaid = {name: value for name, value in CONFIG.items() if name != "tie_word_embeddings"}
    perhaps.joinpath("config.json").write_text(json.dumps(unsaid | {"dtype": "bfloat16"}))
    wide = folder("wide", dtype="float32")
    write_safetensors(wide / "model.safetensors", shapes, "F32")
    unstated = folder("unstated", shapes=shapes)
    packed = folder("packed", shapes=shapes, dtype="bfloat16", quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 32})

    def planned(path: object, dtype: str = "bfloat16") -> float:
        plan = plan_of("variants: {}", head=f"study: s\nbase: {{model: {path}, dtype: {dtype}}}\nevaluate: {{tasks: [csqa], items: 10}}\n")
        memory = estimate(next(iter(plan.of_kind("model"))), plan).memory
        assert memory is not None
        return memory

    assert planned(plain) < WORKER_BYTES
    assert planned(untied) < WORKER_BYTES
    assert planned(wide, "float32") < WORKER_BYTES
    for other in (wide, tied, perhaps, unstated, packed):
        assert planned(other) > WORKER_BYTES
    assert planned(plain, "float32") > WORKER_BYTES
