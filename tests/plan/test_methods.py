"""Plans read everything about methods and formats from their descriptions."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
from dataclasses import replace
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError

import compresslab.plan
from compresslab.errors import BadInput
from compresslab.methods import installed
from compresslab.methods.bitsandbytes import BITSANDBYTES
from compresslab.methods.choice import choice_of
from compresslab.methods.dimensions import Dimensions
from compresslab.methods.distill import FORWARD_KL, JSD, Distill
from compresslab.methods.format import Format, Packing
from compresslab.methods.gptq import GPTQ_FORMAT
from compresslab.methods.installed import installed_methods
from compresslab.methods.method import Footprint, Method
from compresslab.methods.registry import METHODS, format_of, formats, method, method_of
from compresslab.methods.settings import StepConfig
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
# Computed by hand: bits of a weight in the files; seconds of a step if a forward pass takes a millisecond per token; copies of the
# weights in 16 bits; additional bytes per parameter.
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
    tested_step = step(kind, name)
    assert tested_step.method is method(kind, name)
    assert tested_step.method.stored_bits(tested_step.config) == BITS.get(name)
    seconds, copies, state = COSTS[name]
    weights = 2.0 * SMOL.parameters
    assert tested_step.method.cost(tested_step.config, Footprint(SMOL, weights, 1e-3)) == (
        seconds,
        copies * weights + state * SMOL.parameters,
    )


def test_training_in_float32_keeps_no_copy_to_compute_with() -> None:
    tested_step = step("retrain", "full")
    assert tested_step.method.cost(tested_step.config, Footprint(SMOL, 4.0 * SMOL.parameters, 1e-3)).memory == 16 * SMOL.parameters


@pytest.mark.parametrize(("kind", "name"), [("retrain", "full"), ("distill", "forward-kl")])
def test_states_of_8_bits_save_six_bytes_a_weight_in_the_estimate(kind: str, name: str) -> None:
    footprint = Footprint(SMOL, 4.0 * SMOL.parameters, 1e-3)
    steps = [step(kind, name, tokens=64, optimizer={"state_bits": bits}) for bits in (32, 8)]
    fine, coarse = (one.method.cost(one.config, footprint).memory for one in steps)
    assert fine - coarse == pytest.approx((6 - 8 / 256) * SMOL.parameters)


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
    tested_step = step("quantize", name, **settings)
    found = tested_step.method.refuses(tested_step.config, SMOL)
    assert [one.field for one in found] == ([] if blamed is None else [blamed])
    assert all(reason in one.reason for one in found)


def test_words_must_be_filled_in_every_direction() -> None:
    indivisible = SMOL._replace(groups=1, head_dim=16, queries_per_group=36)
    (found,) = GPTQ_FORMAT.objections(Packing(4, 32), indivisible)
    assert found == ("", "the checkpoint format needs multiples of 32, and the width of keys and values 16 is none; take rtn")
    assert Format("any").objections(Packing(4, 32), indivisible) == []


def test_every_module_that_a_method_or_a_format_names_is_there() -> None:
    for entry in METHODS:
        assert importlib.util.find_spec(entry.module), entry.name
    for known in formats():
        assert importlib.util.find_spec(known.reader), known.name


def test_a_format_is_recognised_by_its_own_name_alone() -> None:
    for known in formats():
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
    """Costs, refusals and formats come from the method. A family's file is imported only where its own passes are planned."""
    families = {path.stem for path in Path(installed.__file__).parent.glob("*.py")} - {
        "__init__", "amounts", "dimensions", "format", "installed", "layerwise", "method", "plain_linears", "registry", "settings"
    }  # fmt: skip
    # Gathering, adopting and published studies are about methods of one name; what a step costs and may do is not.
    for name in ("estimate", "rules", "model_files", "packages", "advice", "starter"):
        source = (Path(compresslab.plan.__file__).parent / f"{name}.py").read_text(encoding="utf-8")
        imported = {
            f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not {part for module in imported if module.startswith("compresslab.methods") for part in module.split(".")} & families, name


# Methods of other packages


class Mine(StepConfig):
    """Settings of an invented method."""

    method: Literal["mine"]


class Ours(StepConfig):
    """Settings with a name that exists already."""

    method: Literal["rtn"]


MINE = Method("quantize", "mine", Mine, "json.tool")
TAKEN = Method("quantize", "rtn", Ours, "json.tool")
ADOPTED = Method("adopt", "mine", Mine, "json.tool")
LOST = Method("quantize", "mine", Mine, "no_such_package.weights")
RELATIVE = replace(MINE, module=".weights")


class Preferred(StepConfig):
    """Settings that would be taken by every recipe that names no method."""

    method: Literal["mine"] = "mine"


class Renamed(StepConfig):
    """Settings that a recipe cannot choose by `method`."""

    method: Literal["mine"] = Field(alias="how")


class Undefined(StepConfig):
    """Settings of a type that exists for type checkers only."""

    method: Literal["mine"]
    amount: NoSuchType  # type: ignore[name-defined]  # noqa: F821


class Later(StepConfig):
    """Settings of a type that is defined further down."""

    method: Literal["mine"]
    amount: Amount | None = None


class Amount(StepConfig):
    """A part of `Later`."""


class TwoModels(StepConfig):
    """Settings of two other models."""

    method: Literal["mine"]
    teacher: str = "base"
    until: str | None = None


def _packing(_: StepConfig) -> Packing:
    return Packing(8)


PREFERRED, RENAMED, UNDEFINED, LATER, TWO_MODELS = (
    Method("quantize", "mine", config, "json.tool") for config in (Preferred, Renamed, Undefined, Later, TwoModels)
)
LISTED = replace(MINE, format=Format("listed", files=["one.json"]), packing=_packing)  # type: ignore[arg-type]
LISTED_LIBRARIES = replace(MINE, libraries=["one"])  # type: ignore[arg-type]
SAME_FORMAT = replace(MINE, format=GPTQ_FORMAT, packing=_packing)
STOLEN_FORMAT = replace(MINE, format=Format("gptq", "json.tool"), packing=_packing)
FOREIGN_FORMAT = replace(MINE, format=Format("hqq", "json.tool"), packing=_packing)


def found(monkeypatch: pytest.MonkeyPatch, **values: str) -> tuple[list[str], dict[str, str]]:
    """The methods of some entry points, and the reasons against the others."""
    points = [EntryPoint(name, value, installed.GROUP) for name, value in values.items()]
    monkeypatch.setattr(installed.metadata, "entry_points", lambda group: points if group == "compresslab.methods" else [])
    methods, broken = installed_methods(METHODS)
    return [entry.name for entry in methods], broken


def test_one_method_under_two_names_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    methods, broken = found(monkeypatch, mine=f"{__name__}:MINE", again=f"{__name__}:MINE")
    assert methods == ["mine"]
    assert "takes the name 'mine'" in broken["mine"]


@pytest.mark.parametrize("name", ["MINE", "LATER", "SAME_FORMAT"])
def test_an_installed_method_stands_beside_our_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, mine=f"{__name__}:{name}") == (["mine"], {})


@pytest.mark.parametrize("failure", ["raise SystemExit(3)", "raise RuntimeError('no')", "1 / 0", "raise type('Odd', (BaseException,), {})"])
def test_a_package_may_fail_as_it_likes(failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "failing").mkdir()
    (tmp_path / "failing" / "__init__.py").write_text(failure)
    monkeypatch.setattr(sys.modules[__name__], "INSIDE", replace(MINE, module="failing.weights"), raising=False)
    methods, broken = found(monkeypatch, bad="failing:METHOD", inside=f"{__name__}:INSIDE", mine=f"{__name__}:MINE")
    assert methods == ["mine"]
    assert "failing:METHOD does not load: " in broken["bad"]
    assert "names the module failing.weights, which is not there: " in broken["inside"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_module:MINE", "does not load: ModuleNotFoundError"),
        (f"{__name__}:Mine", "is no compresslab.methods.method.Method"),
        (f"{__name__}:TAKEN", "takes the name 'rtn' of a quantize method that is there already"),
        (f"{__name__}:ADOPTED", "is of the kind 'adopt'"),
        (f"{__name__}:LOST", "names the module no_such_package.weights, which is not there"),
        (f"{__name__}:RELATIVE", "names the module .weights; write its full name"),
        (f"{__name__}:PREFERRED", "has the default 'mine' for `method`"),
        (f"{__name__}:RENAMED", "has an alias for `method`"),
        (f"{__name__}:UNDEFINED", "cannot be checked: PydanticUndefinedAnnotation: name 'NoSuchType' is not defined"),
        (f"{__name__}:TWO_MODELS", "has the settings `teacher` and `until`"),
        (f"{__name__}:LISTED", "has a field whose value can change (unhashable type: 'list'); write tuples for lists"),
        (f"{__name__}:LISTED_LIBRARIES", "has a field whose value can change"),
        (f"{__name__}:STOLEN_FORMAT", "has a format of its own by the name 'gptq' of another one"),
        (f"{__name__}:FOREIGN_FORMAT", "has a format of its own by the name 'hqq' of another one"),
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


def test_a_kind_keeps_its_default_when_another_package_adds_a_method() -> None:
    choice: TypeAdapter[StepConfig] = TypeAdapter(choice_of([FORWARD_KL, JSD, Method("distill", "mine", Mine, "json.tool")]))
    assert choice.validate_json('{"tokens": 5}', strict=True) == Distill(tokens=5)
    assert choice.validate_json('{"method": "mine"}', strict=True) == Mine(method="mine")
    for name in ("other", "reverse-kl"):  # the latter is in the Literal of `Distill` and not among these methods
        with pytest.raises(ValidationError, match="does not match any of the expected tags"):
            choice.validate_json(f'{{"method": "{name}", "tokens": 5}}', strict=True)


def test_settings_of_a_method_that_is_not_registered_are_bad_input() -> None:
    with pytest.raises(BadInput, match="there is no quantize method 'mine'; there are rtn, gptq, awq"):
        method_of("quantize", Mine(method="mine"))


def test_the_files_of_a_package_are_all_of_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for folder in ("whole_package/inside", "whole_namespace/one/inside", "whole_namespace/other"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "deep.py").write_text("DEEP = 1\n")
    for package in ("whole_package", "whole_namespace/one"):
        (tmp_path / package / "__init__.py").write_text("raise RuntimeError\n")
        (tmp_path / package / f"fast{EXTENSION_SUFFIXES[0]}").write_bytes(b"\x7fELF")
    (tmp_path / "one_module.py").write_text("ONE = 1\n")
    whole = {"__init__.py", f"fast{EXTENSION_SUFFIXES[0]}", "inside/deep.py"}
    assert set(installed.files_of("whole_package.inside.deep")) == whole
    assert set(installed.files_of("whole_namespace.one.inside.deep")) == whole
    assert set(installed.files_of("whole_namespace.other.deep")) == {"deep.py"}
    assert set(installed.files_of("one_module")) == {"one_module.py"}
    for module in ("no_such_module", "whole_namespace", "builtins", "..relative"):
        assert installed.files_of(module) == {}


def test_the_release_of_a_package_is_known_from_its_metadata() -> None:
    assert re.fullmatch(r"pydantic \d+\..*", installed.release_of("pydantic.main"))
    assert installed.release_of("no_such_module") == ""
