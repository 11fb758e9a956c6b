"""Texts that a model cannot look up are refused with the two numbers, before a forward pass."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lm_eval.api.instance import Instance

from compresslab.errors import BadInput
from compresslab.evaluation.tree_lm import TreeLM
from compresslab.methods.registry import method_of
from compresslab.methods.sparse import PruneSparse
from compresslab.models.load import Loaded
from compresslab.models.text import TokenSequences
from compresslab.models.vocabulary import check_readable
from compresslab.recipe.schema import Text
from compresslab.steps.step_text import text_for

from .architectures import SWEPT, swept_model
from .tiny import make, make_tokenizer


def with_image_token() -> Loaded:
    """A model whose tokenizer has a special token beyond its embeddings, as Gemma 3's for images."""
    loaded = make("llama")
    rows = loaded.model.get_input_embeddings().weight.shape[0]
    while len(loaded.tokenizer) <= rows:
        loaded.tokenizer.add_tokens([f"<image-{len(loaded.tokenizer)}>"], special_tokens=True)
    return loaded


REASON = r"has the token '<image-304>' with the id 304, and the model has 304 embeddings \(0 to 303\); take it out of the text"


def test_a_text_of_a_step_with_a_token_that_has_no_embedding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("one <image-304> two, " * 40)
    texts = Text.model_validate({"calibration": {"source": str(path), "samples": 2, "length": 16}})
    config = PruneSparse(method="wanda", sparsity=0.5)
    with pytest.raises(BadInput, match=rf"the text '{path}' {REASON}"):
        text_for(method_of("prune", config), config, texts, with_image_token())
    path.write_text("one two, " * 40)
    assert text_for(method_of("prune", config), config, texts, with_image_token()) is not None


@pytest.mark.parametrize("kind", ["loglikelihood", "generate_until"])
def test_a_text_of_a_task_with_a_token_that_has_no_embedding_is_refused(kind: str) -> None:
    loaded = with_image_token()
    lm = TreeLM(loaded.model, loaded.tokenizer)
    arguments = ("one <image-304>", " two" if kind == "loglikelihood" else {"until": [], "max_gen_toks": 2})
    with pytest.raises(BadInput, match=f"the text of a task {REASON}"):
        getattr(lm, kind)([Instance(kind, {}, arguments, 0)])


def test_sequences_beyond_a_table_of_positions_are_refused() -> None:
    rotary, table = make("llama"), Loaded(swept_model("gpt2"), make_tokenizer())
    positions = table.model.config.max_position_embeddings
    long = TokenSequences(torch.zeros(1, positions + 1, dtype=torch.long), "")
    with pytest.raises(BadInput, match=f"sequences of {positions + 1} tokens are longer than the {positions} positions of the model"):
        check_readable(long, table, "the text")
    check_readable(TokenSequences(long.ids[:, 1:], ""), table, "the text")
    with pytest.raises(BadInput, match="positions of the teacher"):
        check_readable(long, table, "the text", "the teacher")
    check_readable(TokenSequences(torch.zeros(1, 5000, dtype=torch.long), ""), rotary, "the text")


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", [*SWEPT])
def test_the_architectures_that_cannot_read_beyond_their_positions_are_known(name: str) -> None:
    """Some compute their table (GPT-J, CodeGen, MPT), so that no file has it."""
    model = swept_model(name)
    text = TokenSequences(torch.arange(300)[None] * 7 % 200, "")
    try:
        check_readable(text, Loaded(model, make_tokenizer()), "the text")
        readable = True
    except BadInput:
        readable = False
    try:
        with torch.no_grad():
            model(input_ids=text.ids, use_cache=False)
        reads = True
    except (IndexError, RuntimeError):
        reads = False
    assert readable == reads
