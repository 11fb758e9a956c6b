"""The card of a variant: what hubs read of it, the verdict, and names that break nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData

from compresslab.export.card import Target, card
from compresslab.export.metadata import relation_of
from compresslab.export.origin import Origin, hub_id, origin_model

from .studies import quickstart, step, with_failure


def test_the_card_tells_parent_density_and_verdict() -> None:
    study = quickstart()
    variant = study.variants[1]
    text = card(study, variant, Target("my-model"))
    head, body = text.removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(head)["library_name"] == "transformers"
    comparison = variant.comparisons[0]
    assert f"**Density against {comparison.against} by parameters: {comparison.verdict}**" in body
    for score in variant.scores:
        assert f"| {score.task} | {score.items} |" in body
    assert study.recipe.strip() in body


def test_a_base_of_a_hub_is_named_for_the_hub_and_another_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub_id("meta-llama/Llama-3.1-8B@0123abc") == "meta-llama/Llama-3.1-8B"
    assert hub_id("gpt2") == "gpt2"
    (tmp_path / "models" / "llama").mkdir(parents=True)
    (tmp_path / "models" / "llama" / "config.json").write_text("{}")
    (tmp_path / "x.gguf").touch()
    monkeypatch.chdir(tmp_path)
    folders = ("./model", "../model", "~/model", "/models/llama", "models/llama", "no/such/folder", ".cache/model")
    for base in (*folders, "offline:smollm2-135m-instruct", "x.gguf", "gone/x.gguf", "a--b/c", "owner/name..x", "owner/name.git", "a, b"):
        assert hub_id(base) == "", base


def head(text: str) -> ModelCardData:
    """The card's metadata as huggingface_hub reads it; what it writes again is the same."""
    data = ModelCard(text).data
    assert ModelCardData(**ModelCard(text).data.to_dict()).to_yaml() == data.to_yaml()
    return data


def test_the_metadata_is_what_the_hub_reads() -> None:
    study = quickstart()
    origin = Origin("owner/base", "other", "llama3", "https://example.org/terms", ("en", "de"))
    variant = study.variants[1]
    data = head(card(study, variant, Target("my-model"), origin))
    assert (data.license, data.license_name, data.license_link) == ("other", "llama3", "https://example.org/terms")
    assert (data.base_model, data["base_model_relation"], data.language) == ("owner/base", relation_of(variant), ["en", "de"])
    results = {(result.dataset_type, result.metric_type): result.metric_value for result in data.eval_results or []}
    for score in variant.scores:
        assert results[score.task, "accuracy"] == pytest.approx(score.accuracy, abs=1e-6)
        assert results[score.task, "bits_per_byte"] == pytest.approx(score.bits_per_byte, abs=1e-6)


def test_a_model_without_a_licence_has_a_card_that_says_so() -> None:
    study = quickstart()
    text = card(study, study.variants[1], Target("my-model"))
    data = head(text)
    assert data.license is None
    assert data.base_model is None
    assert "base_model_relation" not in data.to_dict()
    assert "Not known: the model that it was made from states none" in text


@pytest.mark.parametrize(
    ("steps", "relation"),
    [
        ([], None),
        ([("quantize", "gptq")], "quantized"),
        ([("prune", "depth")], "finetune"),
        ([("prune", "depth"), ("quantize", "gptq")], "finetune"),
        ([("prune", "depth"), ("adopt", "model")], None),
        ([("prune", "depth"), ("adopt", "model"), ("quantize", "gptq")], "quantized"),
    ],
)
def test_the_relation_to_the_base_is_the_hubs(steps: list[tuple[str, str]], relation: str | None) -> None:
    base = quickstart().variants[0]
    chain = [base.steps[0], *(step(kind, method, 1e6, 16, {"model": "owner/adopted"}) for kind, method in steps)]
    variant = base.model_copy(update={"steps": chain})
    assert relation_of(variant) == relation
    adopted = any(kind == "adopt" for kind, _ in steps)
    assert origin_model("owner/base", variant) == ("owner/adopted" if adopted else "owner/base")


@pytest.mark.parametrize(("method", "packages"), [("", []), ("gptq", ["gptqmodel", "optimum"]), ("bitsandbytes", ["bitsandbytes"])])
def test_what_is_needed_to_load_it_is_named_with_versions(method: str, packages: list[str]) -> None:
    study = quickstart()
    text = card(study, study.variants[1], Target("my-model", method))
    [line] = [line for line in text.splitlines() if line.startswith("It needs ")]
    for package in ("torch", "transformers", *packages):
        assert f"{package} " in line


def test_every_variant_that_was_made_has_a_card_and_the_base_too() -> None:
    study = with_failure()
    for variant in study.variants:
        if variant.size is not None:
            assert f"# {variant.name}\n" in card(study, variant, Target("my-model"))


def test_a_recipe_with_fences_stays_inside_its_own() -> None:
    study = quickstart(recipe="question: |\n  ```\n  code\n  ```\n")
    assert card(study, study.variants[0], Target("my-model")).rstrip().endswith("````")


def test_no_text_of_a_recipe_becomes_markup() -> None:
    hostile = "<img src=x>\n\n# [a](b) `c` | d"
    study = quickstart()
    variant = study.variants[1]
    step = variant.steps[-1].model_copy(update={"config": {"name": "a`b``c|d"}})
    variant = variant.model_copy(update={"steps": [*variant.steps[:-1], step]})
    text = card(study.model_copy(update={"question": hostile, "base": hostile}), variant, Target("folder"))
    before = text.partition("## The recipe")[0]
    assert "> \\<img src=x\\> # \\[a\\](b) \\`c\\` \\| d\n" in before
    assert "<img" not in before.replace("\\<img", "")
    assert '| ```{"name": "a`b``c\\|d"}``` |' in before


def test_the_card_of_a_gguf_file_promises_only_what_stands_beside_it(tmp_path: Path) -> None:
    study = quickstart()
    variant = study.variants[1]
    own_code = variant.steps[0].model_copy(update={"config": {**variant.steps[0].config, "trust_remote_code": True}})
    variant = variant.model_copy(update={"steps": [own_code, *variant.steps[1:]]})
    origin = Origin(hub_id="owner/original", license="other", license_link="TERMS.md", terms=(tmp_path / "LICENSE",))
    text = card(study, variant, Target("mine-Q8_0.gguf", gguf="Q8_0"), origin)
    assert "beside this card" not in text
    assert "Hand on its terms (`LICENSE`) with this file" in text
    assert head(text).license_link == "https://huggingface.co/owner/original/blob/main/TERMS.md"
    assert "trust_remote_code" not in text.partition("## The recipe")[0].partition("## How to load it")[2]
    assert "gguf " in next(line for line in text.splitlines() if line.startswith("It needs "))
    assert 'from_pretrained(".", gguf_file="mine-Q8_0.gguf")' in text
    pushed = card(study, variant, Target("mine-Q8_0.gguf", gguf="Q8_0", repository="me/mine"), origin)
    assert 'from_pretrained("me/mine", gguf_file="mine-Q8_0.gguf")' in pushed
    assert head(card(study, variant, Target("g.gguf", gguf="Q8_0"), Origin(license="other", license_link="TERMS.md"))).license_link is None
