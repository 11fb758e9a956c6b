"""The parameters of a model that are looked up and multiply no activations."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel


def lookups(model: PreTrainedModel) -> dict[str, int]:
    """The number of elements of each table that no product reads, by the name of its weight.

    These are the weights of all embeddings: of tokens, of positions (GPT-2, OPT), of tokens for each layer (Gemma 3n, Gemma 4). An
    embedding that is also the weight of a linear layer, such as a tied output head, is multiplied.
    """
    multiplied = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    if getattr(model.config.get_text_config(), "tie_word_embeddings", False):
        multiplied.add(id(model.get_input_embeddings().weight))
    tables = {id(module.weight): module.weight.numel() for module in model.modules() if isinstance(module, nn.Embedding)}
    return {name: tables[id(one)] for name, one in model.named_parameters() if id(one) in tables and id(one) not in multiplied}
