"""The keyword of a model's cache, with its current and earlier names."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import PreTrainedModel

from compresslab.evaluation.engines.cache_name import cache_name


class New:
    def forward(self, input_ids: Any, cache: Any = None, **kwargs: Any) -> None: ...


class Old:
    def forward(self, input_ids: Any, past_key_values: Any = None) -> None: ...


class Recurrent:
    def forward(self, input_ids: Any, cache_params: Any = None) -> None: ...


@pytest.mark.parametrize(("model", "name"), [(New(), "cache"), (Old(), "past_key_values"), (Recurrent(), "cache_params")])
def test_the_cache_goes_by_the_name_that_the_models_own_code_gives_it(model: PreTrainedModel, name: str):
    assert cache_name(model) == name


def test_a_forward_that_somebody_wrapped_does_not_hide_the_name(monkeypatch: pytest.MonkeyPatch, llama: PreTrainedModel):
    name = cache_name(llama)
    monkeypatch.setattr(llama, "forward", lambda *_, **__: None)
    assert cache_name(llama) == name
