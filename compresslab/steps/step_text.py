"""The text of a step."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

from compresslab.methods.method import Method
from compresslab.methods.settings import StepConfig
from compresslab.models.text import TokenSequences, calibration_tokens, training_tokens
from compresslab.recipe.schema import Text


def text_for(entry: Method[Any], config: StepConfig, texts: Text, tokenizer: PreTrainedTokenizerBase) -> TokenSequences | None:
    """The tokens of calibration or training text that the step's method reads; `None` for a method that reads none.

    Raises:
        BadInput: a source does not exist or has too little text.
    """
    if entry.text == "calibration":
        return calibration_tokens(texts.calibration, tokenizer)
    if entry.text == "training":
        return training_tokens(texts.training, tokenizer, config.training_tokens)
    return None
