"""Models that bring their own code: run where the recipe trusts it and nowhere else, and carried into every folder that is saved."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from faults.study import make_model

from compresslab.errors import BadInput
from compresslab.models.counting.size import plain_skeleton, shape_of
from compresslab.models.load import load, load_folder, load_tokenizer
from compresslab.models.save import reload_difference, save
from compresslab.models.streamed.open import open_by_layers
from compresslab.plan.prepare import prepare
from compresslab.plan.rules import start
from compresslab.records import Size
from compresslab.runner.run import run
from compresslab.runner.watcher import Watcher
from compresslab.store.store import Store

CODE = {
    "configuration_mine.py": """
from transformers import LlamaConfig

class MineConfig(LlamaConfig):
    model_type = "mine-of-a-test"
""",
    "scales.py": "from .scale import SCALE\n",
    "scale.py": "SCALE = 2.0\n",
    "modeling_mine.py": """
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaMLP
from .configuration_mine import MineConfig
from .scales import SCALE

class MineMLP(LlamaMLP):
    def forward(self, x):
        return super().forward(x) * SCALE

class MineForCausalLM(LlamaForCausalLM):
    config_class = MineConfig

    def __init__(self, config):
        super().__init__(config)
        for layer in self.model.layers:
            layer.mlp = MineMLP(config)
""",
    "tokenization_mine.py": """
from transformers import PreTrainedTokenizerFast

class MineTokenizerFast(PreTrainedTokenizerFast):
    pass
""",
}
NAMED = {"AutoConfig": "configuration_mine.MineConfig", "AutoModelForCausalLM": "modeling_mine.MineForCausalLM"}
CHECK = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
assert type(model).__name__ == "MineForCausalLM", type(model)
assert type(AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)).__name__ == "MineTokenizerFast"
assert model(input_ids=torch.tensor([[1, 2, 3]])).logits.isfinite().all()
"""


def bring_code(folder: Path, model_type: str = "mine-of-a-test") -> None:
    """Make a Llama's folder that of an architecture of its own."""
    for name, text in CODE.items():
        (folder / name).write_text(text)
    for name, stated in {
        "config.json": {"model_type": model_type, "architectures": ["MineForCausalLM"], "auto_map": NAMED},
        "tokenizer_config.json": {
            "tokenizer_class": "MineTokenizerFast",
            "auto_map": {"AutoTokenizer": [None, "tokenization_mine.MineTokenizerFast"]},
        },
    }.items():
        (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **stated}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    make_model(made)
    bring_code(made)
    return made


@pytest.mark.slow
def test_a_trusted_model_passes_all_kinds_of_steps_and_its_code_goes_along(
    folder: Path, tiny_folder: Path, tmp_path: Path, recipe_text: str
) -> None:
    text = recipe_text.replace(f"{{model: {tiny_folder}", f"{{trust_remote_code: true, model: {folder}")
    begin, end = text.index("variants:"), text.index("evaluate:")
    variants = """variants:
  depth: [{prune: {method: depth, keep: 2}}, {retrain: {method: full, tokens: 512, optimizer: {batch_tokens: 128, micro_batch_tokens: 64}}}]
  width: [{prune: {method: width, keep: 0.5}}]
  gptq: [{quantize: {method: gptq, bits: 4, group_size: 32}}]
"""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"{text[:begin]}{variants}{text[end:]}")
    plan, store = prepare(recipe), Store(tmp_path / "store")
    assert run(plan, store, Watcher()).failures == {}
    for node in plan.nodes:
        if node.kind != "model":
            continue
        made = store.model(node.key)
        assert sorted(path.relative_to(made).as_posix() for path in made.rglob("*.py")) == sorted(CODE), node.label
        assert json.loads((made / "config.json").read_text())["auto_map"] == NAMED
    depth = store.model(plan.variant("depth").model)
    subprocess.run([sys.executable, "-c", CHECK, str(depth)], check=True, timeout=300)


def test_code_is_not_run_unless_the_recipe_trusts_it(folder: Path) -> None:
    mark = folder / "was-run"
    (folder / "configuration_mine.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    with pytest.raises(BadInput, match=r"brings its own code for the architecture 'mine-of-a-test'.*set base\.trust_remote_code: true"):
        start(str(folder))
    with pytest.raises(BadInput, match=r"base\.trust_remote_code: true"):
        load(str(folder))
    assert not mark.exists()
    start(str(folder), own_code=True)
    with pytest.raises(BadInput, match=r"the code that .* brings does not run here: AttributeError"):
        load(str(folder), trust_remote_code=True)
    assert mark.exists()


def test_an_architecture_that_transformers_has_loads_without_the_code_that_its_folder_names(folder: Path, tmp_path: Path) -> None:
    bring_code(folder, model_type="llama")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "PreTrainedTokenizerFast"}))
    start(str(folder))
    loaded = load(str(folder))
    assert type(loaded.model).__name__ == "LlamaForCausalLM"
    saved = tmp_path / "saved"
    save(loaded, saved)
    assert not list(saved.rglob("*.py"))
    assert all("auto_map" not in (saved / name).read_text() for name in ("config.json", "tokenizer_config.json"))
    reason = "brings its own code for the architecture 'llama', which transformers has itself; leave base.trust_remote_code out"
    with pytest.raises(BadInput, match=reason):
        start(str(folder), own_code=True)
    with pytest.raises(BadInput, match=reason):
        load(str(folder), trust_remote_code=True)


OWN_TOKENIZER = """
from transformers import PreTrainedTokenizerFast

class ShoutingTokenizer(PreTrainedTokenizerFast):
    def _encode_plus(self, text, *args, **kwargs):
        return super()._encode_plus(text.upper(), *args, **kwargs)
"""


LOADERS = {
    "load_folder": load_folder,
    "load_tokenizer": load_tokenizer,
    "open_by_layers": open_by_layers,
    "plain_skeleton": plain_skeleton,
    "shape_of": lambda folder: shape_of(folder, Size(parameters=1, counted=1, active=1, nonzero=1, stored_bytes=2, effective_bits=16)),
    "reload_difference": lambda folder: reload_difference(folder, torch.zeros(1)),
}


@pytest.mark.parametrize("name", LOADERS)
def test_nobody_is_asked_at_the_terminal_whether_to_run_code(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mark, asked = folder / "was-run", list[str]()
    # Of a name of its own, since processes keep the classes that they know.
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "never-trusted"}))
    for file in CODE:
        (folder / file).write_text(f"open({str(mark)!r}, 'w').close()\n")

    def answer(question: str) -> str:
        asked.append(question)
        return "y"

    monkeypatch.setattr("builtins.input", answer)
    with contextlib.suppress(Exception):  # each says in its own words that it does not load
        LOADERS[name](folder)
    assert not asked
    assert not mark.exists()


@pytest.mark.parametrize("model_code", [False, True])
def test_the_code_of_a_tokenizer_alone_is_run_where_it_is_trusted(tmp_path: Path, model_code: bool) -> None:
    folder = tmp_path / "model"
    make_model(folder)
    plain = load(str(folder)).tokenizer
    if model_code:
        bring_code(folder, model_type="llama")
    (folder / "shouting.py").write_text(OWN_TOKENIZER)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    own = {"tokenizer_class": "ShoutingTokenizer", "auto_map": {"AutoTokenizer": [None, "shouting.ShoutingTokenizer"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, **own}))
    with pytest.raises(BadInput, match=r"own code for its tokenizer 'ShoutingTokenizer'.*set base\.trust_remote_code: true"):
        start(str(folder))
    start(str(folder), own_code=True)
    loaded = load(str(folder), trust_remote_code=True)
    assert type(loaded.model).__name__ == "LlamaForCausalLM"
    assert loaded.tokenizer("hello")["input_ids"] == plain("HELLO")["input_ids"] != plain("hello")["input_ids"]
    save(loaded, tmp_path / "saved")
    assert [path.name for path in (tmp_path / "saved").rglob("*.py")] == ["shouting.py"]
    again = load_folder(tmp_path / "saved")  # as a worker does, which knows the base's classes
    assert again.tokenizer("hello")["input_ids"] == loaded.tokenizer("hello")["input_ids"]


def test_a_tokenizer_whose_code_is_that_of_another_class_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    make_model(folder)
    (folder / "shouting.py").write_text(OWN_TOKENIZER)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    own = {"tokenizer_class": "OtherTokenizer", "auto_map": {"AutoTokenizer": ["shouting.ShoutingTokenizer", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, **own}))
    with pytest.raises(BadInput, match=r"tokenizer_class 'OtherTokenizer', auto_map names 'shouting\.ShoutingTokenizer'; make them one"):
        start(str(folder), own_code=True)


def test_a_plain_model_keeps_its_tokenizer_beside_one_with_code(folder: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    make_model(plain)
    load(str(folder), trust_remote_code=True)
    assert type(load(str(plain)).tokenizer).__module__.startswith("transformers.")


def test_code_without_a_causal_language_model_is_refused_before_it_runs(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoConfig": NAMED["AutoConfig"]}}))
    with pytest.raises(BadInput, match=r"auto_map in its config\.json names no AutoModelForCausalLM; it is no causal language model"):
        start(str(folder), own_code=True)


# Last: transformers knows the architecture by the last code that was run in this process.
@pytest.mark.parametrize("file", ["configuration_mine.py", "modeling_mine.py"])
def test_code_that_ends_the_process_is_named(folder: Path, file: str) -> None:
    (folder / file).write_text(CODE[file] + "\nimport sys\nsys.exit('no licence')\n")
    with pytest.raises(BadInput, match=r"code that .* brings does not run here: SystemExit: no licence"):
        load(str(folder), trust_remote_code=True)


def test_a_model_whose_code_ends_the_process_as_it_is_made_is_named(folder: Path) -> None:
    changed = CODE["modeling_mine.py"].replace("super().__init__(config)", "raise SystemExit(0)")
    (folder / "modeling_mine.py").write_text(changed)
    with pytest.raises(BadInput, match="SystemExit"):
        load(str(folder), trust_remote_code=True)
