"""Width pruning removes what has the smallest activations; the result computes the same as the original without it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from models.tiny import ARCHITECTURES, make, make_model, text
from transformers import PreTrainedModel

from compresslab.errors import BadInput, RunFailed, UnsupportedModel
from compresslab.methods.amounts import Widths
from compresslab.methods.width import PruneWidth
from compresslab.models.anatomy import attentions, gated_mlps, head_dimension, parameters_of
from compresslab.models.calibration.statistics import gather
from compresslab.models.load import load_folder, probe_logits
from compresslab.models.save import reload_difference
from compresslab.models.surgery.width import AXES, KeptIndices, heads_must_divide, narrow, parameter_axes, parameter_counter, widths_of
from compresslab.steps.contract import Context, run, silent
from compresslab.steps.prune_width import apply

DENSE = sorted(set(ARCHITECTURES) - {"gpt-neox", "qwen3-moe"})
# Four groups of at least one query head, and a different size for each axis, so that cuts cannot be confused.
DISTINCT: dict[str, Any] = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 12, "intermediate_size": 112}


def width(**settings: Any) -> PruneWidth:
    return PruneWidth.model_validate({"method": "width", **settings})


def some(of: int, keep: int, seed: int) -> torch.Tensor:
    return torch.randperm(of, generator=torch.Generator().manual_seed(seed))[:keep].sort().values


def gone(kept: torch.Tensor, of: int) -> list[int]:
    return sorted(set(range(of)) - set(kept.tolist()))


def silence_neurons(model: PreTrainedModel, kept: list[torch.Tensor]) -> None:
    for mlp, those in zip(gated_mlps(model), kept, strict=True):
        dead = gone(those, mlp.down_proj.in_features)
        mlp.up_proj.weight.data[dead] = 0
        if mlp.up_proj.bias is not None:
            mlp.up_proj.bias.data[dead] = 0


def silence_groups(model: PreTrainedModel, kept: list[torch.Tensor]) -> None:
    """Set the values of heads to zero, so that they have no output."""
    head = head_dimension(model.config)
    for attention, those in zip(attentions(model), kept, strict=True):
        for group in gone(those, attention.v_proj.out_features // head):
            attention.v_proj.weight.data[group * head : (group + 1) * head] = 0
            if attention.v_proj.bias is not None:
                attention.v_proj.bias.data[group * head : (group + 1) * head] = 0


def silence_channels(model: PreTrainedModel, kept: torch.Tensor) -> None:
    """Set all weights that write into channels to zero."""
    dead = gone(kept, model.config.hidden_size)
    model.get_input_embeddings().weight.data[:, dead] = 0
    for linear in [*(one.o_proj for one in attentions(model)), *(one.down_proj for one in gated_mlps(model))]:
        linear.weight.data[dead] = 0
        if linear.bias is not None:
            linear.bias.data[dead] = 0


@pytest.mark.parametrize("axes", [["neurons"], ["groups"], ["hidden"], ["neurons", "groups", "hidden"]], ids="-".join)
@pytest.mark.parametrize("name", DENSE)
def test_what_is_silent_goes_and_nothing_is_lost(tmp_path: Path, name: str, axes: list[str]):
    """The step finds the parts without effect, and the model without them has the same logits."""
    settings = {key: value for key, value in DISTINCT.items() if key != "head_dim" or name not in ("qwen2", "qwen2-sliding")}
    loaded = make(name, torch.float32, **settings)
    wanted: dict[str, int] = {}
    kept = KeptIndices()
    if "neurons" in axes:
        wanted["keep"], kept = 80, kept._replace(neurons=[some(112, 80, layer) for layer in range(4)])
        silence_neurons(loaded.model, kept.neurons)
    if "groups" in axes:
        wanted["groups"], kept = 2, kept._replace(groups=[some(4, 2, layer) for layer in range(4)])
        silence_groups(loaded.model, kept.groups)
    if "hidden" in axes:
        wanted["hidden"], kept = 40, kept._replace(hidden=some(64, 40, 0))
        silence_channels(loaded.model, kept.hidden)
    before = probe_logits(loaded.model)
    done = run("prune", width(**wanted), loaded, Context(text()), tmp_path)
    assert done.record.details["activation_energy_lost"].keys() == set(axes)
    assert all(share < 1e-6 for lost in done.record.details["activation_energy_lost"].values() for share in lost)
    torch.testing.assert_close(done.probe, before, rtol=1e-3, atol=1e-3)
    assert done.record.size.parameters == sum(p.numel() for p in load_folder(tmp_path).model.parameters())
    assert reload_difference(tmp_path, done.probe, done.tensors) == 0


# Those of the table of architectures, and others with norms of queries and keys, after the blocks, and multipliers.
CHANNELS_CUT = [*DENSE, "granite", "olmo2", "exaone4", "hunyuan_v1_dense", "ministral", "seed_oss"]
OTHERS: dict[str, Any] = {"num_key_value_heads": 2, "intermediate_size": 128, "head_dim": 16, "tie_word_embeddings": False}


@pytest.mark.parametrize("epsilon", [1e-6, 1e-2])
@pytest.mark.parametrize("kept_channels", [60, 36, 8])
@pytest.mark.parametrize("name", CHANNELS_CUT)
def test_a_model_without_channels_is_the_whole_one_with_zeros_in_their_place(
    monkeypatch: pytest.MonkeyPatch, name: str, kept_channels: int, epsilon: float
):
    """The norms with their epsilon, and Gemma's embeddings, are scaled for the removed channels, whatever these contribute."""
    if name not in ARCHITECTURES:
        monkeypatch.setitem(ARCHITECTURES, name, (name, OTHERS))
    whole, cut = (make_model(name, torch.float32, rms_norm_eps=epsilon) for _ in range(2))
    kept = some(64, kept_channels, 1)
    silence_channels(whole, kept)
    narrow(cut, parameter_axes(cut, ["hidden"]), KeptIndices(hidden=kept))
    difference = (probe_logits(cut) - probe_logits(whole)).abs().max()
    assert difference <= 1e-4
    assert cut.config.hidden_size == kept_channels
    assert cut.config.rms_norm_eps == pytest.approx(epsilon * 64 / kept_channels)
    assert head_dimension(cut.config) == head_dimension(whole.config)


@pytest.mark.parametrize("name", [*DENSE, "qwen3-moe"])
def test_a_model_without_groups_is_the_whole_one_without_their_values(name: str):
    settings = {"num_attention_heads": 8, "num_key_value_heads": 4}
    whole, cut = (make_model(name, torch.float32, **settings) for _ in range(2))
    kept = [some(4, 2, layer) for layer in range(4)]
    silence_groups(whole, kept)
    narrow(cut, parameter_axes(cut, ["groups"]), KeptIndices(groups=kept))
    torch.testing.assert_close(probe_logits(cut), probe_logits(whole), rtol=1e-4, atol=1e-4)
    assert (cut.config.num_attention_heads, cut.config.num_key_value_heads) == (4, 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", DENSE)
def test_the_model_in_memory_is_the_one_that_reloads(tmp_path: Path, name: str, dtype: torch.dtype):
    config = width(keep=0.5, groups=1, hidden=0.6, multiple=4)
    done = run("prune", config, make(name, dtype), Context(text()), tmp_path)
    assert reload_difference(tmp_path, done.probe, done.tensors) == 0
    ours, theirs = done.loaded.model, load_folder(tmp_path).model
    settings = ("in_features", "out_features", "hidden_size", "intermediate_size", "num_key_value_groups", "head_dim", "scaling")
    for (path, module), (_, other) in zip(ours.named_modules(), theirs.named_modules(), strict=True):
        for setting in (*settings, "scalar_embed_scale", "embedding_dim"):
            assert getattr(module, setting, None) == getattr(other, setting, None), (path, setting)
    assert widths_of(theirs.config) == Widths(64, 1, 40)
    before = make_model(name).config
    for setting in ("query_pre_attn_scalar", "rope_parameters", "max_position_embeddings", "layer_types", "tie_word_embeddings"):
        assert getattr(theirs.config, setting, None) == getattr(before, setting, None), setting


@pytest.mark.parametrize("name", DENSE)
def test_a_narrow_model_generates_with_its_cache(tmp_path: Path, name: str):
    run("prune", width(groups=1, hidden=48, keep=64), make(name, torch.float32), Context(text()), tmp_path)
    model = load_folder(tmp_path).model
    prompt = text(2, 12).ids
    settings = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": -1, "attention_mask": torch.ones_like(prompt)}
    assert torch.equal(model.generate(prompt, use_cache=True, **settings), model.generate(prompt, use_cache=False, **settings))


def test_the_most_active_stay_with_their_weights():
    """Compared with activations that hooks of this test record."""
    model = make_model("llama-tied", torch.float32, num_attention_heads=8, num_key_value_heads=4)
    layer = model.model.layers[2]
    noted: dict[str, torch.Tensor] = {}
    for name in ("mlp.down_proj", "self_attn.o_proj"):
        layer.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs, name=name: noted.update({name: inputs[0].double().square().sum((0, 1))})
        )
    channels = torch.zeros(64, dtype=torch.float64)

    def add(_: torch.nn.Module, __: object, normed: torch.Tensor) -> None:
        channels.add_(normed.double().square().sum((0, 1)))

    for block in model.model.layers:
        for norm in (block.input_layernorm, block.post_attention_layernorm):
            norm.register_forward_hook(add)
    with torch.no_grad():
        model(input_ids=text().ids, use_cache=False)
    loaded = make("llama-tied", torch.float32, num_attention_heads=8, num_key_value_heads=4)
    outcome = apply(loaded, width(keep=96, groups=2, hidden=48), Context(text()))
    neurons = noted["mlp.down_proj"].topk(96).indices.sort().values
    groups = noted["self_attn.o_proj"].view(4, 16).sum(1).topk(2).indices.sort().values
    hidden = channels.topk(48).indices.sort().values
    heads = (groups[:, None] * 16 + torch.arange(16)).flatten()
    keys = (groups[:, None] * 8 + torch.arange(8)).flatten()
    cut = loaded.model.model.layers[2]
    assert torch.equal(cut.mlp.gate_proj.weight, layer.mlp.gate_proj.weight[neurons][:, hidden])
    assert torch.equal(cut.mlp.up_proj.bias, layer.mlp.up_proj.bias[neurons])
    assert torch.equal(cut.mlp.down_proj.weight, layer.mlp.down_proj.weight[hidden][:, neurons])
    assert torch.equal(cut.mlp.down_proj.bias, layer.mlp.down_proj.bias[hidden])
    assert torch.equal(cut.self_attn.q_proj.weight, layer.self_attn.q_proj.weight[heads][:, hidden])
    assert torch.equal(cut.self_attn.k_proj.bias, layer.self_attn.k_proj.bias[keys])
    assert torch.equal(cut.self_attn.v_proj.weight, layer.self_attn.v_proj.weight[keys][:, hidden])
    assert torch.equal(cut.self_attn.o_proj.weight, layer.self_attn.o_proj.weight[hidden][:, heads])
    assert torch.equal(loaded.model.lm_head.weight, model.lm_head.weight[:, hidden])
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
    lost = outcome.details["activation_energy_lost"]
    assert lost["neurons"][2] == pytest.approx(1 - float(noted["mlp.down_proj"][neurons].sum() / noted["mlp.down_proj"].sum()), abs=1e-5)
    assert lost["hidden"] == [pytest.approx(1 - float(channels[hidden].sum() / channels.sum()), abs=1e-5)]


def test_gathered_statistics_and_ones_own_cut_the_same(tmp_path: Path):
    config = width(keep=64, groups=1, hidden=32)
    gather(make("gemma3"), text(), tmp_path, grams=False, progress=silent)
    gathered, own = make("gemma3"), make("gemma3")
    assert apply(gathered, config, Context(text(), gathered=tmp_path)).details == apply(own, config, Context(text())).details
    assert torch.equal(probe_logits(gathered.model), probe_logits(own.model))


@pytest.mark.slow
@pytest.mark.parametrize("axes", [list(some) for size in (1, 2, 3) for some in itertools.combinations(AXES, size)], ids="-".join)
@pytest.mark.parametrize("name", ["llama-tied", "qwen3", "gemma2"])
def test_the_parameters_are_met_by_the_largest_common_share(name: str, axes: list[str]):
    """Compared with all shares of a grid that is finer than any step."""
    model = make_model(name, num_attention_heads=8, num_key_value_heads=4)
    whole = widths_of(model.config)
    unit = 2 if heads_must_divide(model.config) else 0

    def at(share: float) -> Widths | None:
        neurons = int(share * whole.neurons) // 16 * 16 if "neurons" in axes else whole.neurons
        groups = max(1, int(share * whole.groups)) if "groups" in axes else whole.groups
        if "groups" in axes and "hidden" not in axes and unit:
            groups = max(g for g in range(1, groups + 1) if 64 % (unit * g) == 0)
        step = 16 * 3 if unit and groups == 3 else 16
        hidden = int(share * whole.hidden) // step * step if "hidden" in axes else whole.hidden
        return Widths(max(16, neurons), groups, max(step, hidden))

    sizes = parameter_counter(model, parameter_axes(model, axes))
    for parameters in (0.9, 0.7, 0.5):
        target = int(parameters * parameters_of(model))
        expected = next((w for n in range(999, 0, -1) if (w := at(n / 1000 + 1e-9)) is not None and sizes(w) <= target), None)
        loaded = make(name, num_attention_heads=8, num_key_value_heads=4)
        if expected is None:
            with pytest.raises(BadInput, match=r"parameters: .* are too few: cutting .* leaves .* at least"):
                apply(loaded, width(parameters=parameters, axes=axes, multiple=16), Context(None))
            continue
        apply(loaded, width(parameters=parameters, axes=axes, multiple=16), Context(text(2, 16)))
        assert widths_of(loaded.model.config) == expected
        assert parameters_of(loaded.model) == sizes(expected) <= target
        exact = make(name, num_attention_heads=8, num_key_value_heads=4)
        apply(exact, width(parameters=sizes(expected), axes=axes, multiple=16), Context(text(2, 16)))
        assert widths_of(exact.model.config) == expected, "a target that is met exactly is met"


def test_shares_are_rounded():
    def left(**settings: Any) -> Widths:
        loaded = make("qwen3", num_attention_heads=8, num_key_value_heads=4)
        apply(loaded, width(**settings), Context(text(2, 16)))
        return widths_of(loaded.model.config)

    assert left(keep=0.6) == Widths(64, 4, 64)
    assert left(keep=0.6, multiple=1) == Widths(77, 4, 64)
    assert left(groups=0.7) == Widths(128, 3, 64)
    assert left(hidden=0.8, multiple=6) == Widths(128, 4, 54)
    assert left(keep=100, hidden=50, groups=3) == Widths(100, 3, 50), "numbers are taken as they are"


def test_heads_must_divide_the_hidden_size_where_transformers_asks_for_it(tmp_path: Path):
    """A Llama with 3 heads and 64 channels saves and computes, but transformers does not load it."""
    settings = {"num_attention_heads": 4, "num_key_value_heads": 4}
    with pytest.raises(BadInput, match=r"groups: 3 leaves 3 query heads, which must divide the hidden size 64 .*; these do: 1, 2$"):
        apply(make("llama", **settings), width(groups=3), Context(None))
    with pytest.raises(BadInput, match=r"hidden: 50 is no multiple of the 4 query heads, .*; take 48 or 52$"):
        apply(make("llama", **settings), width(hidden=50), Context(None))
    with pytest.raises(BadInput, match=r"hidden: 50 is no multiple of the 3 query heads, .*; take 48 or 51$"):
        apply(make("gemma2", **settings), width(groups=3, hidden=50), Context(None))
    for name, config in (("llama", width(groups=3, hidden=0.8, multiple=8)), ("mistral", width(groups=3)), ("qwen2", width(hidden=50))):
        done = run("prune", config, make(name, **settings), Context(text()), tmp_path / name)
        assert reload_difference(tmp_path / name, done.probe, done.tensors) == 0


def test_which_architectures_ask_for_it():
    asking = {name for name in ARCHITECTURES if heads_must_divide(make_model(name).config)}
    assert asking == {"llama", "llama-tied", "gemma2", "gemma3", "gpt-neox"}


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("gpt-neox", width(keep=64), "gpt_neox: width pruning needs gate_proj, up_proj, down_proj .*; layer 0 has GPTNeoXMLP"),
        ("gpt-neox", width(groups=2), "gpt_neox: width pruning needs q_proj, k_proj, .*; layer 0 has no module named self_attn"),
        ("gpt-neox", width(hidden=32), "gpt_neox: width pruning needs q_proj, k_proj, .*; layer 0 has no module named self_attn"),
        ("qwen3-moe", width(keep=64), "qwen3_moe: width pruning needs gate_proj, .*; layer 0 has Qwen3MoeSparseMoeBlock"),
        ("qwen3-moe", width(hidden=32), "qwen3_moe: width pruning needs gate_proj, .*; layer 0 has Qwen3MoeSparseMoeBlock"),
        ("olmo2", width(groups=1), r"olmo2: width pruning cannot cut groups, since .*q_norm.weight of shape \(64,\) is \(128,\)"),
        ("olmo", width(hidden=32), "olmo: width pruning would change .*layernorm.normalized_shape from .* what that does is not known"),
        ("stablelm", width(hidden=32), r"stablelm: width pruning cannot cut hidden, since .*q_proj.* of shape \(64, 64\) is \(128, 128\)"),
        ("cohere2", width(hidden=32), "cohere2: width pruning cannot cut .* past .*norm: Cohere2LayerNorm is no root-mean-square norm"),
        ("gpt2", width(keep=64), "gpt2: width pruning needs a config that states intermediate_size"),
        ("phi3", width(groups=1), "phi3: width pruning needs q_proj, k_proj, v_proj, o_proj .*; layer 0 has Phi3Attention"),
    ],
)  # fmt: skip
def test_what_cannot_be_cut_is_refused_by_name_before_a_weight_changes(
    monkeypatch: pytest.MonkeyPatch, name: str, config: PruneWidth, message: str
):
    grouped = {"num_key_value_heads": 2, "intermediate_size": 128, "head_dim": 16}
    for other in ("olmo", "olmo2", "stablelm", "phi3", "cohere2"):
        monkeypatch.setitem(ARCHITECTURES, other, (other, {**grouped, "tie_word_embeddings": False}))
    monkeypatch.setitem(ARCHITECTURES, "gpt2", ("gpt2", {}))
    loaded = make(name)
    before = {key: value.clone() for key, value in loaded.model.state_dict().items()}
    settings = loaded.model.config.to_dict()
    with pytest.raises(UnsupportedModel, match=message):
        apply(loaded, config, Context(text(2, 16)))
    after = loaded.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert loaded.model.config.to_dict() == settings


SERVED = {
    "granite": {"keep", "groups", "hidden"},
    "cohere2": {"keep", "groups"},
    "olmo2": {"keep", "hidden"},
    "starcoder2": {"groups"},
    "phi3": set(),
    "helium": {"keep"},
    "nemotron": {"groups"},
    "glm": {"groups"},
}


@pytest.mark.parametrize("name", SERVED)
def test_other_architectures_are_served_or_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    """Every combination of widths either loads or is refused."""
    monkeypatch.setitem(ARCHITECTURES, name, (name, {"num_key_value_heads": 2, "intermediate_size": 128, "head_dim": 16}))
    for axis, config in {"keep": width(keep=64), "groups": width(groups=1), "hidden": width(hidden=32)}.items():
        if axis not in SERVED[name]:
            with pytest.raises(UnsupportedModel, match=f"^{name}: width pruning "):
                run("prune", config, make(name), Context(text(2, 16)), tmp_path / axis)
            continue
        done = run("prune", config, make(name), Context(text(2, 16)), tmp_path / axis)
        assert reload_difference(tmp_path / axis, done.probe, done.tensors) == 0


def test_layers_of_other_heads_than_the_config_states_are_refused():
    model = make_model("llama")
    model.model.layers[2].self_attn.q_proj = torch.nn.Linear(64, 48, bias=False)
    with pytest.raises(
        UnsupportedModel, match=r"needs 4 query heads and 2 key/value heads of 16 dimensions .* of layer 2 have 48, 32, 32 outputs"
    ):
        parameter_axes(model, ["groups"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 128}, "prune width: keep: the model has 128 neurons here; keep at least 1 and at most 127"),
        ({"keep": 0.1}, r"prune width: keep: 0.1 leaves 0 \(in steps of 32\); the model has 128 neurons here"),
        ({"groups": 2}, "prune width: groups: the model has 2 key/value heads here; keep at least 1 and at most 1"),
        ({"groups": 0.9}, "prune width: groups: 0.9 leaves 2; the model has 2 key/value heads here"),
        ({"hidden": 64}, "prune width: hidden: the model has 64 hidden channels here; keep at least 1 and at most 63"),
        ({"keep": 999, "hidden": 99}, "keep: the model has 128 .*; hidden: the model has 64"),
        ({"parameters": 10**9}, r"parameters: the model has 186,\d* parameters here, so 1,000,000,000 leaves nothing to drop"),
        ({"parameters": 0.2}, r"parameters: 37,\d* are too few: cutting neurons leaves 11\d,\d* at least; name more axes"),
    ],
)
def test_what_leaves_nothing_or_all_is_refused_before_any_text_is_read(settings: dict[str, Any], message: str):
    with pytest.raises(BadInput, match=message):
        apply(make("llama"), width(**settings), Context(None))


def test_a_dead_layer_loses_nothing_when_it_is_cut():
    loaded = make("llama")
    loaded.model.model.layers[1].mlp.up_proj.weight.data.zero_()
    outcome = apply(loaded, width(keep=64), Context(text()))
    assert outcome.details["activation_energy_lost"]["neurons"][1] == 0
    assert (outcome.details["neurons_before"], outcome.details["neurons_after"]) == (128, 64)


@pytest.mark.parametrize("config", [width(keep=64), width(groups=1), width(hidden=32)], ids=["neurons", "groups", "hidden"])
def test_scores_that_mean_nothing_stop_the_step_before_it_cuts(tmp_path: Path, config: PruneWidth):
    loaded = make("llama")
    loaded.model.model.layers[2].mlp.up_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(RunFailed, match=r"layer 2, mlp\.down_proj: its inputs on the calibration text are not finite"):
        run("prune", config, loaded, Context(text()), tmp_path / "model")
    assert parameters_of(loaded.model) == parameters_of(make_model("llama"))
    assert not (tmp_path / "model").exists()
