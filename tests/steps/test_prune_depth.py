"""Depth pruning drops the layers with the lowest scores, and the result works as a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from models.tiny import ARCHITECTURES, VOCABULARY, make, make_model, text
from transformers import AutoConfig, PreTrainedModel

from compresslab.errors import BadInput, RunFailed, UnsupportedModel
from compresslab.methods.depth import PruneDepth
from compresslab.models import chunks
from compresslab.models.anatomy import parameters_of
from compresslab.models.calibration import removals
from compresslab.models.calibration.removals import order_removals, read_removals
from compresslab.models.calibration.statistics import gather
from compresslab.models.load import load_folder, probe_logits
from compresslab.models.ranks import ALONE
from compresslab.models.save import reload_difference, save
from compresslab.models.streamed.digests import tensor_digests
from compresslab.models.surgery.shortening import drop_layers, shortened
from compresslab.steps import prune_depth
from compresslab.steps.contract import Context, run, silent
from compresslab.steps.prune_depth import apply

TWO = PruneDepth(method="depth", keep=2)
BY = ["block-influence", "angular-distance", "loss"]
SEVERAL = ["llama", "qwen2-sliding", "gemma2", "gemma3", "gpt-neox", "qwen3-moe", "smollm3"]


def by(measure: str, **settings: object) -> PruneDepth:
    return PruneDepth.model_validate({"method": "depth", "by": measure, **settings})


def silence(model: PreTrainedModel, number: int) -> None:
    """Make a layer the identity."""
    for name, parameter in model.base_model.layers[number].named_parameters():
        if any(part in name for part in ("o_proj", "down_proj", "attention.dense", "dense_4h_to_h")):
            parameter.data.zero_()


@pytest.mark.parametrize("kind", ["full_attention", "sliding_attention"])
def test_a_kind_of_layer_of_which_none_is_left_leaves_nothing_behind(tmp_path: Path, kind: str):
    loaded = make("gemma3")
    kept = [number for number, other in enumerate(loaded.model.config.layer_types) if other != kind]
    drop_layers(loaded.model, kept)
    save(loaded, tmp_path)
    assert reload_difference(tmp_path, probe_logits(loaded.model), tensor_digests(loaded.model)) == 0


@pytest.mark.parametrize("measure", BY)
@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3", "gpt-neox", "qwen3-moe", "smollm3"])
def test_the_layers_that_do_nothing_are_dropped_and_nothing_is_lost(tmp_path: Path, name: str, measure: str):
    loaded = make(name, torch.float32)
    for number in (1, 2):
        silence(loaded.model, number)
    before = probe_logits(loaded.model)
    if measure == "loss":  # of a random model any layer may be better gone
        gathered = tmp_path / "shared"
        order_removals(loaded.model, text(), [by("loss", keep=3)], gathered, silent)
        found = removals._Search(loaded.model, text(), ALONE).losses_without_each(lambda _: None)
        assert found[1] == pytest.approx(read_removals(gathered).whole, abs=1e-5) == found[2]
        return
    done = run("prune", by(measure, keep=2), loaded, Context(text()), tmp_path / "model")
    assert done.record.details["dropped_layers"] == [1, 2]
    assert torch.equal(done.probe, before)


def test_the_least_influential_layers_go_whichever_they_are(tmp_path: Path):
    influence = gather(make("llama"), text(), tmp_path / "shared", grams=False, progress=silent).block_influence
    done = run("prune", PruneDepth(method="depth", keep=3), make("llama"), Context(text()), tmp_path / "model")
    assert done.record.details["block_influence"] == [round(value, 6) for value in influence]
    lowest, second = sorted(influence)[:2]
    assert done.record.details["margin"] == round(second / lowest - 1, 4)
    assert done.record.details["dropped_layers"] == [influence.index(min(influence))]
    assert done.record.calibration_tokens == text().ids.numel()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_run_that_goes_is_the_one_whose_ends_are_most_alike(count: int):
    """Compared with the hidden states of transformers for the last token of each sequence."""
    model = make_model("llama", torch.float32, num_hidden_layers=6)
    states: list[torch.Tensor] = []
    handles = [layer.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0][:, -1])) for layer in model.model.layers]
    handles.append(model.model.layers[-1].register_forward_hook(lambda *call: states.append(call[2][:, -1])))
    with torch.no_grad():
        model(input_ids=text().ids, use_cache=False)
    for handle in handles:
        handle.remove()
    angles = [torch.cosine_similarity(states[first], states[first + count]).clamp(-1, 1).arccos().mean() for first in range(7 - count)]
    first = min(range(7 - count), key=lambda number: float(angles[number]))
    loaded = make("llama", torch.float32, num_hidden_layers=6)
    outcome = apply(loaded, by("angular-distance", keep=6 - count), Context(text()))
    assert outcome.details["dropped_layers"] == list(range(first, first + count))
    expected = [float(angle) / torch.pi for angle in angles]
    assert outcome.details["angular_distance"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", SEVERAL)
def test_the_order_of_removal_is_that_of_brute_force(tmp_path: Path, name: str):
    """Compared with the losses of shortened models, computed by transformers."""
    ids = text(6, 24).ids
    order: list[int] = []
    losses: list[float] = []
    for _ in range(2):
        found = {}
        for number in set(range(4)) - set(order):
            model = make_model(name, torch.float32)
            drop_layers(model, [layer for layer in range(4) if layer not in (*order, number)])
            with torch.no_grad():
                found[number] = float(model(input_ids=ids, labels=ids, use_cache=False).loss)
        order.append(min(found, key=lambda number: found[number]))
        losses.append(found[order[-1]])
    model = make_model(name, torch.float32)
    order_removals(model, text(6, 24), [by("loss", keep=2)], tmp_path, silent)
    removed = read_removals(tmp_path)
    assert removed.order == order
    assert removed.losses == pytest.approx(losses, rel=1e-4)
    assert (removed.tokens, removed.text, removed.stopped) == (144, "a rule", "")


def test_the_order_does_not_depend_on_how_the_text_is_batched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = make_model("gemma2", torch.float32)
    order_removals(model, text(7, 16), [TWO], tmp_path / "together", silent)
    monkeypatch.setattr("compresslab.models.documents.boundaries.BATCH_TOKENS", 32)
    monkeypatch.setattr(chunks, "LOGITS_A_CHUNK", 7 * VOCABULARY)
    order_removals(model, text(7, 16), [TWO], tmp_path / "apart", silent)
    together, apart = read_removals(tmp_path / "together"), read_removals(tmp_path / "apart")
    assert apart.order == together.order
    assert apart.losses == pytest.approx(together.losses, rel=1e-5)
    assert apart.whole == pytest.approx(together.whole, rel=1e-5)


def test_one_order_serves_every_reader_and_is_as_long_as_the_longest_needs(tmp_path: Path):
    model = make_model("llama")
    total, layer = parameters_of(model), parameters_of(model.model.layers[0])
    readers = [by("loss", keep=3), by("loss", parameters=total - 2 * layer), by("loss", keep=9)]
    order_removals(model, text(), readers, tmp_path, silent)
    assert len(read_removals(tmp_path).order) == 2, "the last reader cannot be served and asks for nothing"
    for reader, count in ((readers[0], 1), (readers[1], 2)):
        outcome = apply(make("llama"), reader, Context(text(), gathered=tmp_path))
        assert outcome.details["removal_order"] == read_removals(tmp_path).order[:count]
        assert outcome.details["dropped_layers"] == sorted(read_removals(tmp_path).order[:count])
        assert len(outcome.details["losses_after"]) == count
    with pytest.raises(BadInput, match="keep: the model has 4 layers here"):
        apply(make("llama"), readers[2], Context(text(), gathered=tmp_path))


def test_a_gathered_order_and_ones_own_are_the_same(tmp_path: Path):
    order_removals(make_model("qwen3"), text(), [TWO, by("loss", keep=1)], tmp_path, silent)
    gathered = apply(make("qwen3"), by("loss", keep=2), Context(text(), gathered=tmp_path))
    assert apply(make("qwen3"), by("loss", keep=2), Context(text())).details == gathered.details


@pytest.mark.parametrize("measure", BY)
@pytest.mark.parametrize("name", ["llama", "qwen2-sliding", "gemma3", "gpt-neox", "qwen3-moe", "smollm3"])
def test_a_pruned_model_reloads_as_it_is(tmp_path: Path, name: str, measure: str):
    done = run("prune", by(measure, keep=2), make(name), Context(text()), tmp_path)
    assert reload_difference(tmp_path, done.probe, done.tensors) == 0
    assert len(done.record.details["dropped_layers"]) == 2


@pytest.mark.parametrize("name", SEVERAL)
def test_a_pruned_model_is_consistent_and_generates_with_its_cache(tmp_path: Path, name: str):
    run("prune", TWO, make(name, torch.float32), Context(text()), tmp_path)
    model = load_folder(tmp_path).model
    kept = [layer for layer in range(4) if layer not in dropped(tmp_path, name)]
    whole = make_model(name, torch.float32)
    assert model.config.num_hidden_layers == len(model.base_model.layers) == 2
    for setting in ("layer_types", "no_rope_layers"):
        listed = getattr(whole.config, setting, None)
        if listed is not None:
            assert getattr(model.config, setting) == [listed[number] for number in kept]
    # Longer than the sliding window of 8, so that the cache drops positions.
    prompt = text(2, 12).ids
    settings = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": -1, "attention_mask": torch.ones_like(prompt)}
    assert torch.equal(model.generate(prompt, use_cache=True, **settings), model.generate(prompt, use_cache=False, **settings))


def dropped(folder: Path, name: str) -> list[int]:
    """The layers of the original model that are not in the folder, identified by their weights."""
    whole, part = make_model(name, torch.float32).base_model.layers, load_folder(folder).model.base_model.layers
    first = [next(iter(layer.parameters())) for layer in whole]
    there = {number for number in range(4) for layer in part if torch.equal(first[number], _twin(whole, layer, number))}
    return [number for number in range(4) if number not in there]


def _twin(whole: torch.nn.ModuleList, layer: torch.nn.Module, number: int) -> torch.Tensor:
    name = next(iter(dict(whole[number].named_parameters())))
    return layer.get_parameter(name)


def test_layer_numbers_run_from_zero_in_memory_too():
    model = make_model("qwen3")
    drop_layers(model, [1, 3])
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1]
    assert model.model.config.num_hidden_layers == 2, "the backbone and the head share one config"


def test_a_layer_whose_kind_follows_from_its_number_does_not_move():
    model = make_model("qwen3-moe", mlp_only_layers=[0])
    before, settings = probe_logits(model), model.config.to_dict()
    with pytest.raises(
        UnsupportedModel, match=r"qwen3_moe: prune depth would move layer 2 to place 0.* Qwen3MoeSparseMoeBlock .* Qwen3MoeMLP"
    ):
        drop_layers(model, [2, 3])
    assert model.config.to_dict() == settings
    assert torch.equal(probe_logits(model), before)
    drop_layers(model, [0, 3])
    assert len(model.model.layers) == 2


@pytest.mark.parametrize("measure", ["angular-distance", "loss"])
def test_candidates_that_cannot_go_are_passed_over(measure: str):
    """Layer 0 has no effect and the lowest score, but it is dense by its number, so another layer would have to become dense."""
    loaded = make("qwen3-moe", torch.float32, mlp_only_layers=[0])
    silence(loaded.model, 0)
    outcome = apply(loaded, by(measure, keep=1), Context(text()))
    assert outcome.details["dropped_layers"] == [1, 2, 3]
    assert len(loaded.model.model.layers) == 1


@pytest.mark.parametrize(
    ("measure", "end"), [("angular-distance", "no run of 2 layers can go"), ("loss", "after 1 layers no other can go")]
)
def test_nothing_is_dropped_where_no_further_layer_can_go(monkeypatch: pytest.MonkeyPatch, measure: str, end: str):
    """In an architecture whose layers depend on how many there are; where they depend on their number, the last one can always go."""
    for module in (removals, prune_depth):
        monkeypatch.setattr(module, "refusal_to_drop", lambda _, dropped: "the end is not the end" if len(dropped) > 1 else "")
    loaded = make("llama", torch.float32)
    before = probe_logits(loaded.model)
    with pytest.raises(UnsupportedModel, match=f"the end is not the end; {end}"):
        apply(loaded, by(measure, keep=2), Context(text()))
    assert torch.equal(probe_logits(loaded.model), before)


@pytest.mark.parametrize("measure", BY)
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_as_many_layers_stay_as_fit_into_the_parameters(name: str, measure: str):
    whole = make_model(name)
    total, layer = parameters_of(whole), parameters_of(whole.base_model.layers[0])
    cases = [(total - layer, 3), (total - layer - 1, 2), (total - 1, 3), (total - 3 * layer, 1), ((total - 1.5 * layer) / total, 2)]
    for parameters, keep in cases if measure == "block-influence" else cases[1:2]:
        loaded = make(name)
        apply(loaded, by(measure, parameters=parameters), Context(text(2, 16)))
        assert loaded.model.config.num_hidden_layers == keep, parameters
        assert parameters_of(loaded.model) == total - (4 - keep) * layer


def test_layers_of_several_sizes_are_counted_one_by_one():
    """The dense layer is the smallest: dropping it and another layer removes less than dropping two others."""
    whole = make_model("qwen3-moe", torch.float32, mlp_only_layers=[3], intermediate_size=16)
    sizes = [parameters_of(layer) for layer in whole.model.layers]
    assert sizes[3] < sizes[0] == sizes[1] == sizes[2]
    target = parameters_of(whole) - sizes[0] - sizes[3]
    loaded = make("qwen3-moe", torch.float32, mlp_only_layers=[3], intermediate_size=16)
    silence(loaded.model, 3)
    outcome = apply(loaded, by("block-influence", parameters=target), Context(text()))
    assert len(outcome.details["dropped_layers"]) == 2
    assert 3 in outcome.details["dropped_layers"]
    assert parameters_of(loaded.model) == target


@pytest.mark.parametrize("measure", BY)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 4}, "prune depth: keep: the model has 4 layers here; keep at least 1 and at most 3"),
        ({"keep": 0.1}, "prune depth: keep: 0.1 leaves 0; the model has 4 layers here"),
        ({"parameters": 30_000}, r"prune depth: parameters: 30,000 are too few: with 1 of its 4 layers the model has 75,\d\d\d"),
        ({"parameters": 10**9}, "prune depth: parameters: the model has 186,\\d* parameters here, so 1,000,000,000 leaves nothing to drop"),
    ],
)
def test_what_leaves_nothing_or_all_is_refused_before_any_text_is_read(measure: str, settings: dict[str, float], message: str):
    with pytest.raises(BadInput, match=message):
        apply(make("llama"), by(measure, **settings), Context(None))


@pytest.mark.parametrize("measure", BY)
def test_scores_that_mean_nothing_stop_the_step_before_it_cuts(tmp_path: Path, measure: str):
    loaded = make("llama")
    loaded.model.model.layers[2].mlp.up_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(RunFailed, match=r"not finite|loss on the calibration text is nan|logits are not finite"):
        run("prune", by(measure, keep=2), loaded, Context(text()), tmp_path / "model")
    assert len(loaded.model.model.layers) == 4
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(("measure", "what"), [("block-influence", "block influence"), ("angular-distance", "angular distance")])
def test_a_last_layer_that_overflows_is_seen_by_its_output(measure: str, what: str):
    """Its inputs are finite, so statistics of inputs do not detect it."""
    loaded = make("llama")
    loaded.model.model.layers[3].mlp.down_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(RunFailed, match=f"the {what} of layer 3 is nan: the activations are not finite"):
        apply(loaded, by(measure, keep=2), Context(text()))


def test_ordering_leaves_the_model_as_it_was(tmp_path: Path):
    model = make_model("gemma3")
    before, settings = probe_logits(model), model.config.to_dict()
    order_removals(model, text(), [by("loss", keep=1)], tmp_path, silent)
    assert torch.equal(probe_logits(model), before)
    assert model.config.to_dict() == settings
    assert not any(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("measure", BY)
def test_progress_is_told_from_nothing_to_all(measure: str):
    told: list[float] = []
    apply(make("llama"), by(measure, keep=1), Context(text(4, 32), progress=lambda share, *_: told.append(share)))
    assert told == sorted(told)
    assert told[-1] == 1
    assert len(told) >= 3


def test_a_list_that_is_by_chance_as_long_as_there_are_layers_is_no_list_of_layers():
    config = AutoConfig.for_model("mamba2", num_hidden_layers=2, hidden_size=64, num_heads=4, head_dim=32, state_size=8, n_groups=1)
    assert len(config.time_step_limit) == config.num_hidden_layers
    assert list(shortened(config, [1]).time_step_limit) == list(config.time_step_limit)
    indices = AutoConfig.for_model("llama4_text", num_hidden_layers=4, moe_layers=[0, 1, 2, 3], no_rope_layers=[1, 1, 0, 1])
    short = shortened(indices, [0, 2])
    assert (short.moe_layers, short.no_rope_layers) == ([0, 1, 2, 3], [1, 0])
