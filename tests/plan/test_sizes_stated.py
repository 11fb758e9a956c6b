"""Parameters counted from a config.json are those of transformers' own model of that configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from models.tiny import ARCHITECTURES, COMMON, GROUPED
from transformers import AutoConfig

from compresslab.errors import BadInput
from compresslab.models.anatomy import parameters_of
from compresslab.models.counting.lookups import lookups
from compresslab.models.counting.size import plain_skeleton
from compresslab.plan.user_tables.sizes import COUNTED, size_from_config, stated_size

OWN = {
    **{name: one for name, one in ARCHITECTURES.items() if one[0] in COUNTED and name != "llama-tied"},
    "llama-tied": ("llama", {**GROUPED, "tie_word_embeddings": True}),
    "phi3": ("phi3", {**GROUPED, "tie_word_embeddings": False}),
    "gemma": ("gemma", {**GROUPED, "head_dim": 16}),
}


@pytest.mark.parametrize("name", OWN)
def test_the_count_is_that_of_the_model(tmp_path: Path, name: str) -> None:
    kind, settings = OWN[name]
    AutoConfig.for_model(kind, **{**COMMON, **settings}).save_pretrained(tmp_path)
    model = plain_skeleton(tmp_path)
    size, _ = size_from_config(tmp_path / "config.json")
    assert size.parameters == parameters_of(model)
    assert size.counted == size.active == size.parameters - sum(lookups(model).values())


def test_every_architecture_that_is_counted_is_compared() -> None:
    assert {kind for kind, _ in OWN.values()} == set(COUNTED)


@pytest.mark.parametrize("name", ["llama-tied", "gpt-neox", "qwen3-moe", "gemma3"])
def test_what_the_dimensions_do_not_tell_is_refused(tmp_path: Path, name: str) -> None:
    kind, settings = ARCHITECTURES[name]
    AutoConfig.for_model(kind, **{**COMMON, **settings}).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match=r"cannot be counted from its dimensions alone .*; state the number of its parameters instead"):
        size_from_config(tmp_path / "config.json")


def test_a_stated_size_that_no_model_has() -> None:
    with pytest.raises(BadInput, match="7 is no number of parameters"):
        stated_size(7)
    with pytest.raises(BadInput, match="400 bits a weight are not possible"):
        stated_size(1e9, 400)
    size, shape = stated_size(1e9, 4.5)
    assert (size.counted, size.stored_bytes, shape.weight_bits) == (10**9, 562_500_000, 4.5)
