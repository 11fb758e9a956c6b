"""An adopted quantized model: whether it counts as a copy of its parent's weights, from a recipe to the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from compresslab.report.html import render
from compresslab.studies.compress import compress
from compresslab.studies.run_study import run_study

RECIPE = """
study: copies
question: Is the adopted model a copy?
base: {{model: {model}, dtype: bfloat16}}
variants:
  packed: [{{adopt: {{model: {packed}}}}}]
  trained: [{{adopt: {{model: {other}, trained: true}}}}]
compute: {compute}
evaluate: {{tasks: [arc_easy], items: 12}}
density: {{hardware: [], measure: false, resamples: 200}}
"""


@pytest.mark.slow
def test_a_quantized_folder_of_the_parents_dimensions_has_no_scatter_of_a_training_run(
    tiny_folder: Path, recipe_text: str, compute: str, tmp_path: Path
) -> None:
    """The same folder is adopted twice, once with the recipe's word that it was trained."""
    del recipe_text  # skips where the OLMES requests are missing
    step = {"quantize": {"method": "rtn", "group_size": 32}}
    for name in ("packed", "other"):
        compress(str(tiny_folder), step, tmp_path / name)
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(model=tiny_folder, packed=tmp_path / "packed", other=tmp_path / "other", compute=compute))
    study = run_study(path, store=tmp_path / "store")
    by_name = {variant.name: variant for variant in study.variants}
    assert [by_name[name].comparisons[0].runs_apart for name in ("packed", "trained")] == [0, 2]
    page = render(study)
    assert "packed counts as a copy of the weights of base, so r has no scatter between training runs: its config.json says" in page
    assert "dimensions are its parent&#39;s, and so is its embedding" in page
    assert "trained counts as trained separately from base, so r has the scatter between training runs: the recipe says" in page
