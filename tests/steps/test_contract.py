"""One suite for every method and architecture: a step fulfils the contract, or refuses before it changes a weight.

The contract: the saved folder gives equal logits in plain transformers, in a fresh process; its files are those that the
record weighs; and the same seed gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from models.tiny import THIRD_PARTY_WARNINGS, make, saved, text
from safetensors import safe_open

from compresslab.errors import BadInput, UnsupportedModel
from compresslab.methods.adopt import Adopt
from compresslab.methods.depth import PruneDepth
from compresslab.methods.gptq import QuantizeGPTQ
from compresslab.methods.registry import METHODS
from compresslab.methods.retrain import RetrainFull
from compresslab.methods.rtn import QuantizeRTN
from compresslab.methods.settings import StepConfig
from compresslab.methods.width import PruneWidth
from compresslab.models.formats.dequantize import load_for_scoring
from compresslab.models.formats.reader import quantization_of
from compresslab.models.load import load
from compresslab.models.save import reload_difference, save
from compresslab.models.streamed.digests import tensor_digests
from compresslab.records import StepRecord
from compresslab.records.compute import Compute
from compresslab.steps.contract import Context, Saved, run
from steps.methods import METHOD_CONFIGS, OTHER_KERNEL, PASSING, REFUSED, SPARSE, context

pytestmark = [pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS]


class Done(NamedTuple):
    """A finished step: its folder and its result."""

    folder: Path
    record: StepRecord
    probe: torch.Tensor
    tensors: dict[str, str]


def step(method: str, name: str, folder: Path, dtype: torch.dtype = torch.bfloat16) -> Saved:
    kind, config = METHOD_CONFIGS[method]
    loaded, needed = make(name, dtype), context(method, name, dtype)
    parent = folder.parent / "parent"
    save(loaded, parent)
    needed = needed._replace(parent=parent)
    torch.seed()  # whatever was drawn before, a step draws from its own seed
    return run(kind, config, loaded, needed, folder)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Done]:
    """Each pair's step, run once for all tests."""
    known: dict[tuple[str, str], Done] = {}

    def get(method: str, name: str) -> Done:
        if (method, name) not in known:
            folder = tmp_path_factory.mktemp(f"{method}-{name}".replace(" ", "-")) / "model"
            result = step(method, name, folder)
            known[method, name] = Done(folder, result.record, result.probe, result.tensors)
        return known[method, name]

    return get


def files(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_every_method_of_the_registry_is_in_this_suite():
    assert {(entry.kind, entry.name) for entry in METHODS if entry.kind != "adopt"} == {
        (kind, method.split()[0]) for method, (kind, _) in METHOD_CONFIGS.items()
    }


@pytest.mark.parametrize(("method", "name"), PASSING)
def test_a_step_saves_what_it_says_it_saved(done: Callable[[str, str], Done], method: str, name: str):
    folder, record, *_ = done(method, name)
    stored = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            stored += sum(opened.get_tensor(key).nbytes for key in opened.keys())  # noqa: SIM118, it is no dict
    assert record.size.stored_bytes == stored
    assert record.size.effective_bits == 8 * stored / record.size.parameters
    assert (0.5 if method in SPARSE else 0.7) * record.size.parameters < record.size.nonzero <= record.size.parameters
    config = json.loads((folder / "config.json").read_text())
    assert (record.shape.layers, record.shape.intermediate) == (config["num_hidden_layers"], config["intermediate_size"])
    assert StepRecord.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize(("method", "name"), [(method, name) for method, name in PASSING if name in ("llama-tied", "gemma3", "qwen3-moe")])
def test_the_same_seed_gives_the_same_bytes(done: Callable[[str, str], Done], tmp_path: Path, method: str, name: str):
    first = done(method, name)
    again = step(method, name, tmp_path / "again")
    assert files(tmp_path / "again") == files(first.folder)
    assert again.record == first.record


@pytest.mark.parametrize(("method", "name"), REFUSED)
def test_a_method_that_cannot_serve_an_architecture_refuses_by_name_and_changes_nothing(tmp_path: Path, method: str, name: str):
    kind, config = METHOD_CONFIGS[method]
    loaded = make(name)
    before = {key: value.clone() for key, value in loaded.model.state_dict().items()}
    settings = loaded.model.config.to_dict()
    with pytest.raises(UnsupportedModel, match=REFUSED[method, name]):
        run(kind, config, loaded, Context(text(4, 32)), tmp_path / "model")
    assert not (tmp_path / "model").exists()
    after = loaded.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert loaded.model.config.to_dict() == settings


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "dtype"),
    [
        *((method, torch.float32) for method in METHOD_CONFIGS if (method, "llama") not in REFUSED),
        *((method, torch.float16) for method in ("bnb-nf4", "rtn", "gptq", "awq")),
    ],
)
def test_the_other_dtypes_keep_the_contract(tmp_path: Path, method: str, dtype: torch.dtype):
    result = step(method, "llama", tmp_path / "made", dtype)
    # In the dtype of the step, as a run compares. Without it bitsandbytes computes in bfloat16 where the kernel takes other dtypes, too.
    compute = Compute(str(dtype).removeprefix("torch."))
    assert reload_difference(tmp_path / "made", result.probe, result.tensors if method in OTHER_KERNEL else None, compute) == 0
    assert json.loads((tmp_path / "made" / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")


@pytest.mark.slow
def test_every_saved_folder_gives_equal_logits_in_a_fresh_process(done: Callable[[str, str], Done], tmp_path: Path):
    """One process for all of them: most of its time is the import of transformers."""
    for number, pair in enumerate(PASSING):
        torch.save(done(*pair).probe, tmp_path / f"{number}.pt")
    folders = {str(tmp_path / f"{number}.pt"): str(done(*pair).folder) for number, pair in enumerate(PASSING)}
    allowed = {str(done(*pair).folder): 0.05 * float(done(*pair).probe.std()) if pair[0] in OTHER_KERNEL else 0.0 for pair in PASSING}
    script = """
import json, sys, torch
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
for probe, folder in json.loads(sys.argv[1]).items():
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    ids = (torch.arange(48) * 7919 + 11) % model.config.vocab_size
    with torch.no_grad():
        wrong = model(ids[None], use_cache=False).logits.float() - torch.load(probe)
    print("RESULT", folder, float(wrong.square().mean().sqrt()), flush=True)
assert "compresslab" not in sys.modules
"""
    command = [sys.executable, "-c", script, json.dumps(folders)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    lines = [line.split() for line in result.stdout.splitlines() if line.startswith("RESULT")]
    assert [line for line in lines if not float(line[2]) <= allowed[line[1]]] == []
    assert len(lines) == len(PASSING), result.stderr[-2000:]


@pytest.mark.parametrize(("method", "name"), [pair for pair in PASSING if pair[0] in OTHER_KERNEL])
def test_the_weights_that_a_librarys_kernel_multiplies_by_are_the_ones_that_were_scored(
    done: Callable[[str, str], Done], method: str, name: str
):
    folder, _, probe, tensors = done(method, name)
    assert reload_difference(folder, probe, tensors) == 0
    assert tensor_digests(load_for_scoring(folder, torch.bfloat16)[0].model) == tensors


@pytest.mark.parametrize("method", METHOD_CONFIGS)
def test_packed_weights_take_no_further_step(method: str, done: Callable[[str, str], Done], tmp_path: Path):
    kind, config = METHOD_CONFIGS[method]
    loaded = load(str(done("bnb-nf4", "llama").folder))
    with pytest.raises(UnsupportedModel, match=f"{kind} {method.split()[0]}: the model's weights are packed already"):
        run(kind, config, loaded, Context(text(4, 32), make("llama")), tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("method", ["bnb-nf4", "bnb-int8", "torchao-int8", "rtn", "gptq", "awq", "lora"])
def test_a_saved_outcome_can_be_adopted_again_as_it_is(method: str, done: Callable[[str, str], Done], tmp_path: Path):
    source = done(method, "llama")
    config = Adopt(model=str(source.folder), how="by hand")
    adopted = run("adopt", config, load(config.model), Context(), tmp_path / "model")
    assert adopted.record.size == source.record.size
    assert adopted.record.method == "model"
    quantization = quantization_of(tmp_path / "model")
    assert adopted.record.details.get("quantization") == (quantization["quant_method"] if quantization else None)
    assert adopted.tensors == source.tensors
    assert method in OTHER_KERNEL or torch.equal(adopted.probe, source.probe)
    assert files(tmp_path / "model")["model.safetensors"] == files(source.folder)["model.safetensors"]


def test_steps_follow_each_other_in_memory_as_they_do_through_folders(tmp_path: Path):
    """The model that one step returns is the input of the next, as in a program that uses the library."""
    loaded = make("qwen3")
    for number, method in enumerate(["depth", "lora", "full", "width", "forward-kl", "rtn"]):
        kind, config = METHOD_CONFIGS[method]
        if method == "depth":
            config = PruneDepth(method="depth", keep=3)
        folder = tmp_path / str(number)
        made = run(kind, config, loaded, Context(text(4, 32), make("qwen3")), folder)
        loaded = made.loaded
        assert reload_difference(folder, made.probe, made.tensors) == 0
    assert (made.record.shape.layers, made.record.shape.intermediate) == (3, 64)


def test_a_step_that_breaks_the_model_is_a_failed_run(tmp_path: Path):
    from compresslab.errors import RunFailed

    loaded = make("llama")
    loaded.model.model.norm.weight.data[0] = float("inf")
    with pytest.raises(RunFailed, match=r"quantize rtn: .* of the probe's logits are not finite"):
        run("quantize", QuantizeRTN(method="rtn"), loaded, Context(), tmp_path)


def test_progress_is_told_from_nothing_to_all(tmp_path: Path):
    for method in ("depth", "width", "forward-kl", "rtn", "full"):
        told: list[float] = []
        kind, config = METHOD_CONFIGS[method]
        teacher = make("llama", seed=1)
        run(kind, config, make("llama"), Context(text(4, 32), teacher, lambda share, *_, told=told: told.append(share)), tmp_path / method)
        assert told == sorted(told), method
        assert told[-1] == 1, method


def test_what_the_record_says_of_its_tokens(done: Callable[[str, str], Done]):
    depth, full = done("depth", "llama").record, done("full", "llama").record
    assert (depth.calibration_tokens, depth.tokens_seen) == (128, 0)
    assert (full.calibration_tokens, full.tokens_seen) == (0, 128)
    assert depth.data == {"text": "a rule"}
    assert depth.config == {"method": "depth", "keep": 2, "parameters": None, "by": "block-influence"}


def test_bad_input_is_told_before_anything_is_written(tmp_path: Path):
    cases: list[tuple[str, StepConfig, str]] = [
        ("prune", PruneDepth(method="depth", keep=4), "prune depth: keep: the model has 4 layers here; keep at least 1 and at most 3"),
        ("prune", PruneDepth(method="depth", keep=0.1), "prune depth: keep: 0.1 leaves 0; the model has 4 layers here"),
        ("prune", PruneDepth(method="depth", parameters=10**9), "leaves nothing to drop"),
        (
            "prune",
            PruneWidth(method="width", keep=128),
            "prune width: keep: the model has 128 neurons here; keep at least 1 and at most 127",
        ),
        ("prune", PruneWidth(method="width", keep=0.1), "prune width: keep: 0.1 leaves 0 (in steps of 32); the model has 128 neurons here"),
        ("prune", PruneWidth(method="width", groups=2), "groups: the model has 2 key/value heads here"),
        ("prune", PruneWidth(method="width", hidden=50), "hidden: 50 is no multiple of the 4 query heads"),
        ("quantize", QuantizeRTN(method="rtn", group_size=48), "group_size 48 does not divide the 64 inputs of model.layers.0.self_attn"),
        ("quantize", QuantizeGPTQ(method="gptq", group_size=48), "group_size 48 does not divide the 64 inputs of layer 0.self_attn"),
        ("retrain", RetrainFull(method="full", tokens=128), "128 training tokens are less than one batch of 2048"),
    ]
    for kind, config, message in cases:
        with pytest.raises(BadInput) as caught:
            run(kind, config, make("llama"), Context(text(4, 32)), tmp_path / "model")
        assert message in str(caught.value)
        assert not (tmp_path / "model").exists()


def test_the_example_of_the_package_is_the_one_that_works(tmp_path: Path):
    """The library in ten lines, as the package's docstring shows it, on a model that needs no download."""
    import compresslab.steps

    lines = [line.strip() for line in (compresslab.steps.__doc__ or "").splitlines() if line.startswith("    ")]
    shown = "\n".join(lines).replace("offline:smollm2-135m-instruct", str(saved(tmp_path / "base"))).replace("keep=24", "keep=2")
    scope: dict[str, object] = {"folder": tmp_path / "out"}
    exec(shown, scope)
    assert (tmp_path / "out" / "model.safetensors").is_file()
