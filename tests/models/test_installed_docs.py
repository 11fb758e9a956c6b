"""`installed-docs` in parts: no two share a document or a paragraph, and a text says which part it is."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from compresslab.errors import BadInput
from compresslab.evaluation.overlap import words
from compresslab.models.documents import installed
from compresslab.models.documents.installed import SHARED_WORDS, SHORTEST, installed_documents, part_of
from compresslab.models.text import calibration_tokens, documents, held_out_tokens, training_tokens
from compresslab.recipe.schema import Calibration, FidelityText, Training
from compresslab.recipe.source import PARTS, for_role, share_documents, text_identity
from models.tiny import make_tokenizer


@pytest.fixture(autouse=True)
def few_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "DOCSTRING_PACKAGES", ("packaging", "tokenizers"))


def grams(texts: list[str]) -> list[tuple[str, ...]]:
    found = [words(text) for text in texts]
    return [tuple(text[start : start + 12]) for text in found for start in range(len(text) - 11)]


def test_parts_share_no_document_and_together_are_all():
    parts = {part: list(documents(f"installed-docs#{part}", 0)) for part in PARTS}
    assert sorted(text for texts in parts.values() for text in texts) == sorted(documents("installed-docs", 0))
    for one, other in combinations(parts.values(), 2):
        assert one
        assert not set(one) & set(other)


def test_another_seed_is_another_order_of_the_same_documents_and_no_held_out_text():
    first, second = (list(documents("installed-docs#training", seed)) for seed in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second)


def test_held_out_text_shares_hardly_any_words_in_a_row_with_training_text():
    trained = set(grams(list(documents("installed-docs#training", 0))))
    held_out = grams(list(documents("installed-docs#held-out", 0)))
    assert sum(gram in trained for gram in held_out) / len(held_out) < 0.02


def test_a_paragraph_that_an_earlier_document_has_is_left_out(monkeypatch: pytest.MonkeyPatch):
    shared = " ".join(f"word{number}" for number in range(SHARED_WORDS))
    own = ["First. " * SHORTEST, "Second. " * SHORTEST]
    topics = [f"{own[0]}\n\n{shared}\n\nReturns", f"{own[1]}\n\n  {shared.upper()},\n\nReturns", f"{shared}\n\nReturns"]
    monkeypatch.setattr(installed, "_help_topics", lambda: topics)
    monkeypatch.setattr(installed, "DOCSTRING_PACKAGES", ())
    assert list(installed_documents("all")) == [[topics[0], f"{own[1]}\n\nReturns"]]


def test_where_a_package_lies_decides_no_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "tests" / "documented_package"
    (package / "tests").mkdir(parents=True)
    for file, word in (("__init__.py", "kept"), ("tests/__init__.py", "left")):
        (package / file).write_text(f'"""{word * SHORTEST}"""\n')
    monkeypatch.syspath_prepend(str(tmp_path / "tests"))
    monkeypatch.setattr(installed, "_help_topics", list)
    monkeypatch.setattr(installed, "DOCSTRING_PACKAGES", ("documented_package",))
    assert [text for texts in installed_documents("all") for text in texts] == ["kept" * SHORTEST]


def test_layout_and_case_decide_no_part():
    texts = [f"Some text number {number}" for number in range(50)]
    assert {part_of(text) for text in texts} == set(PARTS)
    assert [part_of(text) for text in texts] == [part_of(f"  {text.upper()}.\n") for text in texts]


def test_each_role_reads_its_part_unless_another_is_named():
    tokenizer = make_tokenizer()
    read = {
        "calibration": calibration_tokens(Calibration(samples=2), tokenizer),
        "training": training_tokens(Training(), tokenizer, 512),
        "held-out": held_out_tokens(FidelityText(source="installed-docs", tokens=512), tokenizer),
    }
    assert len({text.sha256 for text in read.values()}) == 3
    for role, text in read.items():
        same = Training(source=f"installed-docs#{role}", length=text.ids.shape[1])
        named = training_tokens(same, tokenizer, text.ids.numel())
        assert named.sha256 == text.sha256


def test_which_texts_share_documents(tmp_path):
    for name, said in (("one.txt", "the same"), ("two.txt", "the same"), ("three.txt", "another")):
        (tmp_path / name).write_text(said)
    assert share_documents(str(tmp_path / "one.txt"), f"{tmp_path}/./two.txt")
    assert not share_documents(str(tmp_path / "one.txt"), str(tmp_path / "three.txt"))
    assert share_documents("hub:Owner/Text", "hub:owner/text@main:en#train")
    assert not share_documents("hub:owner/text:de", "hub:owner/text:en")
    assert not share_documents("hub:owner/text", "hub:owner/text#test")
    assert not share_documents("hub:owner/text", str(tmp_path / "one.txt"))
    assert share_documents("installed-docs#all", for_role("installed-docs", "training"))
    assert not share_documents(for_role("installed-docs", "held-out"), for_role("installed-docs", "training"))
    assert share_documents("a.txt", "a.txt")
    assert not share_documents("a.txt", "b.txt")
    assert text_identity("installed-docs#training") != text_identity("installed-docs#held-out")


def test_a_part_that_does_not_exist_is_refused():
    with pytest.raises(BadInput, match="installed-docs has no part 'test'; its parts are training, calibration, held-out, and all"):
        text_identity("installed-docs#test")


def test_packages_whose_docstrings_are_not_needed_are_not_read(monkeypatch: pytest.MonkeyPatch):
    read: list[str] = []
    monkeypatch.setattr(installed, "DOCSTRING_PACKAGES", ("first", "second"))
    monkeypatch.setattr(installed, "_docstrings", lambda package: read.append(package) or [])
    found = installed_documents("training")
    next(found)
    assert read == []
    next(found)
    assert read == ["first"]
