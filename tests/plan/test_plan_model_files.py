"""Dimensions, formats and vocabularies of models before they are loaded, and the estimates from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from plan_helpers import CONFIG, HEAD, FolderMaker, plan_of, write_safetensors

from compresslab.methods.amounts import Widths
from compresslab.methods.dimensions import Dimensions
from compresslab.plan.estimate import Estimate, estimate, speed_of
from compresslab.plan.model_files import HEADS_DIVIDE, dimensions_of, packed_by, vocabulary_digest
from compresslab.recipe.source import Source

SMOLLM2 = Source("offline", "smollm2-135m-instruct")


def parameters(config: dict[str, object], shapes: dict[str, list[int]], folder: FolderMaker) -> int:
    dimensions = dimensions_of(Source("folder", str(folder("m", shapes=shapes, **config))))
    assert dimensions is not None
    return dimensions.parameters


def smollm2() -> Dimensions:
    dimensions = dimensions_of(SMOLLM2)
    assert dimensions is not None
    return dimensions


def test_smollm2() -> None:
    dimensions = smollm2()
    assert (dimensions.parameters, dimensions.layers, dimensions.hidden, dimensions.intermediate) == (134_515_008, 30, 576, 1536)
    assert dimensions.without_layers(24).parameters == 134_515_008 - 6 * 3_540_096
    narrow = dimensions.widths._replace(neurons=1152)
    assert dimensions.narrower(narrow).parameters == 134_515_008 - 30 * 3 * 576 * 384
    assert dimensions.narrower(narrow).without_layers(24) == dimensions.without_layers(24).narrower(narrow)
    assert dimensions.narrower(dimensions.widths._replace(groups=2)).parameters == 134_515_008 - 30 * 2 * 576 * (3 + 1) * 64


@pytest.mark.parametrize("shape", ["plain", "biased", "untied", "normed"])
def test_pruned_sizes_are_those_of_real_models(shape: str, tmp_path: Path) -> None:
    """Compared with the model that transformers builds from the pruned config, for each order of cuts."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, more = {
        "plain": ("llama", {"head_dim": 16}),
        "biased": ("qwen2", {"head_dim": 16}),
        "untied": ("mistral", {"head_dim": 8, "tie_word_embeddings": False}),
        "normed": ("gemma3_text", {"head_dim": 8}),
    }[shape]
    config = CONFIG | {"tie_word_embeddings": True, "model_type": kind} | more

    def size(**change: int) -> int:
        with torch.device("meta"):
            whole = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{**config, **change}))
        return sum(parameter.numel() for parameter in whole.parameters())

    (tmp_path / "config.json").write_text(json.dumps(config))
    write_safetensors(tmp_path / "model.safetensors", {"all": [size()]})
    dimensions = dimensions_of(Source("folder", str(tmp_path)))
    assert dimensions is not None
    assert dimensions.parameters == size()
    assert dimensions.without_layers(3).parameters == size(num_hidden_layers=3)
    slack = 0.005 * size()  # of biases and of norms over heads, whose sizes follow from more than one width
    for widths, change in {
        Widths(64, 2, 64): {"intermediate_size": 64},
        Widths(96, 1, 64): {"num_key_value_heads": 1, "num_attention_heads": 2},
        Widths(96, 2, 48): {"hidden_size": 48},
        Widths(64, 1, 48): {"intermediate_size": 64, "num_key_value_heads": 1, "num_attention_heads": 2, "hidden_size": 48},
    }.items():
        assert dimensions.narrower(widths).parameters == pytest.approx(size(**change), abs=slack), widths
        if shape in ("plain", "untied"):
            assert dimensions.narrower(widths).parameters == size(**change), widths
        assert dimensions.narrower(widths).without_layers(2) == dimensions.without_layers(2).narrower(widths)


def test_files_that_hold_more_than_the_text_model_say_nothing_about_a_layer(folder: FolderMaker) -> None:
    plain, larger = (
        dimensions_of(Source("folder", str(folder(name, shapes={"all": [count]})))) for name, count in (("a", 1), ("b", 10**9))
    )
    assert plain is not None
    assert larger is not None
    assert larger.parameters == 10**9
    assert larger.other_parameters == plain.other_parameters == 2 * 64


def test_which_heads_must_divide_the_hidden_size_is_what_transformers_says() -> None:
    """The list of architectures, from the errors of their configs."""
    from transformers import AutoConfig

    for kind in HEADS_DIVIDE:
        config = AutoConfig.for_model(kind).get_text_config()
        config.hidden_size = config.num_attention_heads * 3 + 1
        with pytest.raises(ValueError, match=r"multiple of|divisible"):
            config.validate_architecture()


def test_a_folder_counts_by_the_headers_of_its_files(folder: FolderMaker, tmp_path: Path) -> None:
    assert parameters({}, {"a": [3, 5], "b": [7], "scalar": []}, folder) == 15 + 7 + 1
    path = tmp_path / "m"
    write_safetensors(path / "consolidated.safetensors", {"a": [100]})
    assert dimensions_of(Source("folder", str(path))).parameters == 23  # type: ignore[union-attr]
    (path / "model.safetensors").unlink()
    for number in (1, 2):
        write_safetensors(path / f"model-{number}.safetensors", {f"w{number}": [number, 2]})
    index = {"metadata": {}, "weight_map": {"w1": "model-1.safetensors", "w2": "model-2.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert dimensions_of(Source("folder", str(path))).parameters == 6  # type: ignore[union-attr]


def test_without_weights_the_config_tells(folder: FolderMaker, tmp_path: Path) -> None:
    by_config = 4 * (3 * 64 * 96 + 2 * 64 * 64 + 2 * 64 * 32 + 2 * 64) + 100 * 64 + 64
    path = folder("m")
    for content in (b"", b"\xff" * 20, b"\x02\0\0\0\0\0\0\0[]", b"\x0c\0\0\0\0\0\0\0" + b'{"w": {"x":'):
        (path / "model.safetensors").write_bytes(content)
        assert dimensions_of(Source("folder", str(path))).parameters == by_config  # type: ignore[union-attr]
    for shape in ([[1], 2**70], [[1], 2**40], ["x", 2], [None]):
        write_safetensors(path / "model.safetensors", {"w": shape})  # type: ignore[dict-item]
        assert dimensions_of(Source("folder", str(path))).parameters == by_config  # type: ignore[union-attr]
    # Packed weights have other tensors than the model has parameters.
    assert parameters({"quantization_config": {"quant_method": "gptq"}}, {"a": [3]}, lambda _, **rest: folder("q", **rest)) == by_config
    (tmp_path / "m" / "model.safetensors").unlink()
    assert dimensions_of(Source("folder", str(path))).parameters == by_config  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "{", '{"text_config": 3}']
    + [
        json.dumps(CONFIG | change)
        for change in (
            {"num_attention_heads": 0},
            {"hidden_size": "wide"},
            {"hidden_size": None},
            {"num_hidden_layers": -1},
            {"hidden_size": float("inf")},
        )
    ],
)
def test_a_config_that_tells_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    source = Source("folder", str(tmp_path))
    assert dimensions_of(source) is None
    assert packed_by(source) == ""
    assert vocabulary_digest(source) is None


def test_text_models_in_larger_ones_and_experts(folder: FolderMaker) -> None:
    nested = folder("nested")
    (nested / "config.json").write_text(json.dumps({"text_config": CONFIG, "tie_word_embeddings": True}))
    assert dimensions_of(Source("folder", str(nested))) == dimensions_of(Source("folder", str(folder("flat"))))
    experts = folder("experts", num_local_experts=8, quantization_config={"quant_method": "gptq"})
    plain = folder("plain", quantization_config={"quant_method": "gptq"})
    ours, theirs = (dimensions_of(Source("folder", str(path))) for path in (experts, plain))
    assert ours is not None
    assert theirs is not None
    assert ours.parameters - theirs.parameters == 4 * 7 * 3 * 64 * 96


def test_hub_models_are_known_from_the_cache_alone(folder: FolderMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    model = Source("hub", "owner/model")
    assert dimensions_of(model) is None
    cached = tmp_path / "hub" / "models--owner--model"
    (cached / "snapshots").mkdir(parents=True)
    folder("abc").rename(cached / "snapshots" / "abc")
    folder("old", words="a").rename(cached / "snapshots" / "aaa")
    assert dimensions_of(model) is None, "nobody knows which of the two is meant"
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc\n")
    for revision in (None, "main", "abc"):
        assert dimensions_of(model._replace(revision=revision)) is not None
        assert vocabulary_digest(model._replace(revision=revision)) != vocabulary_digest(model._replace(revision="aaa"))
    assert dimensions_of(model._replace(revision="0123")) is None
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert dimensions_of(model) is not None


def test_vocabularies_as_lists(folder: FolderMaker) -> None:
    one, other = folder("one"), folder("other")
    pieces = {"model": {"type": "Unigram", "vocab": [["a", 0.0], ["b", -1.0], ["c", -2.0]]}}
    (one / "tokenizer.json").write_text(json.dumps(pieces))
    assert vocabulary_digest(Source("folder", str(one))) == vocabulary_digest(Source("folder", str(other)))
    (one / "tokenizer.json").write_text(json.dumps({"model": {"vocab": [1, 2]}}))
    assert vocabulary_digest(Source("folder", str(one))) is None


def estimates(text: str, head: str = HEAD) -> dict[str, Estimate]:
    plan = plan_of(text, head=head)
    return {node.label: estimate(node, plan) for node in plan.nodes}


EVERYTHING = """
variants:
  nf4: [{quantize: {method: bnb-nf4}}]
  int8: [{quantize: {method: bnb-int8}}]
  rtn: [{quantize: {method: rtn, bits: 8}}]
  depth: [{prune: {method: depth, keep: 24}}]
  width: [{prune: {method: width, keep: 0.5}}]
  healed: [{distill: {cross_entropy: 0.5, tokens: TOKENS}}]
  trained: [{retrain: {method: full, tokens: TOKENS}}]
  adapted: [{retrain: {method: lora, tokens: TOKENS}}]
"""


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_estimates_are_sane(dtype: str) -> None:
    head = HEAD.replace("}\n", f", dtype: {dtype}}}\n", 1)
    found = estimates(EVERYTHING.replace("TOKENS", "60_000"), head)
    for label, cost in found.items():
        assert cost.memory is not None, label
        assert cost.disk is not None, label
        assert cost.seconds is not None, label
        assert 5e8 < cost.memory < 1e10, label
        assert 0 < cost.disk < 6e8, label
        assert 1 < cost.seconds < 1000, label
    disk = {label.split()[1]: cost.disk or 0 for label, cost in found.items() if cost.disk and cost.disk > 5e7}
    assert disk["nf4"] < disk["int8"] < disk["rtn"] < disk["base"]
    assert disk["depth"] < disk["base"]
    assert disk["width"] < disk["base"]
    assert disk["base"] == pytest.approx(134_515_008 * (2 if dtype == "bfloat16" else 4))


def test_packed_sizes_are_those_of_real_files() -> None:
    """SmolLM2-135M in NF4, blocks of 64: embeddings at 16 bits, 106 million weights at 4.5."""
    assert estimates(EVERYTHING.replace("TOKENS", "1"))["quantize nf4"].disk == pytest.approx(28.3e6 * 2 + 106.2e6 * 4.5 / 8, rel=0.01)


def test_more_tokens_and_more_items_take_longer() -> None:
    few, many = (estimates(EVERYTHING.replace("TOKENS", tokens)) for tokens in ("10_000", "20_000"))
    for label in ("distill healed", "retrain trained", "retrain adapted"):
        assert (few[label].seconds or 0) < (many[label].seconds or 0)
    more = {"items: 10": "items: 20", "csqa": "csqa, piqa", "items: 10}": "items: all}"}
    for old, new in more.items():
        assert (estimates("")["evaluate base"].seconds or 0) < (estimates("", HEAD.replace(old, new))["evaluate base"].seconds or 0)
    workloads = [estimates(f"density: {{workload: {{prompt: {prompt}}}}}")["time base"].seconds or 0 for prompt in (100, 200)]
    assert workloads[0] < workloads[1]


def test_a_faster_machine_takes_less_time() -> None:
    plan = plan_of("")
    node = next(plan.of_kind("evaluate"))
    slow, fast = (estimate(node, plan, speed_of(flops, 1e12)).seconds or 0 for flops in (1e12, 1e13))
    assert fast < slow


def test_an_unknown_model_has_no_estimate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    head = HEAD.replace("offline:smollm2-135m-instruct", "owner/model@0123")
    found = estimates("variants: {v: [{prune: {method: depth, keep: 24}}]}", head)
    assert {label: cost for label, cost in found.items() if label != "measure this machine"} == dict.fromkeys(
        ["load base", "calibrate base", "prune v", "evaluate base", "evaluate v", "time base", "time v"], Estimate(None, None, None)
    )


def test_as_much_is_estimated_as_is_timed() -> None:
    from compresslab.evaluation.timing import measured as timing
    from compresslab.plan import estimate as estimating

    assert estimating.DECODED == timing.DECODED
    assert estimating.REQUESTS == 2 * (timing.ROUNDS + 1), "the first round of each model does not count"
