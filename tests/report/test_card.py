"""The card of a variant: what hubs read of it, the verdict, and names that break nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from compresslab.report.card import card

from .studies import quickstart, with_failure


def test_the_card_tells_parent_density_and_verdict() -> None:
    study = quickstart()
    variant = study.variants[1]
    text = card(study, variant, "my-model")
    head, body = text.removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(head)["library_name"] == "transformers"
    comparison = variant.comparisons[0]
    assert f"**Density against {comparison.against} by parameters: {comparison.verdict}**" in body
    for score in variant.scores:
        assert f"| {score.task} | {score.items} |" in body
    assert study.recipe.strip() in body


def test_a_base_of_a_hub_is_named_for_the_hub_and_another_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def head(base: str) -> dict[str, object]:
        study = quickstart(base=base)
        found: dict[str, object] = yaml.safe_load(card(study, study.variants[1], "my-model").split("---\n")[1])
        return found

    assert head("meta-llama/Llama-3.1-8B@0123abc")["base_model"] == "meta-llama/Llama-3.1-8B"
    assert head("gpt2")["base_model"] == "gpt2"
    (tmp_path / "models" / "llama").mkdir(parents=True)
    (tmp_path / "models" / "llama" / "config.json").write_text("{}")
    (tmp_path / "x.gguf").touch()
    monkeypatch.chdir(tmp_path)
    folders = ("./model", "../model", "~/model", "/models/llama", "models/llama", "no/such/folder", ".cache/model")
    for base in (*folders, "offline:smollm2-135m-instruct", "x.gguf", "gone/x.gguf", "a--b/c", "owner/name..x", "owner/name.git", "a, b"):
        assert "base_model" not in head(base), base


def test_every_variant_that_was_made_has_a_card_and_the_base_too() -> None:
    study = with_failure()
    for variant in study.variants:
        if variant.size is not None:
            assert f"# {variant.name}\n" in card(study, variant, "my-model")


def test_a_recipe_with_fences_stays_inside_its_own() -> None:
    study = quickstart(recipe="question: |\n  ```\n  code\n  ```\n")
    assert card(study, study.variants[0], "my-model").rstrip().endswith("````")


def test_no_text_of_a_recipe_becomes_markup() -> None:
    hostile = "<img src=x>\n\n# [a](b) `c` | d"
    study = quickstart()
    variant = study.variants[1]
    step = variant.steps[-1].model_copy(update={"config": {"name": "a`b``c|d"}})
    variant = variant.model_copy(update={"steps": [*variant.steps[:-1], step]})
    text = card(study.model_copy(update={"question": hostile, "base": hostile}), variant, "folder")
    before = text.partition("## The recipe")[0]
    assert "> \\<img src=x\\> # \\[a\\](b) \\`c\\` \\| d\n" in before
    assert "<img" not in before.replace("\\<img", "")
    assert '| ```{"name": "a`b``c\\|d"}``` |' in before
