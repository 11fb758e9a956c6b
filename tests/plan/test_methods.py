"""What methods and formats say of themselves is all that a plan knows of them."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Literal

import pytest
from pydantic import TypeAdapter, ValidationError

import compresslab.plan
from compresslab.methods import installed
from compresslab.methods.bitsandbytes import BITSANDBYTES
from compresslab.methods.dimensions import Dimensions
from compresslab.methods.distill import Distill
from compresslab.methods.format import Format, Packing
from compresslab.methods.gptq import GPTQ_FORMAT
from compresslab.methods.installed import installed_methods
from compresslab.methods.method import Footprint, Method
from compresslab.methods.registry import FORMATS, METHODS, format_of, method
from compresslab.methods.settings import StepConfig
from compresslab.recipe import steps
from compresslab.recipe.steps import Step

# SmolLM2-135M: hidden 576, which 128 does not divide.
SMOL = Dimensions(134_515_008, 30, 576, 1536, 49_152, 3 * 576 * 1536, 2 * 576, 3, 3, 64, True, True)
DISTILLING = ("forward-kl", "reverse-kl", "jsd", "skewed-kl")
SETTINGS = {
    "depth": {"keep": 24},
    "width": {"keep": 0.5},
    "magnitude": {"sparsity": 0.5},
    "wanda": {"sparsity": 0.5},
    "sparsegpt": {"pattern": "2:4"},
    **{name: {"tokens": 1000} for name in (*DISTILLING, "full", "lora", "qlora")},
}
# By hand: bits of a weight in the files; seconds of a step where a forward pass takes a millisecond a token, copies of the weights in
# 16 bits that it holds, and bytes beside them for each parameter.
BITS = {
    "rtn": 4 + 16 / 32,
    "gptq": 4 + 20 / 32,
    "awq": 4 + 20 / 32,
    "bnb-nf4": 4.5,
    "bnb-fp4": 4.5,
    "bnb-int8": 8.1,
    "torchao-int8": 8.1,
    "torchao-int4": 4 + 32 / 32,
}
COSTS = {
    **dict.fromkeys(("depth", "width", "magnitude", "wanda"), (2.0, 1.5, 0)),
    **dict.fromkeys(("rtn", "bnb-nf4", "bnb-fp4", "bnb-int8", "torchao-int8", "torchao-int4"), (2.0, 3, 0)),
    **dict.fromkeys(("sparsegpt", "gptq", "awq"), (SMOL.parameters * 1.5e-7, 1.5, 0)),
    **dict.fromkeys(DISTILLING, (4.0, 2, 16)),
    "full": (3.0, 1, 16),
    **dict.fromkeys(("lora", "qlora"), (3.0, 1, 5)),
}
NAMED = [(entry.kind, entry.name) for entry in METHODS if entry.kind != "adopt"]


def step(kind: str, name: str, **settings: object) -> Step:
    return Step.model_validate({kind: {"method": name, **(settings or SETTINGS.get(name, {}))}})


@pytest.mark.parametrize(("kind", "name"), NAMED)
def test_a_step_is_estimated_by_what_its_method_says(kind: str, name: str) -> None:
    asked = step(kind, name)
    assert asked.method is method(kind, name)
    assert asked.method.stored_bits(asked.config) == BITS.get(name)
    seconds, copies, state = COSTS[name]
    weights = 2.0 * SMOL.parameters
    assert asked.method.cost(asked.config, Footprint(SMOL, weights, 1e-3)) == (seconds, copies * weights + state * SMOL.parameters)


def test_training_in_float32_keeps_no_copy_to_compute_with() -> None:
    asked = step("retrain", "full")
    assert asked.method.cost(asked.config, Footprint(SMOL, 4.0 * SMOL.parameters, 1e-3)).memory == 16 * SMOL.parameters


@pytest.mark.parametrize(
    ("name", "settings", "blamed", "reason"),
    [
        (
            "rtn",
            {"group_size": 128},
            "group_size",
            "128 does not divide the hidden size 576 and the attention width 576; these do: 16, 32, 64",
        ),
        ("gptq", {"group_size": 128}, "group_size", "128 does not divide"),
        ("awq", {"group_size": 96}, None, ""),
        ("torchao-int4", {"group_size": 128}, "group_size", "128 does not divide"),
        ("torchao-int8", {}, None, ""),
        ("bnb-nf4", {}, None, ""),
    ],
)
def test_a_format_refuses_dimensions_that_it_cannot_store(name: str, settings: dict[str, int], blamed: str | None, reason: str) -> None:
    asked = step("quantize", name, **settings)
    found = asked.method.refuses(asked.config, SMOL)
    assert [one.field for one in found] == ([] if blamed is None else [blamed])
    assert all(reason in one.reason for one in found)


def test_words_must_be_filled_in_every_direction() -> None:
    odd = SMOL._replace(groups=1, head_dim=16, queries_per_group=36)
    (found,) = GPTQ_FORMAT.objections(Packing(4, 32), odd)
    assert found == ("", "the checkpoint format needs multiples of 32, and the width of keys and values 16 is none; take rtn")
    assert Format("any").objections(Packing(4, 32), odd) == []


def test_every_module_that_a_method_or_a_format_names_is_there() -> None:
    for entry in METHODS:
        assert importlib.util.find_spec(entry.module), entry.name
    for known in FORMATS:
        assert importlib.util.find_spec(known.reader), known.name


def test_a_format_is_recognised_by_its_own_name_alone() -> None:
    for known in FORMATS:
        assert format_of({"quant_method": known.name}) is known
    assert format_of({"quant_method": "fp8"}) is None
    assert format_of({}) is None


@pytest.mark.parametrize("flag", ["load_in_4bit", "load_in_8bit"])
def test_a_bitsandbytes_configuration_from_before_quant_method_is_recognised(flag: str) -> None:
    assert format_of({flag: True}) is BITSANDBYTES
    assert format_of({flag: False}) is None
    assert format_of({flag: True, "quant_method": "fp8"}) is None


@pytest.mark.parametrize(
    ("quantization", "kernel"),
    [
        ({"quant_method": "awq", "bits": 4}, "gptqmodel, AWQ 4-bit"),
        ({"quant_method": "awq", "w_bit": 4}, "gptqmodel, AWQ 4-bit"),
        ({"quant_method": "gptq"}, "gptqmodel, GPTQ"),
    ],
)
def test_the_kernel_is_named_from_any_spelling_of_the_bits(quantization: dict[str, object], kernel: str) -> None:
    known = format_of(quantization)
    assert known is not None
    assert known.kernel(quantization) == kernel


def test_the_plan_tests_no_method_by_its_settings() -> None:
    """Costs, refusals and formats are asked of the method; a file on one family is imported where that family's own passes are planned."""
    families = {path.stem for path in Path(installed.__file__).parent.glob("*.py")} - {
        "__init__", "amounts", "dimensions", "format", "installed", "method", "registry", "settings"
    }  # fmt: skip
    for name in ("estimate", "rules", "model_files", "packages", "advice", "starter"):
        source = (Path(compresslab.plan.__file__).parent / f"{name}.py").read_text(encoding="utf-8")
        imported = {node.module or "" for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}
        assert not {module.rpartition(".")[2] for module in imported if module.startswith("compresslab.methods.")} & families, name


# Methods of other packages


class Mine(StepConfig):
    """Settings of a made-up method."""

    method: Literal["mine"]


class Ours(StepConfig):
    """Settings that take a name that is there already."""

    method: Literal["rtn"]


MINE = Method("quantize", "mine", Mine, "json.tool")
TAKEN = Method("quantize", "rtn", Ours, "json.tool")
ADOPTED = Method("adopt", "mine", Mine, "json.tool")
LOST = Method("quantize", "mine", Mine, "no_such_package.weights")


def found(monkeypatch: pytest.MonkeyPatch, **values: str) -> tuple[list[str], dict[str, str]]:
    """Methods that are taken of some entry points, and what is said of the others."""
    points = [EntryPoint(name, value, installed.GROUP) for name, value in values.items()]
    monkeypatch.setattr(installed.metadata, "entry_points", lambda group: points if group == "compresslab.methods" else [])
    methods, broken = installed_methods(METHODS)
    return [entry.name for entry in methods], broken


def test_one_method_under_two_names_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    methods, broken = found(monkeypatch, mine=f"{__name__}:MINE", again=f"{__name__}:MINE")
    assert methods == ["mine"]
    assert "takes the name 'mine'" in broken["mine"]


def test_an_installed_method_stands_beside_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, mine=f"{__name__}:MINE") == (["mine"], {})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_module:MINE", "does not load: ModuleNotFoundError"),
        (f"{__name__}:Mine", "is no compresslab.methods.method.Method"),
        (f"{__name__}:TAKEN", "takes the name 'rtn' of a quantize method that is there already"),
        (f"{__name__}:ADOPTED", "is of the kind 'adopt'"),
        (f"{__name__}:LOST", "names the module no_such_package.weights, which is not there"),
    ],
)
def test_what_is_no_method_is_left_out_with_the_reason(value: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    methods, broken = found(monkeypatch, bad=value, mine=f"{__name__}:MINE")
    assert methods == ["mine"]
    assert reason in broken["bad"]


def test_a_method_that_would_fail_in_a_worker_is_refused_as_it_is_made() -> None:
    with pytest.raises(ValueError, match=r"Mine needs a field `method: Literal\['other'\]`"):
        Method("quantize", "other", Mine, "nowhere")
    with pytest.raises(ValueError, match="a format and a packing"):
        Method("quantize", "mine", Mine, "nowhere", format=GPTQ_FORMAT)
    for text in (None, "training"):
        with pytest.raises(ValueError, match=r'gathered on the calibration text; add text="calibration"'):
            Method("quantize", "mine", Mine, "nowhere", text=text, statistics="grams")
    for text in (None, "calibration"):
        with pytest.raises(ValueError, match=r'reads the training text; add text="training"'):
            Method("retrain", "mine", Mine, "nowhere", text=text, trains=True)


def test_a_kind_keeps_its_default_when_another_package_adds_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "configs", lambda _: (Distill, Mine))
    choice = TypeAdapter(steps._choice("distill"))
    assert choice.validate_json('{"tokens": 5}', strict=True) == Distill(tokens=5)
    assert choice.validate_json('{"method": "mine"}', strict=True) == Mine(method="mine")
    with pytest.raises(ValidationError, match="does not match any of the expected tags"):
        choice.validate_json('{"method": "other"}', strict=True)


def test_the_source_of_a_package_is_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for folder in ("whole_package", "whole_namespace"):
        (tmp_path / folder / "inside").mkdir(parents=True)
        (tmp_path / folder / "inside" / "deep.py").write_text("DEEP = 1\n")
    (tmp_path / "whole_package" / "__init__.py").write_text("TOP = 1\n")
    (tmp_path / "one_module.py").write_text("ONE = 1\n")
    assert installed.source_of("whole_package.inside") == "TOP = 1\n\nDEEP = 1\n"
    assert installed.source_of("whole_namespace.inside.deep") == "DEEP = 1\n"
    assert installed.source_of("one_module") == "ONE = 1\n"
    assert installed.source_of("no_such_module") is None
