"""Distillation and retraining: losses decrease, gradients are correct, and the result is a plain model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from models.tiny import THIRD_PARTY_WARNINGS, VOCABULARY, make, make_model, make_tokenizer, text
from torch import nn
from torch.nn import functional

from compresslab.errors import BadInput, RunFailed
from compresslab.methods.depth import PruneDepth
from compresslab.methods.distill import Distill
from compresslab.methods.retrain import RetrainFull, RetrainLoRA
from compresslab.methods.settings import Optimizer, StepConfig
from compresslab.models import chunks
from compresslab.models.load import Loaded, cast
from compresslab.models.progress import Amount
from compresslab.models.text import TokenSequences
from compresslab.steps.contract import Context, Saved, run, silent
from compresslab.steps.retrain import language_modelling
from compresslab.steps.training.held_out import mean_loss, split
from compresslab.steps.training.trainer import MicroBatch, Objective, TrainSettings, downsampled, learning_rate_factor, train

pytestmark = [pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS]

BATCH = Optimizer(learning_rate=3e-3, batch_tokens=256, micro_batch_tokens=128)
LEARN = Distill(tokens=4096, optimizer=BATCH)


def distilled(student: Loaded, teacher: Loaded, folder: Path, config: Distill = LEARN, sequences: int = 128) -> Saved:
    return run("distill", config, student, Context(text(sequences, 32), teacher), folder)


def test_distillation_brings_a_pruned_student_nearer_to_its_teacher(tmp_path: Path):
    pruned = run("prune", PruneDepth(method="depth", keep=2), make("llama"), Context(text()), tmp_path / "pruned").loaded
    config = Distill(tokens=4096, optimizer=Optimizer(learning_rate=1e-3, batch_tokens=256, micro_batch_tokens=128))
    losses = distilled(pruned, make("llama"), tmp_path / "healed", config).record.details["loss"]
    assert len(losses) == 16
    assert losses[-1] < 0.8 * losses[0]


def test_a_student_that_is_its_teacher_has_nothing_to_learn(tmp_path: Path):
    same = distilled(make("llama"), make("llama"), tmp_path / "a", sequences=8).record.details["loss"][0]
    other = distilled(make("llama"), make("llama", seed=1), tmp_path / "b", sequences=8).record.details["loss"][0]
    assert 0 <= same < 0.002 * other


def test_the_teacher_is_left_as_it_was(tmp_path: Path):
    teacher = make("llama", seed=1)
    distilled(make("llama"), teacher, tmp_path, sequences=8)
    for name, weight in make_model("llama", seed=1).named_parameters():
        assert torch.equal(weight, teacher.model.get_parameter(name))
        assert teacher.model.get_parameter(name).grad is None


def test_a_teacher_of_another_vocabulary_is_refused_with_the_first_difference(tmp_path: Path):
    teacher = Loaded(make_model("llama"), make_tokenizer(["Zebras zigzag; zebras zigzag; zebras zigzag."]))
    with pytest.raises(BadInput, match=r"the teacher has another vocabulary \(\d+ tokens against \d+; token \d+, .* is not in both\)"):
        distilled(make("llama"), teacher, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(("student", "teacher"), [(304, 320), (320, 304)])
def test_one_tokenizer_with_embeddings_padded_to_two_sizes_is_one_vocabulary(tmp_path: Path, student: int, teacher: int):
    done = distilled(make("llama", vocab_size=student), make("llama", vocab_size=teacher), tmp_path, sequences=32)
    assert done.record.details["loss"][-1] < done.record.details["loss"][0]
    assert done.record.shape.vocabulary == student


@pytest.mark.parametrize("kind", ["distill", "retrain"])
def test_a_loss_that_is_not_finite_stops_the_run_with_the_step(tmp_path: Path, kind: str):
    wild = Optimizer(learning_rate=1e30, batch_tokens=256, micro_batch_tokens=128, warmup=0)
    configs: dict[str, StepConfig] = {
        "distill": Distill(tokens=1024, optimizer=wild),
        "retrain": RetrainFull(method="full", tokens=1024, optimizer=wild),
    }
    with pytest.raises(RunFailed, match=r"the training loss is (nan|inf) at step [23] of 4; lower optimizer\.learning_rate"):
        run(kind, configs[kind], make("llama"), Context(text(32, 32), make("llama", seed=1)), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_model_that_was_broken_before_is_told_apart_from_one_that_training_broke(tmp_path: Path):
    loaded = make("llama")
    loaded.model.model.norm.weight.data[0] = float("nan")
    with pytest.raises(RunFailed, match="the model's logits are not finite; it is broken"):
        run("retrain", RetrainFull(method="full", tokens=1024, optimizer=BATCH), loaded, Context(text(32, 32)), tmp_path)


@pytest.mark.parametrize("name", ["llama", "qwen3-moe", "gpt-neox"])
def test_retraining_learns_the_text(tmp_path: Path, name: str):
    config = RetrainFull(method="full", tokens=4096, optimizer=BATCH)
    done = run("retrain", config, make(name), Context(text(128, 32)), tmp_path)
    losses = done.record.details["loss"]
    assert losses[-1] < 0.8 * losses[0]
    assert done.record.tokens_seen == 4096
    assert {parameter.dtype for parameter in done.loaded.model.parameters()} == {torch.bfloat16}
    assert not done.loaded.model.training


@pytest.mark.parametrize("name", ["qwen2", "qwen3-moe"])
def test_merged_adapters_leave_a_plain_model_that_learned(tmp_path: Path, name: str):
    config = RetrainLoRA(method="lora", tokens=2048, rank=8, optimizer=BATCH)
    done = run("retrain", config, make(name), Context(text(64, 32)), tmp_path)
    model, original = done.loaded.model, make_model(name)
    assert done.record.details["loss"][-1] < done.record.details["loss"][0]
    assert type(model) is type(original)
    assert model.state_dict().keys() == original.state_dict().keys()
    assert sorted(path.name for path in tmp_path.iterdir() if "adapter" in path.name) == []
    assert torch.equal(model.get_input_embeddings().weight, original.get_input_embeddings().weight)
    assert torch.equal(model.model.norm.weight, original.model.norm.weight)
    matrices = [key for key, weight in original.named_parameters() if ".layers." in key and weight.dim() > 1]
    assert all(not torch.equal(model.get_parameter(key), original.get_parameter(key)) for key in matrices)
    assert all(parameter.requires_grad for parameter in model.parameters()), "the next step must be able to train it"


def test_another_seed_gives_other_adapters(tmp_path: Path):
    short = Optimizer(batch_tokens=64, micro_batch_tokens=64)
    for seed in (0, 1):
        run(
            "retrain",
            RetrainLoRA(method="lora", tokens=128, rank=4, seed=seed, optimizer=short),
            make(),
            Context(text(4)),
            tmp_path / str(seed),
        )
    first, second = ((tmp_path / str(seed) / "model.safetensors").read_bytes() for seed in (0, 1))
    assert first != second


def gradients(monkeypatch: pytest.MonkeyPatch, micro_tokens: int) -> dict[str, torch.Tensor]:
    """Gradients of one batch of 256 tokens, accumulated by the training loop."""
    model = make_model("llama")
    found: list[torch.Tensor] = []
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda weights, _: found.extend(weight.grad.clone() for weight in weights))
    settings = Optimizer(batch_tokens=256, micro_batch_tokens=micro_tokens)
    train(model, text(8, 32), TrainSettings(settings, 0, silent), language_modelling)
    return dict(zip((name for name, _ in model.named_parameters()), found, strict=True))


def whole_gradients() -> dict[str, torch.Tensor]:
    """The same gradients by automatic differentiation of the mean loss of the batch."""
    model, ids = cast(make_model("llama"), torch.float32), text(8, 32).ids
    logits = model(ids).logits
    targets = torch.cat([ids[:, 1:], torch.full((8, 1), -100)], 1)
    (functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum") / (ids.numel() - len(ids))).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


# 96: micro-batches of 3, 3 and 2 sequences.
@pytest.mark.parametrize(("chunk", "micro"), [(7, 256), (7, 64), (10_000, 256), (10_000, 64), (10_000, 96)])
def test_a_loss_in_chunks_has_the_whole_batchs_gradient(monkeypatch: pytest.MonkeyPatch, chunk: int, micro: int):
    monkeypatch.setattr(chunks, "LOGITS_A_CHUNK", chunk * VOCABULARY)
    ours, whole = gradients(monkeypatch, micro), whole_gradients()
    assert ours.keys() == whole.keys()
    for name, expected in whole.items():
        assert (ours[name] - expected).norm() < 0.03 * expected.norm(), name


@pytest.mark.parametrize("step", [lambda folder: distilled(make("gemma2"), make("gemma2", seed=1), folder, sequences=8)])
def test_the_loss_does_not_depend_on_the_size_of_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: Callable[[Path], Saved]):
    found = []
    for chunk in (7, 10_000):
        monkeypatch.setattr(chunks, "LOGITS_A_CHUNK", chunk * VOCABULARY)
        found.append(step(tmp_path / str(chunk)).record.details["loss"][0])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_the_mean_loss_is_told_per_token(tmp_path: Path):
    """The loss of a random model is about the logarithm of the vocabulary size."""
    loaded = make("llama")
    loaded.model.lm_head.weight.data.zero_()
    config = RetrainFull(method="full", tokens=256, optimizer=BATCH)
    loss = run("retrain", config, loaded, Context(text(8, 32)), tmp_path).record.details["loss"][0]
    assert loss == pytest.approx(torch.tensor(304.0).log().item(), rel=1e-3)


@pytest.mark.parametrize("kind", ["retrain", "distill"])
def test_the_next_token_loss_in_training_is_that_on_held_out_text(tmp_path: Path, kind: str):
    words = text(8, 32)
    expected = mean_loss(make_model("llama", torch.float32), words.input)
    config = Optimizer(learning_rate=1e-9, batch_tokens=256, micro_batch_tokens=64)
    if kind == "retrain":
        done = run(kind, RetrainFull(method="full", tokens=256, optimizer=config), make("llama", torch.float32), Context(words), tmp_path)
    else:  # a student that is its teacher has no divergence
        same = make("llama", torch.float32)
        share = Distill(tokens=256, cross_entropy=0.5, optimizer=config)
        done = run(kind, share, make("llama", torch.float32), Context(words, same), tmp_path)
    assert done.record.details["loss"][0] == pytest.approx(expected * (1.0 if kind == "retrain" else 0.5), rel=1e-4)


@pytest.mark.parametrize("name", ["llama", "llama-tied", "gpt-neox"])
def test_matrices_decay_and_norms_biases_and_embeddings_do_not(name: str):
    model = make_model(name, torch.float32)
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    steps, rate, decay = 4, 1e-3, 0.5
    settings = Optimizer(learning_rate=rate, weight_decay=decay, warmup=0, decay=0, batch_tokens=64, micro_batch_tokens=64)

    def still(micro: MicroBatch) -> Objective:
        return Objective(micro.text, lambda logits, _: 0.0 * logits.sum())

    train(model, text(2 * steps, 32), TrainSettings(settings, 0, silent), still)
    for key, parameter in model.named_parameters():
        matrix = parameter.dim() > 1 and "embed" not in key
        factor = (1 - rate * decay) ** steps if matrix else 1.0
        torch.testing.assert_close(parameter, before[key] * factor, rtol=1e-6, atol=0)
    assert any(parameter.dim() > 1 and "embed" not in key for key, parameter in model.named_parameters())


def test_training_goes_on_below_what_bfloat16_can_tell_apart(tmp_path: Path):
    """Steps of a fortieth of the last bit of a bfloat16 weight are lost without float32 masters."""
    tiny = Optimizer(learning_rate=1e-4, batch_tokens=64, micro_batch_tokens=64, warmup=0, decay=0)
    loaded = make("llama")
    before = loaded.model.model.norm.weight.detach().clone()
    run("retrain", RetrainFull(method="full", tokens=64 * 60, optimizer=tiny), loaded, Context(text(120, 32)), tmp_path)
    assert not torch.equal(before, loaded.model.model.norm.weight)


def test_the_schedule_is_the_recipes():
    wsd, cosine = (Optimizer(schedule=schedule, warmup=0, decay=0.5) for schedule in ("wsd", "cosine"))
    assert [learning_rate_factor(wsd, step, 4) for step in range(4)] == [1, 1, 1, 0.5]
    assert learning_rate_factor(cosine, 2, 4) == pytest.approx(0.5)


def test_training_stops_as_soon_as_the_held_out_loss_is_as_low_as_another_models(tmp_path: Path):
    taught = run("retrain", RetrainFull(method="full", tokens=2048, optimizer=BATCH), make(), Context(text(64, 32)), tmp_path / "other")
    config = RetrainFull(method="full", tokens=8192, until="base", optimizer=BATCH)
    done = run("retrain", config, make(seed=1), Context(text(256, 32), taught.loaded), tmp_path / "model").record
    told = done.details
    assert told["held_out_sequences"] == 12
    assert told["reached_loss"] <= told["target_loss"]
    assert 0 < told["reached_at_step"] == told["steps"] < 30
    assert done.tokens_seen == told["steps"] * 256
    assert all(loss > told["target_loss"] for _, loss in told["held_out_loss"][:-1])


def test_training_that_does_not_get_there_says_so(tmp_path: Path):
    taught = run("retrain", RetrainFull(method="full", tokens=4096, optimizer=BATCH), make(), Context(text(128, 32)), tmp_path / "other")
    config = RetrainFull(method="full", tokens=1024, until="base", optimizer=BATCH)
    told = run("retrain", config, make(seed=1), Context(text(32, 32), taught.loaded), tmp_path / "model").record.details
    assert told["reached_at_step"] is None
    assert told["reached_loss"] > told["target_loss"]
    assert told["held_out_loss"][-1][0] == told["steps"] == 3  # of four batches, one sequence is held out


def test_a_variant_that_is_there_already_is_not_trained(tmp_path: Path):
    config = RetrainFull(method="full", tokens=1024, until="base", optimizer=BATCH)
    done = run("retrain", config, make(), Context(text(32, 32), make()), tmp_path)
    assert (done.record.details["steps"], done.record.details["reached_at_step"], done.record.tokens_seen) == (0, 0, 0)
    for name, weight in make_model().named_parameters():
        assert torch.equal(weight, done.loaded.model.get_parameter(name))


def test_held_out_sequences_are_trained_on_nowhere_in_a_repeated_text():
    once = text(40, 32)
    numbers = torch.cat([torch.arange(40), torch.randperm(40)])
    left, held = split(TokenSequences(once.ids[numbers], once.sha256, numbers))
    assert torch.equal(held.ids, once.ids[38:])
    assert left.numbers.max() == 37
    assert left.ids.shape == (76, 32)
    with pytest.raises(BadInput, match="a single sequence"):
        split(text(1, 32))


def test_qlora_learns_over_rounded_weights_and_leaves_a_plain_model(tmp_path: Path):
    config = RetrainLoRA(method="qlora", tokens=2048, rank=8, optimizer=BATCH)
    done = run("retrain", config, make("qwen2"), Context(text(64, 32)), tmp_path)
    model, original = done.loaded.model, make_model("qwen2")
    assert done.record.details["loss"][-1] < done.record.details["loss"][0]
    assert type(model) is type(original)
    assert model.state_dict().keys() == original.state_dict().keys()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert torch.equal(model.get_input_embeddings().weight, original.get_input_embeddings().weight)
    assert all(parameter.requires_grad for parameter in model.parameters()), "the next step must be able to train it"


def test_qlora_merges_into_the_weights_that_the_adapters_were_trained_against(tmp_path: Path):
    """With adapters that learn almost nothing, the result is the base rounded to NF4."""
    still = Optimizer(learning_rate=1e-12, batch_tokens=64, micro_batch_tokens=64)
    config = RetrainLoRA(method="qlora", tokens=64, rank=4, optimizer=still)
    done = run("retrain", config, make("llama"), Context(text(2, 32)), tmp_path).loaded.model
    weight = make_model("llama").model.layers[1].mlp.up_proj.weight.data
    rounded = dequantize_4bit(*quantize_4bit(weight, quant_type="nf4", compress_statistics=True))
    torch.testing.assert_close(done.model.layers[1].mlp.up_proj.weight.data, rounded, rtol=0, atol=1e-9)
    assert (rounded - weight).abs().max() > 0.01


def test_qlora_refuses_inputs_that_do_not_fill_a_block(tmp_path: Path):
    config = RetrainLoRA(method="qlora", tokens=64, rank=4, optimizer=BATCH)
    with pytest.raises(
        BadInput, match=r"retrain qlora: model\.layers\.0\.mlp\.down_proj has 96 inputs; bitsandbytes needs multiples of 64"
    ):
        run("retrain", config, make("llama", intermediate_size=96), Context(text(64, 32)), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_adapters_and_companions_keep_the_precision_of_a_float32_base(tmp_path: Path):
    """The base computes in bfloat16 while adapters are trained, and is merged unrounded."""
    still = Optimizer(learning_rate=1e-12, batch_tokens=64, micro_batch_tokens=64)
    config = RetrainLoRA(method="lora", tokens=64, rank=4, optimizer=still)
    done = run("retrain", config, make("llama", torch.float32), Context(text(2, 32)), tmp_path).loaded.model
    torch.testing.assert_close(
        done.get_parameter("model.layers.0.mlp.up_proj.weight"),
        make_model("llama", torch.float32).get_parameter("model.layers.0.mlp.up_proj.weight"),
        rtol=0,
        atol=1e-9,
    )


def test_a_long_loss_curve_is_thinned_to_its_last_point():
    curve = downsampled([float(step) for step in range(1000)])
    assert len(curve) == 200
    assert curve[-1] == 999
    assert downsampled([1.0, 0.1234567]) == [1.0, 0.123457]
    assert downsampled([]) == []


def test_a_step_of_many_micro_batches_reports_on_its_way(tmp_path: Path):
    told: list[tuple[float, str, Amount | None]] = []
    config = RetrainFull(method="full", tokens=512, optimizer=BATCH)
    run("retrain", config, make("llama"), Context(text(16, 32), progress=lambda *report: told.append(report)), tmp_path / "model")
    assert [(share, what[:4], amount) for share, what, amount in told] == [
        (number / 4, what, Amount(number * 128, 512, "tokens")) for number, what in enumerate(["step", "loss"] * 2, 1)
    ]
    assert told[0][1] == "step 1 of 2"
