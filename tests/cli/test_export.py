"""`compresslab export`: the folder with its card and its modes, and the upload to a Hub on this machine by the Hub's own client."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import fake_hub
import numpy as np
import pytest
from calling import Call
from fake_hub import Hub
from huggingface_hub import ModelCard, constants
from report.studies import quickstart
from safetensors.numpy import save_file

from compresslab.cli.export import gguf_kind
from compresslab.errors import BadInput
from compresslab.export.push import _explained
from compresslab.records import StepRecord
from compresslab.store.store import Store, write_record

# huggingface_hub's own call of httpx when it sends a large file.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
KEY = "ab" * 32
EXPORT = ("export", "small", "nf4", "mine", "--store", "store")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A store with the model of one variant, the study's record, and the folder of its base with a card and a licence."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "llama"}')
    (base / "README.md").write_text("---\nlicense: Apache-2.0\nbase_model: owner/original\nlanguage: en\n---\nThe base's own words.\n")
    (base / "LICENSE").write_text("the terms")
    study = quickstart(base=str(base))
    variant = study.variants[1].model_copy(update={"name": "nf4", "keys": {"model": KEY}})
    study = study.model_copy(update={"study": "small", "variants": [study.variants[0], variant]})
    store = Store(tmp_path / "store")
    with store.stage(KEY) as staged:
        (staged / "model").mkdir()
        (staged / "model" / "config.json").write_text('{"model_type": "llama"}')
        save_file({"weight": np.arange(64, dtype=np.float32)}, staged / "model" / "model.safetensors")
        for path in (staged / "model").iterdir():
            path.chmod(0o600)
        (staged / "model").chmod(0o700)
        write_record(staged, variant.steps[-1])
        store.commit(KEY, staged, StepRecord)
    (tmp_path / "reports" / "small").mkdir(parents=True)
    write_record(tmp_path / "reports" / "small", study, "study.json")
    return tmp_path


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", "hf_writes")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with fake_hub.running() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        yield hub


def test_the_card_inherits_what_the_bases_own_card_says(made: Path, call: Call) -> None:
    assert call(*EXPORT).code == 0
    data = ModelCard.load(made / "mine" / "README.md").data
    assert (data.license, data.base_model, data.language) == ("apache-2.0", "owner/original", ["en"])
    assert data["base_model_relation"] == "quantized"
    assert data.eval_results
    assert (made / "mine" / "BASE_README.md").read_bytes() == (made / "base" / "README.md").read_bytes()
    assert (made / "mine" / "LICENSE").read_text() == "the terms"


@pytest.mark.parametrize("own", ["", "no front matter", "---\nlicense: [\n---\n", "---\n- a\n---\n", "---\nlicense: {a: 1}\n---\n"])
def test_a_model_without_a_licence_is_told_and_exported_without_one(made: Path, call: Call, own: str) -> None:
    (made / "base" / "README.md").write_text(own)
    said = call(*EXPORT)
    assert said.code == 0
    assert "states no licence" in said.err
    assert "license" not in ModelCard.load(made / "mine" / "README.md").data.to_dict()


def test_the_files_have_the_modes_of_new_files(made: Path, call: Call) -> None:
    before = os.umask(0o027)
    try:
        assert call(*EXPORT).code == 0
    finally:
        os.umask(before)
    assert {oct(path.stat().st_mode & 0o777) for path in (made / "mine").iterdir()} == {"0o640"}
    assert (made / "mine").stat().st_mode & 0o777 == 0o750


def test_an_export_is_uploaded_whole_and_private(made: Path, call: Call, hub: Hub) -> None:
    said = call(*EXPORT, "--push", "me/model", "--yes")
    assert said.code == 0, said
    assert f"uploaded: {hub.address}/me/model" in said.out
    sent = {name: content for name, content in hub.files["me/model"].items() if name != ".gitattributes"}
    assert sent == {path.name: path.read_bytes() for path in (made / "mine").iterdir()}
    assert hub.private == {"me/model": True}
    # The Hub's own check of the metadata, as the client asks for it.
    assert set(hub.validated) == {(made / "mine" / "README.md").read_text()}
    for name, path in ((path.name, path) for path in (made / "mine").iterdir()):
        assert f"{path.stat().st_size} B  {name}" in said.out or f"kB  {name}" in said.out
    assert 'from_pretrained("me/model"' in (made / "mine" / "README.md").read_text()


@pytest.mark.usefixtures("made")
def test_nothing_is_uploaded_without_consent(call: Call, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.confirm", lambda question: "5 files" in question and "only its owner" in question and None)
    said = call(*EXPORT, "--push", "me/model")
    assert (said.code, hub.files) == (0, {})
    assert "nothing was uploaded" in said.out
    monkeypatch.setattr("typer.confirm", lambda question: "everybody can see" in question)
    assert call(*EXPORT, "--push", "me/model", "--public").code == 0
    assert hub.private == {"me/model": False}


def test_an_upload_that_stopped_goes_on(made: Path, call: Call, hub: Hub) -> None:
    hub.fails_at_commit = True
    said = call(*EXPORT, "--push", "me/model", "--yes")
    assert said.code == 1
    assert "the commit was lost" in said.err
    assert "the same command goes on where it stopped" in said.err
    assert len(hub.sent) == 1
    hub.fails_at_commit = False
    (made / "mine" / "README.md").write_text((made / "mine" / "README.md").read_text() + "\nMy own words.\n")
    assert call(*EXPORT, "--push", "me/model", "--yes").code == 0
    assert len(hub.sent) == 1  # the weights were there
    assert b"My own words." in hub.files["me/model"]["README.md"]
    assert call(*EXPORT, "--push", "me/model", "--yes").code == 0  # all is there


def test_another_model_is_not_overwritten(made: Path, call: Call, hub: Hub) -> None:
    hub.files["me/model"], hub.private["me/model"] = {"config.json": b"{}"}, True
    said = call(*EXPORT, "--push", "me/model", "--yes")
    assert said.code == 2
    assert "me/model exists already and has another config.json" in said.err
    assert hub.files["me/model"] == {"config.json": b"{}"}
    hub.files["me/model"], hub.private["me/model"] = {}, False
    assert "exists already and is public; add --public" in call(*EXPORT, "--push", "me/model", "--yes").err
    (made / "mine" / "model.safetensors").write_bytes(b"another")
    said = call(*EXPORT, "--push", "me/other", "--yes")
    assert said.code == 2
    assert "mine exists already and is no export of this variant (model.safetensors differs)" in said.err


@pytest.mark.parametrize(
    ("token", "repository", "said"),
    [
        ("", "me/model", "--push needs a token of the Hub that may write"),
        ("hf_unknown", "me/model", "the Hub does not accept the token (Invalid user token"),
        ("hf_reads", "me/model", "the token must not write to me/model"),
        ("hf_writes", "others/model", "take one with the right to write for others"),
        ("hf_writes", "model", "has no owner; write OWNER/model"),
        ("hf_writes", "me/mo del", "--push 'me/mo del'"),
    ],
)
def test_what_the_hub_does_not_allow_is_one_message(
    made: Path, call: Call, hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str, repository: str, said: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(made / "no-token"))
    ended = call(*EXPORT, "--push", repository, "--yes")
    assert ended.code == 2
    assert said in ended.err.splitlines()[-1]
    assert hub.files == {}


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize(
    ("status", "words", "said"),
    [
        (402, "Payment required", "the account of me has no room for this upload (Payment required)"),
        (403, "Private repository storage limit reached", "the account of me has no room for this upload"),
        (403, "forbidden", "the token must not write to me/model (forbidden)"),
        (404, "no such namespace", "has no me for which this token may write"),
        (409, "conflict", "me/model exists already, or is being written by another (conflict)"),
        (413, "too large", "the Hub takes no file as large as one of these (too large)"),
        (422, "odd", "the Hub refused the upload to me/model with status 422 (odd)"),
        (429, "slow down", "the Hub takes no more requests of this account for now (slow down)"),
        (500, "broken", "has an error of its own, status 500 (broken)"),
    ],
)
def test_each_answer_of_the_hub_has_its_own_sentence(
    call: Call, hub: Hub, monkeypatch: pytest.MonkeyPatch, status: int, words: str, said: str
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    hub.refuses = (status, words)
    ended = call(*EXPORT, "--push", "me/model", "--yes")
    assert (ended.code != 0, said in " ".join(ended.err.split())) == (True, True), ended.err
    assert "cannot be reached" not in ended.err


def test_an_answer_of_the_hub_is_found_below_the_errors_of_an_upload() -> None:
    class RefusedError(Exception):
        response = SimpleNamespace(status_code=403)

    upload = RuntimeError("Error while uploading 'model.safetensors' to the Hub.")
    upload.__cause__ = RefusedError("no rights")
    with (
        pytest.raises(BadInput, match=r"the token must not write to me/model \(no rights\)"),
        _explained("me/model", "https://hub.example"),
    ):
        raise upload


@pytest.mark.usefixtures("made", "hub")
def test_a_hub_that_is_not_reached_is_one_message(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    ended = call(*EXPORT, "--push", "me/model", "--yes")
    assert ended.code == 1
    assert "http://127.0.0.1:9 cannot be reached" in ended.err


@pytest.mark.slow
def test_the_endpoint_of_the_environment_is_used(made: Path, hub: Hub) -> None:
    command = [sys.executable, "-m", "compresslab", *EXPORT, "--push", "me/model", "--yes"]
    environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=made, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "README.md" in hub.files["me/model"]


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("option", ["--public", "--yes"])
def test_options_of_the_upload_need_it(call: Call, option: str) -> None:
    said = call(*EXPORT, option)
    assert said.code == 2
    assert f"{option} says how to upload; add --push OWNER/NAME" in said.err


@pytest.mark.parametrize(
    ("name", "option", "said"),
    [
        ("mine-q4_k_m.gguf", (), "is named as Q4_K_M, which is not written here; f32, f16, bf16, q8_0, q4_0 are"),
        ("mine-q8_0.gguf", ("--gguf-type", "q4_0"), "is named as Q8_0, and --gguf-type says q4_0"),
        ("mine", ("--gguf-type", "q4_0"), "name a file that ends in .gguf"),
    ],
)
@pytest.mark.usefixtures("made")
def test_a_format_that_does_not_fit_the_name_is_refused(call: Call, name: str, option: tuple[str, ...], said: str) -> None:
    ended = call("export", "small", "nf4", name, "--store", "store", *option)
    assert ended.code == 2
    assert said in ended.err


def test_the_format_is_in_the_files_name() -> None:
    assert gguf_kind(Path("a-Q8_0.gguf"), None) == "q8_0"
    assert gguf_kind(Path("a.gguf"), None) is None
    assert gguf_kind(Path("a.gguf"), "q4_0") == "q4_0"
