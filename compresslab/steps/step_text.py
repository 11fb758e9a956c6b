"""The text of a step."""

from __future__ import annotations

from typing import Any

from compresslab.methods.method import Method
from compresslab.methods.settings import StepConfig
from compresslab.models.load import Loaded
from compresslab.models.text import TokenSequences, calibration_tokens, training_tokens
from compresslab.models.vocabulary import check_readable
from compresslab.recipe.schema import Text


def text_for(entry: Method[Any], config: StepConfig, texts: Text, loaded: Loaded) -> TokenSequences | None:
    """The tokens of calibration or training text that the step's method reads; `None` for a method that reads none.

    Raises:
        BadInput: a source does not exist, has too little text, or has tokens or lengths that the model cannot look up.
    """
    if entry.text == "calibration":
        text = calibration_tokens(texts.calibration, loaded.tokenizer)
    elif entry.text == "training":
        text = training_tokens(texts.training, loaded.tokenizer, config.training_tokens)
    else:
        return None
    check_readable(text, loaded, f"the text {getattr(texts, entry.text).source!r}")
    return text
