"""lm-eval's files of two tiny models, and files in its form."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .lm_eval_results import TIME, Results, content


class Evaluated(NamedTuple):
    """The folder with the models and the data, and lm-eval's files of both models: results first."""

    folder: Path
    parent: list[Path]
    child: list[Path]

    @property
    def files(self) -> list[str]:
        return [str(path) for path in (*self.parent, *self.child)]


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evaluated]:
    """Two models that lm-eval evaluated on 40 questions, with samples."""
    import datasets

    from studies import lm_eval_runs

    folder = tmp_path_factory.mktemp("evaluated")
    cache, place = datasets.config.HF_DATASETS_CACHE, Path.cwd()
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    lm_eval_runs.make_data(folder)
    lm_eval_runs.make_models(folder)
    os.chdir(folder)
    try:
        yield Evaluated(folder, *(lm_eval_runs.evaluate(folder / name, folder / "out") for name in ("parent", "child")))
    finally:
        os.chdir(place)
        datasets.config.HF_DATASETS_CACHE = cache


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Writes a file of results and gives its path."""

    def write(model: str, tasks: dict[str, dict[str, Any]] | None = None, *, time: str = TIME, folder: str = "", **more: Any) -> str:
        path = tmp_path / (folder or model.replace("/", "__")) / f"results_{time}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content(model, tasks or {"mmlu": {"acc": 0.6, "shots": 5, "items": 14042, "error": 0.004}}, **more)))
        return str(path)

    return write
