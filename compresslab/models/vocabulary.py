"""Whether two models read and predict the same tokens, and whether a model can read a text."""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from compresslab.errors import BadInput
from compresslab.models.load import Loaded
from compresslab.models.text import TokenSequences
from compresslab.recipe.model_config import positions_of
from compresslab.recipe.stored_weights import has_position_table


def vocabulary_difference(one: Loaded, other: Loaded) -> str:
    """How the vocabulary of `other` differs from that of `one`, with the first token that differs; empty if it does not."""
    ours, theirs = one.tokenizer.get_vocab(), other.tokenizer.get_vocab()
    if ours == theirs:
        return ""
    token, number = min(set(ours.items()) ^ set(theirs.items()), key=lambda entry: (entry[1], entry[0]))
    return f"{len(theirs)} tokens against {len(ours)}; token {number}, {token!r}, is not in both"


def check_readable(text: TokenSequences, loaded: Loaded, source: str, reader: str = "the model") -> None:
    """Refuse a text that a model cannot look up, before a forward pass fails at it.

    The plan refuses what it can know. It does not know the positions of a model that is not on this machine yet, nor whether a text has one
    of the special tokens that may be beyond the embeddings, such as Gemma 3's for images.

    Args:
        source: what the text is, for the message. reader: which model it is.

    Raises:
        BadInput: a token has no embedding, or the sequences are longer than the table of positions.
    """
    check_ids(int(text.ids.max()), loaded.model, loaded.tokenizer, source, reader)
    config, length = loaded.model.config.to_dict(), text.ids.shape[1]
    positions = positions_of(config)
    if positions is not None and length > positions and has_position_table(config, (name for name, _ in loaded.model.named_parameters())):
        raise BadInput(
            f"sequences of {length} tokens are longer than the {positions} positions of {reader}; set length to {positions} or less"
        )


def check_ids(largest: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: str, reader: str = "the model") -> None:
    """Refuse token ids for which a model has no embedding.

    Args:
        largest: the largest of the ids. source: what they are of, and reader: which model it is, for the message.

    Raises:
        BadInput: the message has the token, its id and the number of embeddings.
    """
    rows = int(model.get_input_embeddings().weight.shape[0])
    if largest >= rows:
        raise BadInput(
            f"{source} has the token {tokenizer.convert_ids_to_tokens(largest)!r} with the id {largest}, and {reader} has {rows:,} "
            f"embeddings (0 to {rows - 1}); take it out of the text, or resize the embeddings with "
            "`model.resize_token_embeddings(len(tokenizer))` and save the model"
        )
