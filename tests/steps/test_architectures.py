"""A sweep over tiny architectures: each loads as a base, is counted and scored, and every step serves it or says why not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from models.architectures import STATED, SWEPT, swept_model
from models.tiny import LINES, THIRD_PARTY_WARNINGS, make_tokenizer, text

from compresslab.errors import BadInput, UnsupportedModel
from compresslab.evaluation.tree_lm import TreeLM
from compresslab.models.counting.size import nonzero_of, shape_of, size_of
from compresslab.models.load import Loaded, load, load_folder, probe_logits
from compresslab.models.save import reload_difference, save
from compresslab.models.streamed.digests import tensor_digests
from compresslab.plan.model_files import dimensions_of
from compresslab.recipe.source import Source
from compresslab.steps.contract import Context, run
from steps.methods import METHOD_CONFIGS

pytestmark = [
    pytest.mark.slow,
    *(pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS),
    # transformers' own, as it makes or loads some of these.
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
REQUESTS = [(LINES[0][:40], LINES[0][40:60]), (LINES[0][:40], " lazy dog"), ("", LINES[2][:30])]
# One of each kind of step. The methods of a kind differ in what they compute, not in what they need of an architecture.
STEPS = ("depth", "width", "wanda", "rtn", "bnb-nf4", "torchao-int8", "full", "lora", "forward-kl")
# A plan counts all layers of a model alike.
UNEQUAL_LAYERS = ("lfm2", "recurrent_gemma")
# What refuses an architecture, in the words of the step.
REASONS = (
    *("width pruning needs", "width pruning cannot cut", "prune depth would move", "goes from one of its decoder layers"),
    *("linear layers, and", "does not divide the", "needs inputs in multiples of", "does not compute with weights"),
    *("its logits are not its output embedding", "peft adds no adapters"),
)


@pytest.fixture(scope="module", params=SWEPT)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, int]:
    """An architecture, the folder of its base as a study saves it, and what transformers counts of the model."""
    folder = tmp_path_factory.mktemp("base")
    model = swept_model(request.param)
    model.save_pretrained(folder / "given")
    make_tokenizer().save_pretrained(folder / "given")
    loaded = load(str(folder / "given"), "float32")
    save(loaded, folder / "saved")
    assert reload_difference(folder / "saved", probe_logits(loaded.model), tensor_digests(loaded.model)) == 0
    return request.param, folder / "saved", model.num_parameters()


def test_parameters_and_dimensions_are_those_of_the_model(base: tuple[str, Path, int]):
    name, folder, parameters = base
    size = size_of(folder, nonzero_of(load_folder(folder).model))
    shape = shape_of(folder, size)
    assert size.parameters == parameters
    assert size.nonzero <= size.parameters
    assert size.stored_bytes >= 4 * size.parameters
    known = dimensions_of(Source("folder", str(folder)))
    # A plan knows nothing of models without attention.
    assert (known is None and shape.attention_width == 0) or (known is not None and known.parameters == parameters)
    if name in STATED:
        found = (shape.layers, shape.hidden, shape.intermediate, shape.attention_width, shape.key_value_width)
        assert found == STATED[name]
        assert known is None or found[:3] == (known.layers, known.hidden, known.intermediate)


def test_scores_are_those_of_lm_eval(base: tuple[str, Path, int]):
    _, folder, _ = base
    loaded = load_folder(folder)
    requests = [Instance("loglikelihood", {}, pair, 0) for pair in REQUESTS]
    expected = HFLM(load_folder(folder).model, tokenizer=loaded.tokenizer, batch_size=1, logits_cache=False).loglikelihood(requests, True)
    got = TreeLM(loaded.model, loaded.tokenizer).loglikelihood(requests, disable_tqdm=True)
    for (ours, greedy), (theirs, theirs_greedy) in zip(got, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)
        assert greedy == theirs_greedy


@pytest.mark.parametrize("step", STEPS)
def test_each_step_serves_it_or_says_why_not(base: tuple[str, Path, int], step: str, tmp_path: Path):
    name, folder, _ = base
    kind, config = METHOD_CONFIGS[step]
    other = load_folder(folder) if kind == "distill" else None
    if other is not None:  # a student that is its teacher learns nothing, which fails the step
        with torch.no_grad():
            for weight in other.model.parameters():
                weight.mul_(0.9)
    try:
        saved = run(kind, config, load_folder(folder), Context(text(4, 32), other, parent=folder), tmp_path / "made")
        difference = reload_difference(tmp_path / "made", saved.probe, saved.tensors)
    except (BadInput, UnsupportedModel) as error:
        said = str(error)
        assert any(reason in said for reason in REASONS), said
        assert "\n" not in said
        return
    assert difference <= 1e-3
    assert saved.record.size.nonzero <= saved.record.size.parameters
    assert torch.isfinite(saved.probe).all()
    assert kind != "quantize" or saved.record.size.effective_bits < 16
    known = dimensions_of(Source("folder", str(folder)))
    if step == "depth" and known is not None and name not in UNEQUAL_LAYERS:
        assert known.without_layers(saved.record.shape.layers).parameters == saved.record.size.parameters


@pytest.mark.parametrize("step", ["rtn", "gptq", "bnb-nf4", "torchao-int8", "wanda", "depth"])
def test_the_image_encoder_stays_as_it_is(step: str, tmp_path: Path):
    save(Loaded(swept_model("gemma3"), make_tokenizer()), tmp_path / "base")
    kind, config = METHOD_CONFIGS[step]
    run(kind, config, load_folder(tmp_path / "base"), Context(text(4, 32), parent=tmp_path / "base"), tmp_path / "made")
    # Files of packed weights have the names of memory, and others those of the hub.
    before, after = (dict(load_folder(tmp_path / name).model.named_parameters()) for name in ("base", "made"))
    images = [name for name in before if "vision_tower" in name or "multi_modal_projector" in name]
    assert images
    assert all(torch.equal(before[name], after[name]) for name in images)
    rest = [(before[name], after.get(name)) for name in before.keys() - set(images)]
    # torchao's packed weights are compared with nothing.
    unpacked = [(old, new) for old, new in rest if new is not None and type(new.data) is torch.Tensor and new.shape == old.shape]
    assert len(unpacked) < len(rest) or not all(torch.equal(old, new) for old, new in unpacked)
