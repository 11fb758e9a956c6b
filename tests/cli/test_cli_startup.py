"""The commands that a person waits for at the prompt do without torch. How long they take: `benchmarks/prompt.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
HEAVY = ("torch", "transformers", "lm_eval", "datasets", "pandas", "scipy", "accelerate", "bitsandbytes", "huggingface_hub", "sklearn")
PROBE = f"""
import sys
from compresslab.cli.main import main
sys.argv = ["compresslab", *sys.argv[1:]]
try:
    main()
finally:
    print("heavy:", *(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
"""


def call(*arguments: str, cwd: Path, code: str = PROBE) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["--help"], 0),
        (["run", "--help"], 0),
        (["validate", str(QUICKSTART)], 0),
        (["plan", str(QUICKSTART)], 0),
        (["ls"], 0),
        (["show", "nothing"], 2),
        (["report", str(QUICKSTART)], 2),
        (["run", "missing.yaml"], 2),
        (["validate", "missing.yaml"], 2),
    ],
)
def test_torch_is_not_imported(arguments: list[str], exit_code: int, tmp_path: Path) -> None:
    done = call(*arguments, cwd=tmp_path)
    assert done.returncode == exit_code, done.stderr
    assert done.stderr.splitlines()[-1] == "heavy:"
    assert "Traceback" not in done.stderr


def test_a_run_says_what_it_will_do_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    """The nodes themselves are not run here; the lines come before the first of them."""
    stop = f"""
import sys
from compresslab.runner import run
def stopped(*_, **__):
    raise KeyboardInterrupt
run.run = stopped
{PROBE}"""
    done = call("run", str(QUICKSTART), cwd=tmp_path, code=stop)
    assert done.returncode == 130, done.stderr
    begun, study, *_ = done.stdout.splitlines()
    assert begun.endswith(str(QUICKSTART))
    assert "23 to run: about" in study
    assert done.stderr.splitlines()[-1] == "heavy:"


def test_the_first_line_of_a_run_comes_before_its_own_imports(tmp_path: Path) -> None:
    """So that it comes at once however long the machine takes to look at itself and at the recipe."""
    code = f"""
import sys
from compresslab.cli import run
told = run.first_line
def first_line(*recipes):
    told(*recipes)
    print(*(name for name in ("compresslab.runner.run", "compresslab.plan.build", "rich.progress") if name in sys.modules))
    raise SystemExit
run.first_line = first_line
{PROBE}"""
    done = call("run", "missing.yaml", cwd=tmp_path, code=code)
    assert done.stdout.splitlines()[1:] == [""]


def test_the_probe_sees_a_heavy_import(tmp_path: Path) -> None:
    done = call("--help", cwd=tmp_path, code="import sys; sys.modules['torch'] = sys\n" + PROBE)
    assert done.stderr.splitlines()[-1] == "heavy: torch"


def test_a_traceback_with_debug_and_none_without(tmp_path: Path) -> None:
    done = call("validate", "missing.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: 1 problem in the recipe:\nmissing.yaml: no such file; check the path\nheavy:\n"
    done = call("validate", "missing.yaml", "--debug", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "RecipeError: 1 problem in the recipe" in done.stderr
