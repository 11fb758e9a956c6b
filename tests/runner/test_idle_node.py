"""A step that did not do what it says fails its node in the real runner, and nothing of it enters the store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
ENTRY_POINTS = "[compresslab.methods]\nidle = idle_methods:PRUNER\nhead = idle_methods:TRAINER\n"
PLUGIN = '''
from typing import Literal
from compresslab.methods.method import Method, Zeros
from compresslab.methods.settings import StepConfig

class Idle(StepConfig):
    """Returns the model as it is."""
    method: Literal["idle"]

class Head(StepConfig):
    """Trains the output head and nothing else."""
    method: Literal["head"]
    tokens: int = 64

PRUNER = Method("prune", "idle", Idle, "idle_methods", zeros=lambda _: Zeros(0.5, "row"))
TRAINER = Method("retrain", "head", Head, "idle_methods", "training", trains=True)

def apply(loaded, config, context):
    from compresslab.steps.contract import StepResult
    if config.method == "head":
        loaded.model.get_output_embeddings().weight.data *= 1.5
    frozen = {"model.layers": "the method trains the head alone"} if config.method == "head" else {}
    return StepResult(loaded.model, tokens_seen=64 * len(frozen), left_alone=frozen)
'''
RECIPE = """
study: idle
base: {{model: {model}, dtype: float32}}
compute: float32
text: {{training: {{source: {text}, length: 32}}}}
variants:
  idle: [{{prune: {{method: idle}}}}]
  head: [{{retrain: {{method: head}}}}]
evaluate: {{tasks: [openbookqa], items: 4}}
density: {{measure: false, hardware: [h100-sxm], resamples: 200}}
"""
RUN = """
import json, sys
from pathlib import Path
from guard.emulation import watch_workers
from compresslab.plan.prepare import prepare
from compresslab.runner.run import run
from compresslab.runner.watcher import Watcher
from compresslab.store.store import Store

if __name__ == "__main__":
    watch_workers()
    plan, store = prepare(Path(sys.argv[1])), Store(Path(sys.argv[2]))
    failures = run(plan, store, Watcher()).failures
    models = {variant.name: variant.model for variant in plan.variants}
    print(json.dumps({name: [failures[key].cause if key in failures else "", store.folder(key).exists()] for name, key in models.items()}))
"""


@pytest.mark.usefixtures("recipe_text")
def test_a_step_that_did_nothing_fails_its_node_and_one_that_says_what_it_leaves_alone_does_not(
    tiny_folder: Path, tiny_text: Path, tmp_path: Path
) -> None:
    info = tmp_path / "site" / "idle_methods-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: idle-methods\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "site" / "idle_methods.py").write_text(PLUGIN)
    (tmp_path / "run.py").write_text(RUN)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(model=tiny_folder, text=tiny_text))
    paths = os.pathsep.join([str(tmp_path / "site"), str(HERE.parent), *sys.path])
    command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "recipe.yaml"), str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=os.environ | {"PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["base"] == ["", True]
    assert found["idle"] == [
        "prune idle: the recipe asks for a share of 0.5 of zeros in each row of the decoder layers' linear layers; "
        "the files have 0 zeros in a row of 64 in model.layers.0.self_attn.q_proj and 20 more; nothing was kept",
        False,
    ]
    assert found["head"] == ["", True]
