"""Which text a step reads."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from compresslab.models.text import TokenSequences, calibration_tokens, training_tokens
from compresslab.recipe.schema import Text
from compresslab.recipe.steps import Distill, RetrainFull, RetrainLoRA, StepConfig
from compresslab.registry import Method


def text_for(entry: Method, config: StepConfig, texts: Text, tokenizer: PreTrainedTokenizerBase) -> TokenSequences | None:
    """The calibration or training text of a recipe, as the step's method reads it; `None` for a method that reads none.

    Raises:
        BadInput: a source that is not there or has too little text.
    """
    if entry.text == "calibration":
        return calibration_tokens(texts.calibration, tokenizer)
    if isinstance(config, Distill | RetrainFull | RetrainLoRA):
        return training_tokens(texts.training, tokenizer, config.tokens)
    return None
