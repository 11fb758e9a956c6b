"""A variant of a real study handed on: as a folder and as GGUF files, with its card and its scores as shipped."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import compresslab
from compresslab.cli.main import app
from compresslab.plan.prepare import prepare
from compresslab.store.store import Store

runner = CliRunner()


def call(*arguments: str | Path) -> str:
    done = runner.invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_variant_is_handed_on_with_its_card(short: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml
    from huggingface_hub import ModelCard
    from transformers import AutoModelForCausalLM

    where = ("--store", store.root, "--reports", tmp_path / "reports")
    assert "with its card in README.md" in call("export", "tiny", "pruned", tmp_path / "out" / "mine", *where)
    folder = tmp_path / "out" / "mine"
    assert AutoModelForCausalLM.from_pretrained(folder).config.num_hidden_layers == 2
    head, card = (folder / "README.md").read_text().removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(head)["tags"] == ["compresslab", "depth"]
    for told in (
        "# pruned",
        "Does anything here get denser?",
        "prune depth",
        "openbookqa",
        short.read_text().strip(),
    ):
        assert told in card
    assert 'from_pretrained("mine"' in card
    assert "read back with equal logits" in call("export", "tiny", "pruned", tmp_path / "out" / "mine.gguf", *where)
    assert "# pruned" in (tmp_path / "out" / "mine.md").read_text()
    told = call("export", "tiny", "pruned", tmp_path / "out" / "mine-q8_0.gguf", "--score", *where)
    assert "in q8_0, read back with equal logits" in told
    assert "density as shipped: " in told
    shipped = ModelCard.load(tmp_path / "out" / "mine-q8_0.md")
    results = {(result.dataset_type, result.metric_type): result.metric_value for result in shipped.data.eval_results}
    [variant] = [variant for variant in compresslab.read_study(tmp_path / "reports" / "tiny").variants if variant.name == "pruned"]
    for score in variant.scores:
        # Eight bits change the answers of this model a little, and do change them.
        found = results[score.task, "bits_per_byte"]
        assert found == pytest.approx(score.bits_per_byte, rel=0.02)
        assert found != pytest.approx(score.bits_per_byte, rel=1e-7)
    assert "## As shipped" in shipped.text
    push = ("--push", "me/model", "--yes")
    monkeypatch.setenv("HF_TOKEN", "hf_any")
    pushed: list[dict[str, Path]] = []
    monkeypatch.setattr("compresslab.export.push.push", lambda files, *_, **__: pushed.append(files) or "there")
    file, own_card = tmp_path / "out" / "mine-q8_0.gguf", tmp_path / "out" / "mine-q8_0.md"
    assert "as it is there" in call("export", "tiny", "pruned", file, *push, *where)
    assert pushed == [{"mine-q8_0.gguf": file, "README.md": own_card}]
    refused = runner.invoke(app, ["export", "tiny", "base", str(file), *push, *map(str, where)])
    assert "is no export of this variant" in str(refused.exception)
    note, kept = store.note("tiny"), store.note("tiny").read_bytes()
    note.unlink()
    refused = runner.invoke(app, ["export", "tiny", "pruned", str(tmp_path / "out" / "more.gguf"), "--score", *map(str, where)])
    assert "--score needs the recipe that scored pruned (not noted in this store)" in str(refused.exception)
    note.write_bytes(kept)
    (tmp_path / "out" / "mine.gguf").unlink()
    (tmp_path / "out" / "mine.md").write_text("my notes")
    refused = runner.invoke(app, ["export", "tiny", "pruned", str(tmp_path / "out" / "mine.gguf"), *map(str, where)])
    assert "mine.md exists already" in str(refused.exception)
    assert (tmp_path / "out" / "mine.md").read_text() == "my notes"
    assert not (tmp_path / "out" / "mine.gguf").exists()
    refused = runner.invoke(app, ["export", "tiny", "pruned", str(folder), *map(str, where)])
    assert "exists already" in str(refused.exception)
    (store.model(prepare(short).variant("pruned").model) / "config.json").write_text("{}")
    refused = runner.invoke(app, ["export", "tiny", "pruned", str(tmp_path / "other"), *map(str, where)])
    assert "config.json has" in str(refused.exception)
    assert not (tmp_path / "other").exists()
