"""What goes wrong outside the recipe ends in one clear message, and nothing finished is lost."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from compresslab.errors import BadInput, RunFailed
from compresslab.plan.prepare import prepare
from compresslab.runner.endings import explained
from compresslab.runner.run import run
from compresslab.runner.watcher import Watcher
from compresslab.store.store import Store
from compresslab.studies.run_study import run_study


def command_line(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "guard.command_line", *map(str, arguments)]
    # A shell starts what it runs in the background with SIGINT ignored, and children inherit that; a handler they do not.
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment, start_new_session=True
        )
    finally:
        signal.signal(signal.SIGINT, ours)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_interrupting_a_run_leaves_the_store_clean_and_a_rerun_goes_on(signum: int, code: int, recipe: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    process = command_line("run", recipe, "--store", store.root, "--reports", tmp_path / "reports")
    deadline = time.monotonic() + 120
    while not (store.objects.is_dir() and any(store.objects.iterdir())):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signum)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert "run again to go on" in said
    assert "Traceback" not in said
    assert not list(store.staging.iterdir())
    finished = {path.name for path in store.objects.iterdir()}
    assert finished
    ran = run(prepare(recipe), store, Watcher())
    assert not ran.failures
    assert ran.cached >= 1
    assert finished <= {path.name for path in store.objects.iterdir()}


def test_weights_that_are_not_finite_are_refused_by_name(recipe: Path, tiny_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(tiny_folder, broken)
    tensors = load_file(broken / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    recipe.write_text(recipe.read_text().replace(str(tiny_folder), str(broken)))
    plan, store = prepare(recipe), Store(tmp_path / "store")
    causes = [failure.cause for failure in run(plan, store, Watcher()).failures.values()]
    assert "not finite" in causes[0]
    assert all("not run, because “load base” failed" in cause for cause in causes[1:])
    assert not store.objects.exists()


def test_a_hub_that_cannot_be_reached_is_named_with_the_alternatives(recipe: Path, tiny_folder: Path, tmp_path: Path) -> None:
    recipe.write_text(recipe.read_text().replace(str(tiny_folder), "nobody/no-such-model@0123abc"))
    process = command_line("run", recipe, "--store", tmp_path / "store", "--reports", tmp_path / "reports", HF_HUB_OFFLINE="1")
    said, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "nobody/no-such-model could not be loaded from the model hub" in error
    assert "offline:smollm2-135m-instruct" in error
    assert "Traceback" not in said + error


def test_a_disk_that_is_too_small_is_refused_before_anything_runs(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = prepare(recipe)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(RunFailed, match=r"GB free and this study needs about .* GB"):
        run(plan, Store(tmp_path / "store"), Watcher())


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("I/O error: No space left on device (os error 28)")]
)
def test_a_disk_that_fills_up_is_explained(error: Exception, tmp_path: Path) -> None:
    assert "no space is left on the disk" in explained(error, tmp_path / "logs" / "key.log")


def test_an_unexpected_error_names_the_log_that_holds_its_traceback(tmp_path: Path) -> None:
    log = tmp_path / "key.log"
    assert explained(ValueError("odd"), log) == f"ValueError: odd (the traceback is in {log})"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"),
            r"^not enough memory on cuda:1: CUDA out of memory.*--device cpu",
        ),
        (
            NotImplementedError("The operator 'aten::x' is not implemented for the MPS device"),
            r"^cuda:1 has no kernel for .*aten::x.*--device cpu",
        ),
        (
            type("AcceleratorError", (RuntimeError,), {})("CUDA error: unspecified launch failure"),
            r"^cuda:1 failed while it computed: .*doctor",
        ),
    ],
)
def test_a_device_that_fails_is_named_with_what_to_do(tmp_path: Path, error: Exception, said: str) -> None:
    assert re.search(said, explained(error, tmp_path / "logs" / "node.log", "cuda:1"))


def test_memory_of_the_processor_is_not_blamed_on_a_device(tmp_path: Path) -> None:
    assert "--device" not in explained(MemoryError(), tmp_path / "logs" / "node.log")
    lacking = RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory")
    assert explained(lacking, tmp_path / "logs" / "node.log").startswith("not enough memory: ")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk with too little room for the tiny study."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only who may mount a disk can try a full one")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_store_whose_disk_fills_up_is_named_in_every_node_and_the_page_is_written(
    recipe: Path, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compresslab.runner.run.check_disk", lambda *_: None)  # as if another program filled it meanwhile
    record = run_study(recipe, store=small_disk / "store", reports=tmp_path / "reports")
    causes = {failure.cause for variant in record.variants for failure in variant.failures if failure.because is None}
    assert causes
    assert all(cause.startswith(f"no space is left on the disk of {small_disk}") for cause in causes), causes
    assert (tmp_path / "reports" / "tiny" / "index.html").is_file()


def test_a_folder_of_reports_without_room_is_refused_before_anything_runs(recipe: Path, small_disk: Path, tmp_path: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(2**19))
    with pytest.raises(BadInput, match=r"no page can be written into .*No space left on device.*name another folder"):
        run_study(recipe, store=tmp_path / "store", reports=small_disk)
    assert not (tmp_path / "store").exists()
