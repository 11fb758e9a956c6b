"""What `compresslab doctor` says of kernels: each is tried, and none can spoil the examination."""

from __future__ import annotations

import json
import os
import re
import time

import pytest
from calling import Call

from compresslab.cli.doctor import Finding
from compresslab.cli.kernels import CHECKS, _agreement, check_all, check_one, kernels
from compresslab.errors import RunFailed, UnsupportedModel
from compresslab.methods.registry import METHODS
from compresslab.versions import version


def fine() -> str:
    print("a library prints")
    return "works"


def crash() -> str:
    os.abort()


def leave() -> str:
    os._exit(3)


def hang() -> str:
    time.sleep(600)
    return "late"


def test_every_format_that_is_written_is_tried() -> None:
    assert {entry.name for entry in METHODS if entry.kind == "quantize"} <= set(CHECKS)


@pytest.mark.slow
def test_every_kernel_is_really_run_and_the_libraries_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    import torch

    found = {finding.name.removeprefix("kernel: "): finding for finding in kernels()}
    assert capfd.readouterr() == ("", "")
    assert list(found) == list(CHECKS)
    absent = {
        name for name, package in (("gptq", "gptqmodel"), ("awq", "gptqmodel"), ("torchao-int8", "torchao")) if version(package) == "absent"
    }
    for name in absent:
        assert found[name].works is None
        assert "pip install 'compresslab[" in found[name].message
    if not torch.cuda.is_available():
        assert found["torchao-int4"].works is None
        assert "on a GPU only" in found["torchao-int4"].message
    for name in CHECKS.keys() - absent - {"torchao-int4"}:
        assert found[name].works, found[name]
        assert re.search(r": right to \d+\.\d%$", found[name].message), found[name]
    for name in {"gptq", "awq"} - absent:
        assert re.search(r"by \w+Linear, on (cpu|cuda:0)", found[name].message), "the backend that gptqmodel chose is named"


@pytest.mark.slow
def test_what_crashes_or_never_ends_takes_no_other_with_it() -> None:
    checks = {"first": fine, "crash": crash, "second": fine, "hang": hang, "third": fine, "leave": leave}
    found = check_all(checks, timeout=10)
    assert [finding.name for finding in found] == [f"kernel: {name}" for name in checks]
    assert [finding.works for finding in found] == [True, False, True, False, True, False]
    assert "(SIGABRT)" in found[1].message
    assert found[3].message.startswith("no answer within 10 s; ")
    assert "(exit code 3)" in found[5].message


@pytest.mark.parametrize(
    ("error", "works", "message"),
    [
        (UnsupportedModel("not here"), None, "not here"),
        (RunFailed("garbage"), False, "garbage"),
        (ValueError("two\n  lines"), False, "ValueError: two lines"),
        (AssertionError(), False, "AssertionError: "),
        (ImportError("x" * 999), False, f"ImportError: {'x' * 300}"),
    ],
)
def test_whatever_a_kernel_raises_becomes_one_line(error: Exception, works: bool | None, message: str) -> None:
    def check() -> str:
        raise error

    assert check_one("it", check) == Finding("kernel: it", works, message)


def test_a_package_that_is_not_installed_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compresslab.plan.packages.version", lambda _: "absent")
    message = "gptq needs gptqmodel, which is not installed: pip install 'compresslab[gptq]'"
    assert check_one("gptq", CHECKS["gptq"]) == Finding("kernel: gptq", None, message)


def test_wrong_numbers_are_found() -> None:
    import torch

    plain = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    assert _agreement((plain * 1.01).bfloat16(), plain) == "right to 1.0%"
    for wrong in (-plain, plain.roll(1), torch.zeros_like(plain), plain * float("nan")):
        with pytest.raises(RunFailed, match="do not trust them"):
            _agreement(wrong, plain)


def test_doctor_tells_how_kernels_work(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        Finding("kernel: good", True, "works"),
        Finding("kernel: bad", False, "[red]ValueError"),
        Finding("kernel: other", None, "absent"),
    ]
    monkeypatch.setattr("compresslab.cli.kernels.kernels", lambda: found)
    monkeypatch.setattr("compresslab.cli.doctor._hub", lambda: "out of reach")
    lines = [" ".join(line.split()) for line in call("doctor", "--kernels").out.splitlines() if "kernel: " in line]
    assert lines == ["ok kernel: good works", "NO kernel: bad [red]ValueError", "- kernel: other absent"]
    expected = [{"what": finding.name, "well": finding.works, "said": finding.message} for finding in found]
    assert [row for row in json.loads(call("doctor", "--kernels", "--json").out) if "kernel" in row["what"]] == expected
