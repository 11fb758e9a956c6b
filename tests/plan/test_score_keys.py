"""What the keys of scores hold beside the model: packages that grade, the sandbox, and whether programs are trusted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from plan_helpers import MACHINE

import compresslab
from compresslab import versions
from compresslab.catalog import graders, stock_tasks
from compresslab.plan import keys, node_keys
from compresslab.plan.build import build
from compresslab.recipe.load import loads_located
from compresslab.versions import package_of, version

TASKS = ("arc_easy", "lm-eval:arc_easy", "minerva_math_algebra", "ifeval", "humaneval", "wmt16-ro-en")


def scores(*, run_code: bool = False, trust_code: bool = False) -> dict[str, str]:
    """Keys of the base's scores, by task."""
    evaluate = f"{{tasks: [{', '.join(TASKS)}], run_code: {str(run_code).lower()}}}"
    recipe, places, _ = loads_located(f"study: s\nbase: {{model: offline:smollm2-135m-instruct}}\nevaluate: {evaluate}\n", "r.yaml")
    plan = build(recipe, MACHINE, places, trust_code=trust_code)
    return dict(plan.node(plan.variants[0].evaluate).tasks)


def differing(one: dict[str, str], other: dict[str, str]) -> set[str]:
    return {task for task in TASKS if one[task] != other[task]}


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ("math_verify", {"minerva_math_algebra"}),
        ("latex2sympy2_extended", {"minerva_math_algebra"}),
        ("antlr4-python3-runtime", {"minerva_math_algebra"}),
        ("langdetect", {"ifeval"}),
        ("immutabledict", {"ifeval"}),
        ("sacrebleu", {"wmt16-ro-en"}),
        ("lm_eval", set(TASKS)),
        ("datasets", set()),
    ],
)
def test_a_package_that_grades_decides_the_scores_that_it_grades(package: str, expected: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = scores()
    monkeypatch.setattr(node_keys, "version", lambda name: "another" if name == package else version(name))
    assert differing(before, scores()) == expected


@pytest.mark.parametrize("module", node_keys.SANDBOX_CODE)
def test_the_sandbox_decides_scores_only_where_programs_may_run(module: str, change: Callable[[str], None]) -> None:
    without, allowed = scores(), scores(run_code=True)
    change(module)
    assert differing(without, scores()) == set()
    assert differing(allowed, scores(run_code=True)) == set(TASKS) - {"arc_easy"}


@pytest.mark.parametrize("module", ["compresslab.evaluation.code_tasks", "compresslab.evaluation.code_reading"])
def test_which_tasks_are_refused_decides_no_score(module: str, change: Callable[[str], None]) -> None:
    before = scores(run_code=True)
    change(module)
    assert scores(run_code=True) == before


def test_the_keys_name_every_module_of_the_sandbox() -> None:
    folder = Path(compresslab.__file__).parent / "evaluation" / "sandbox"
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert {module.rpartition(".")[2] for module in node_keys.SANDBOX_CODE} == files
    assert all(keys._source(module) for module in node_keys.SANDBOX_CODE)


def test_trusted_scores_are_other_results_where_programs_may_run() -> None:
    assert differing(scores(run_code=True), scores(run_code=True, trust_code=True)) == set(TASKS) - {"arc_easy"}
    assert scores() == scores(trust_code=True)


def test_the_packages_of_a_task_are_found_through_its_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = {
        "tasks/pets/cats.yaml": "include: _shared\ntask: cats\n",
        "tasks/pets/_shared": "metric_list:\n  - metric: bleu\nprocess_results: !function utils.score\n",
        "tasks/pets/utils.py": "import json, numpy\nfrom . import more\nfrom lm_eval.tasks.birds.utils import f\n",
        "tasks/pets/more.py": "def g():\n    from paws.claws import h\n",
        "tasks/pets/pets.yaml": "group: pets\ntask:\n  - cats\n  - task: birds_one\n",
        "tasks/pets/other.py": "import unused\n",
        "tasks/birds/one.yaml": "task: birds_one\nmetric_list:\n  - metric: wings\n    aggregation: !function sky.metrics.mean\n",
        "tasks/birds/utils.py": "import feathers\nimport broken.here\n",
        "api/metrics.py": "import sacrebleu\n@register_aggregation('bleu')\ndef bleu(x):\n    return sacrebleu.b(x)\n"
        "@register_metric(metric='bleu', aggregation='bleu')\ndef bleu_fn(x): ...\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(stock_tasks, "tasks_folder", lambda: tmp_path / "tasks")
    caches = (stock_tasks.find, graders.graders, graders._of_metrics)
    for cache in caches:
        cache.cache_clear()
    try:
        assert graders.graders("birds_one") == ("evaluate", "sky")
        assert graders.graders("cats") == ("broken", "feathers", "paws", "sacrebleu")
        assert graders.graders("pets") == ("broken", "evaluate", "feathers", "paws", "sacrebleu", "sky")
    finally:
        for cache in caches:
            cache.cache_clear()


def test_a_group_of_another_folder_has_the_packages_of_its_members() -> None:
    assert {"math_verify", "sympy"} <= set(graders.graders("minerva_math"))
    assert graders.graders("gsm8k") == ()


def test_a_module_is_found_under_the_name_that_it_is_installed_by() -> None:
    assert package_of("sklearn") == "scikit-learn"
    assert package_of("lm_eval") == "lm_eval"
    assert package_of("dateutil") == "python-dateutil"
    assert package_of("no_such_module") == "no_such_module"
    assert versions.version(package_of("dateutil")) != "absent"
