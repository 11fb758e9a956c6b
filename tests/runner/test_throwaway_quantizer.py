"""A quantizer that exists only here is found, planned, estimated, run, reloaded, counted and reported: one file and one line are enough.

Its package is `throwaway_quantizer.py` and an entry point, in a folder that the study's processes have on their path.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# Studies on these tasks are left out where their requests are not in the cache.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("recipe_text")]
HERE = Path(__file__).parent
ENTRY_POINTS = "[compresslab.methods]\ncoarse = throwaway_quantizer:METHOD\nnowhere = throwaway_quantizer:NOWHERE\n"
RECIPE = """
study: coarse
base: {{model: {model}, dtype: float32}}
compute: float32
variants:
  coarse: [{{quantize: {{method: coarse, levels: 127}}}}]
evaluate: {{tasks: [openbookqa], items: 4}}
density: {{hardware: [h100-sxm], workload: {{batch: 1, prompt: 8, decode: 2}}, resamples: 200}}
"""
# Of the tiny model in runner/conftest.py: a tied embedding of 280 x 64, and three layers.
EMBEDDING, LINEAR, NORMS = 280 * 64, 3 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64), 7 * 64
OUTPUTS = 3 * (64 + 32 + 32 + 64 + 128 + 128 + 64)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the throw-away package is installed."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(HERE / "throwaway" / "throwaway_quantizer.py", folder)
    info = folder / "throwaway_quantizer-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: throwaway-quantizer\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder


def study(site: Path, model: Path, folder: Path, *arguments: str) -> Any:
    """What `throwaway_study.py` says of the recipe."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(model=model))
    paths = [str(site), str(HERE.parent), *sys.path]
    command = [sys.executable, str(HERE / "throwaway_study.py"), str(recipe), str(folder), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def said(site: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A whole study with the throw-away quantizer."""
    return study(site, tiny_folder, tmp_path_factory.mktemp("coarse"))


def test_it_is_planned_without_torch(said: Any) -> None:
    assert said["heavy"] == []


def test_its_folder_is_estimated_as_packed(said: Any) -> None:
    estimates = said["estimates"]
    assert estimates["load base"]["disk"] < 4 * (EMBEDDING + LINEAR + NORMS), "it is referred to and not copied"
    assert estimates["quantize coarse"]["disk"] == 4 * EMBEDDING + LINEAR + NORMS


def test_training_after_it_is_refused(said: Any) -> None:
    assert "recipe.yaml" not in said["trained"]
    assert "variants.coarse[1].retrain: training after coarse is not possible: packed weights take no gradient" in said["trained"]


def test_its_name_and_its_settings_are_explained_like_our_own(said: Any) -> None:
    assert "refused.yaml:6:32: variants.coarse[0].quantize.method: unknown method 'coarsee'; did you mean 'coarse'?" in said["unknown"]
    assert "variants.coarse[0].quantize.levels: 9 does not fit here; give one of 7 or 127" in said["setting"]


def test_one_that_does_not_load_is_told_where_an_unknown_method_is_named_and_nowhere_else(said: Any) -> None:
    reason = "the installed method 'nowhere' cannot be used: throwaway_quantizer:NOWHERE does not load: AttributeError"
    assert reason in said["broken"]
    assert reason in said["unknown"]
    assert "nowhere" not in said["setting"]


def test_it_runs_and_its_folder_gives_the_same_logits_in_a_fresh_process(said: Any) -> None:
    coarse = next(variant for variant in said["record"]["variants"] if variant["name"] == "coarse")
    assert coarse["failures"] == []
    assert [step["method"] for step in coarse["steps"]] == ["load", "coarse"]
    assert [score["task"] for score in coarse["scores"]] == ["openbookqa"]
    assert coarse["scores"][0]["weights"] == "dequantized"
    assert coarse["timing"]["weights"] == "a product with rows of int8, by the throw-away package"


def test_its_bits_are_counted_from_its_files(said: Any) -> None:
    size = next(variant for variant in said["record"]["variants"] if variant["name"] == "coarse")["steps"][-1]["size"]
    packed = LINEAR + 2 * OUTPUTS  # a byte a weight, and a scale of 16 bits a row
    assert size["parameters"] == EMBEDDING + LINEAR + NORMS
    assert size["stored_bytes"] == packed + 4 * (EMBEDDING + NORMS)
    assert size["effective_bits"] == 8 * (packed + 2 * (EMBEDDING + NORMS)) / size["parameters"]
    assert 0 < size["nonzero"] < size["parameters"]


def test_it_stands_on_the_page(said: Any) -> None:
    page = Path(said["page"]).read_text(encoding="utf-8")
    assert "quantize coarse" in page
    assert "by the throw-away package" in page


def test_its_code_decides_its_key_and_no_other(said: Any, site: Path, tiny_folder: Path, tmp_path: Path) -> None:
    changed = tmp_path / "site"
    shutil.copytree(site, changed)
    code = changed / "throwaway_quantizer.py"
    code.write_text(code.read_text().replace(".round()", ".floor()"))
    keys = study(changed, tiny_folder, tmp_path, "plan")["keys"]
    assert keys["base"] == said["keys"]["base"]
    assert keys["coarse"] != said["keys"]["coarse"]
