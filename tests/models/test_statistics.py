"""Statistics of calibration text: their values, and that gathering layer by layer gives those of the whole model."""

from pathlib import Path

import pytest
import torch
from torch import nn

from compresslab.algorithms.angular_distance import angular_distances
from compresslab.algorithms.hessian import gram
from compresslab.errors import RunFailed
from compresslab.models.calibration.attention import EVERY
from compresslab.models.calibration.statistics import Statistics, gather, gather_temporarily
from compresslab.steps.contract import Context, statistics_of
from models.tiny import ARCHITECTURES, THIRD_PARTY_WARNINGS, make, text

pytestmark = [pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS]
TEXT = text(5, 32)


def gathered(name: str, folder: Path, dtype: torch.dtype = torch.float32, grams: bool = True) -> tuple[nn.Module, Statistics]:
    loaded = make(name, dtype)
    return loaded.model, gather(loaded, TEXT, folder, grams=grams, progress=lambda *_: None)


def watched(model: nn.Module, layer: int) -> dict[str, torch.Tensor]:
    """The inputs of a layer's linear layers in a forward pass of the whole model."""
    seen: dict[str, torch.Tensor] = {}
    handles = [
        module.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0]}))
        for name, module in model.base_model.layers[layer].named_modules()
        if type(module) is nn.Linear
    ]
    with torch.no_grad():
        model(input_ids=TEXT.ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_sums_of_every_layer_are_those_of_the_whole_model(name: str, tmp_path: Path):
    model, statistics = gathered(name, tmp_path)
    assert statistics.layers == len(model.base_model.layers)
    for layer in (0, statistics.layers - 1):
        for linear, inputs in watched(model, layer).items():
            torch.testing.assert_close(statistics.magnitude(layer, linear), inputs.abs().mean((0, 1)), rtol=1e-3, atol=1e-4)
            if linear.endswith("v_proj"):
                continue
            expected = gram(inputs)
            torch.testing.assert_close(statistics.gram(layer, linear), expected, rtol=1e-3, atol=1e-3 * float(expected.max()))
            torch.testing.assert_close(statistics.sum_of_squares(layer, linear).float(), expected.diagonal(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["llama", "qwen2-sliding", "gemma3", "qwen3-moe"])
def test_the_values_sums_are_over_what_the_queries_make_of_the_tokens(name: str, tmp_path: Path):
    model, statistics = gathered(name, tmp_path)
    told: list[tuple[torch.Tensor, torch.Tensor]] = []
    model.set_attn_implementation("eager")
    attention = model.base_model.layers[1].self_attn
    inputs: list[torch.Tensor] = []
    handles = [
        attention.v_proj.register_forward_pre_hook(lambda _, given: inputs.append(given[0])),
        attention.register_forward_hook(lambda _, __, output: told.append((output[1], inputs[-1]))),
    ]
    with torch.no_grad():
        model(input_ids=TEXT.ids, use_cache=False)
    for handle in handles:
        handle.remove()
    weights, values = told[0]
    mixed = torch.einsum("bhst,btd->bhsd", weights[:, :, EVERY - 1 :: EVERY], values)
    expected = gram(mixed)
    torch.testing.assert_close(statistics.gram(1, "self_attn.v_proj"), expected, rtol=1e-3, atol=1e-3 * float(expected.max()))
    assert ["self_attn.v_proj"] in statistics.groups_sharing_sums(1)
    together = next(names for names in statistics.groups_sharing_inputs(1) if "self_attn.v_proj" in names)
    assert together == ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]


def test_the_model_attends_by_the_same_kernel_afterwards_and_gives_the_same_logits(tmp_path: Path):
    loaded = make("llama")
    before, kernel = loaded.model(TEXT.ids).logits, loaded.model.config._attn_implementation
    gather(loaded, TEXT, tmp_path, grams=False, progress=lambda *_: None)
    assert loaded.model.config._attn_implementation == kernel != "eager"
    assert torch.equal(loaded.model(TEXT.ids).logits, before)


def test_products_of_bfloat16_inputs_are_exact_and_leave_the_precision_of_others_alone():
    inputs = torch.randn(300, 48).bfloat16()
    exact = inputs.double().T @ inputs.double()
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.testing.assert_close(gram(inputs).double(), exact, rtol=1e-5, atol=1e-4)
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    wide = torch.randn(64, 1100).bfloat16()
    torch.testing.assert_close(gram(wide).double(), wide.double().T @ wide.double(), rtol=1e-5, atol=1e-4)
    assert torch.equal(gram(wide), gram(wide).T)
    fine = torch.randn(300, 48)
    torch.testing.assert_close(gram(fine).double(), fine.double().T @ fine.double(), rtol=1e-5, atol=1e-3)


def test_block_influence_and_angular_distances_are_those_of_the_hidden_states(tmp_path: Path):
    model, statistics = gathered("llama", tmp_path)
    with torch.no_grad():
        states = model.base_model(TEXT.ids, output_hidden_states=True, use_cache=False).hidden_states
    similarity = torch.cosine_similarity(states[0], states[1], dim=-1).mean()
    assert statistics.block_influence[0] == pytest.approx(float(1 - similarity), rel=1e-4)
    # The last state of transformers is after the final norm; the distances are before it.
    distances = angular_distances(torch.stack([state[:, -1] for state in states[:-1]]))
    torch.testing.assert_close(statistics.angular_distance[:-1, :-1], distances, rtol=1e-4, atol=1e-4)


def test_an_angle_is_a_share_of_half_a_turn():
    east, north, west = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([-1.0, 0.0])
    distances = angular_distances(torch.stack([east, north, west])[:, None])
    torch.testing.assert_close(distances, torch.tensor([[0.0, 0.5, 1.0], [0.5, 0.0, 0.5], [1.0, 0.5, 0.0]]))


def test_without_second_moments_the_rest_is_the_same(tmp_path: Path):
    _, with_grams = gathered("llama", tmp_path / "more")
    _, without = gathered("llama", tmp_path / "less", grams=False)
    assert torch.equal(with_grams.sum_of_squares(2, "mlp.down_proj"), without.sum_of_squares(2, "mlp.down_proj"))
    assert with_grams.block_influence == without.block_influence
    small, large = (sum(file.stat().st_size for file in (tmp_path / name).iterdir()) for name in ("less", "more"))
    assert small < large / 5


def test_a_step_by_itself_gathers_for_itself_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    loaded = make("llama")
    own = gather_temporarily(loaded, TEXT, grams=True, progress=lambda *_: None)
    shared = gather(loaded, TEXT, tmp_path / "shared", grams=True, progress=lambda *_: None)
    assert torch.equal(own.gram(0, "mlp.up_proj"), statistics_of(loaded, Context(gathered=tmp_path / "shared")).gram(0, "mlp.up_proj"))
    assert shared.text == TEXT.sha256
    del own
    assert [path.name for path in tmp_path.iterdir()] == ["shared"]


def test_a_step_whose_gathering_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    loaded = make("llama")
    loaded.model.model.layers[1].mlp.up_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(RunFailed, match=r"layer 1, mlp\.down_proj"):
        gather_temporarily(loaded, TEXT, grams=False, progress=lambda *_: None)
    assert list(tmp_path.iterdir()) == []


def test_inputs_that_are_not_finite_are_told_by_layer(tmp_path: Path):
    loaded = make("llama")
    loaded.model.model.layers[1].mlp.up_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(RunFailed, match=r"layer 1, mlp\.down_proj: its inputs on the calibration text are not finite"):
        gather(loaded, TEXT, tmp_path, grams=False, progress=lambda *_: None)
