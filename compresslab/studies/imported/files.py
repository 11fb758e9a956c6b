"""lm-eval's own files: `results_<time>.json` and `samples_<task>_<time>.jsonl`, read as lm-eval 0.4 writes them, and checked.

Both kinds bear the time of their run at the end of their names, which tells which samples belong to which results.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from compresslab.errors import BadInput
from compresslab.inputs import read_json, reason
from compresslab.recipe.schema import NAME_FORM
from compresslab.records.compute import Dtype
from compresslab.studies.imported.asking import settings_of, template_of

LARGEST_RESULTS = 256 * 2**20  # bytes of a file of results, which has some kilobytes a task
PARTS = ("results", "configs", "versions", "n-shot")
"""What every file of results of lm-eval 0.4 has."""

TIME = re.compile(r"_(\d{4}-\d\d-\d\dT[\d.-]+)$")
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")


@dataclass(frozen=True)
class TaskResult:
    """One task, or group of tasks, of one model.

    Attributes:
        leaves: the tasks that were asked: itself, or those of a group. shots: examples before a question; `None` if the leaves differ.
        scores: value and standard error by lm-eval's name of the metric and filter, such as "acc_norm,none". items: that were answered.
        settings: what else decides what was asked, for comparing two models (`asking.settings_of`).
    """

    name: str
    leaves: tuple[str, ...]
    shots: int | None
    scores: Mapping[str, tuple[float, float | None]]
    items: int
    settings: Mapping[str, str]


@dataclass(frozen=True)
class ModelResults:
    """The results of one model, of one file or several.

    Attributes:
        model: lm-eval's name of it, often its folder. arguments: how it was loaded. lm_eval: the version that evaluated it.
        tasks: by name. configs: lm-eval's settings of each leaf. samples: the file of each leaf's samples, if it was given.
        dtype: of the weights as they were loaded, "" where lm-eval does not say, or a recipe has none such.
        parameters: of the model as lm-eval counted them, packed ones too few; 0 where it does not say. backend: lm-eval's class of model.
        template: the digest of the chat template that was put around the prompts, "" for none.
    """

    name: str
    model: str
    arguments: str
    paths: tuple[Path, ...]
    lm_eval: str
    dtype: str
    parameters: int
    backend: str
    template: str
    tasks: Mapping[str, TaskResult]
    configs: Mapping[str, Mapping[str, Any]]
    samples: Mapping[str, Path] = field(default_factory=dict)


def read_models(arguments: Sequence[str]) -> list[ModelResults]:
    """Read what was named on the command line: files of results, each with or without `NAME=` before it, and files of samples.

    Raises:
        BadInput: a file is missing, or not as lm-eval 0.4 writes it; two models have one name; samples belong to none of the results.
    """
    named = [_split(argument) for argument in arguments]
    results = [_results(name, path) for name, path in named if path.suffix != ".jsonl"]
    samples = [path for _, path in named if path.suffix == ".jsonl"]
    for name, path in named:
        if name and path.suffix == ".jsonl":
            raise BadInput(f"{name}={path}: samples belong to the results of the same run, so only results take a name")
    if not results:
        raise BadInput("no results_*.json among the files; lm-eval writes them with --output_path, and each names its model")
    given = _samples(samples, results)
    merged: dict[str, ModelResults] = {}
    for one in results:
        own = replace(one, samples=given[one.paths[0]])
        merged[one.name] = _merged(merged[one.name], own) if one.name in merged else own
    return list(merged.values())


def _split(argument: str) -> tuple[str, Path]:
    """The name that was given to a file, "" for none, and its path."""
    path = Path(argument)
    name, equals, rest = argument.partition("=")
    if equals and not path.exists():
        if not NAME.match(name):
            raise BadInput(f"{argument}: {name!r} is no name: write {NAME_FORM}")
        path = Path(rest)
    else:
        name = ""
    if path.is_dir():
        raise BadInput(f"{path} is a folder; name the files in it: {path}/results_*.json {path}/samples_*.jsonl")
    if path.suffix not in (".json", ".jsonl"):
        raise BadInput(f"{path} is neither a results_*.json nor a samples_*.jsonl of lm-eval")
    if not path.exists():
        raise BadInput(f"there is no file {path}")
    return name, path


def _results(name: str, path: Path) -> ModelResults:
    try:
        content = read_json(path, LARGEST_RESULTS)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read as results of lm-eval ({reason(error)})") from error
    if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
        raise BadInput(f"{path} is no file of results of lm-eval: it has no `results`; lm-eval writes one with --output_path")
    version = str(content.get("lm_eval_version") or "of an unstated version")
    missing = [part for part in PARTS if not isinstance(content.get(part), dict)]
    if missing:
        raise BadInput(
            f"{path} was written by lm-eval {version} and has no {', '.join(missing)}, which lm-eval 0.4 writes; evaluate again with it"
        )
    model = str(content.get("model_name") or "")
    if not name and not model:
        raise BadInput(f"{path} names no model; give it a name: NAME={path}")
    tasks = {task.name: task for task in _tasks(path, content, version)}
    if not tasks:
        raise BadInput(f"{path} has no task with a score")
    config = content.get("config")
    loaded = config if isinstance(config, dict) else {}
    dtype = str(loaded.get("model_dtype")).removeprefix("torch.")
    return ModelResults(
        name=name or _short(model),
        model=model or name,
        arguments=str(loaded.get("model_args") or ""),
        paths=(path,),
        lm_eval=version,
        dtype=dtype if dtype in get_args(Dtype) else "",
        parameters=max(counted, 0) if isinstance(counted := loaded.get("model_num_parameters"), int) else 0,
        backend=str(content.get("model_source") or loaded.get("model") or ""),
        template=template_of(content),
        tasks=tasks,
        configs=content["configs"],
    )


def _short(model: str) -> str:
    """The last part of a folder or a Hub id, as the name of a variant."""
    last = re.sub(r"[^A-Za-z0-9._-]+", "-", model.rstrip("/").rpartition("/")[2])
    return last.lstrip("._-")[:100] or "model"


def _tasks(path: Path, content: Mapping[str, Any], version: str) -> Iterator[TaskResult]:
    """The tasks that nobody asked for as a part of a group, and the groups."""
    groups = content.get("group_subtasks") or {}
    members = {name for subtasks in groups.values() for name in subtasks}
    for name, values in content["results"].items():
        if name in members:
            continue
        leaves = tuple(_leaves(name, groups))
        if not all(leaf in content["configs"] for leaf in leaves):
            raise BadInput(f"{path}: {name} has a score and no settings in `configs`; import the file as lm-eval {version} wrote it")
        if any(content["configs"][leaf].get("output_type") == "loglikelihood_rolling" for leaf in leaves):
            continue  # perplexity alone
        scores = dict(_scores(path, name, values, version)) or _pooled(path, leaves, content, version)
        if not scores:
            continue
        shots = {content["n-shot"].get(leaf) for leaf in leaves}
        counts = content.get("n-samples") or {}
        yield TaskResult(
            name=name,
            leaves=leaves,
            shots=next(iter(shots)) if len(shots) == 1 else None,
            scores=scores,
            items=sum(int((counts.get(leaf) or {}).get("effective", 0)) for leaf in leaves),
            settings=dict(settings_of(content, leaves)),
        )


def _leaves(name: str, groups: Mapping[str, Any]) -> Iterator[str]:
    """The tasks of a group, through groups in groups."""
    parts = groups.get(name) or []
    if not parts:
        yield name
    for part in parts:
        yield from _leaves(part, groups)


def _scores(path: Path, task: str, values: Any, version: str) -> Iterator[tuple[str, tuple[float, float | None]]]:
    """Value and standard error by metric and filter."""
    if not isinstance(values, dict):
        raise BadInput(f"{path}: the results of {task} are no JSON object; import the file as lm-eval {version} wrote it")
    numbers = {key: value for key, value in values.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    if any("," not in key for key in numbers if key in ("acc", "acc_norm", "exact_match")):
        raise BadInput(
            f"{path}: the scores of {task} name no filter (`acc`, where lm-eval 0.4 writes `acc,none`), as before lm-eval 0.4; "
            "its tasks ask otherwise than those of now, so evaluate again"
        )
    for key, value in numbers.items():
        metric, comma, answer_filter = key.partition(",")
        if comma and not metric.endswith("_stderr"):
            error = values.get(f"{metric}_stderr,{answer_filter}")
            yield key, (float(value), float(error) if isinstance(error, int | float) else None)


def _pooled(path: Path, leaves: Sequence[str], content: Mapping[str, Any], version: str) -> dict[str, tuple[float, float | None]]:
    """The scores of a group whose own entry has none (a tag), as the mean over all items of its tasks."""
    if len(leaves) < 2:
        return {}
    counts = content.get("n-samples") or {}
    parts = {leaf: dict(_scores(path, leaf, content["results"].get(leaf) or {}, version)) for leaf in leaves}
    items = {leaf: int((counts.get(leaf) or {}).get("effective", 0)) for leaf in leaves}
    total = sum(items.values())
    shared = [key for key in parts[leaves[0]] if all(key in part for part in parts.values())]
    if not total or not all(items.values()):
        return {}
    pooled: dict[str, tuple[float, float | None]] = {}
    for key in shared:
        mean = sum(items[leaf] * parts[leaf][key][0] for leaf in leaves) / total
        errors = [parts[leaf][key][1] for leaf in leaves]
        known = [error for error in errors if error is not None]
        squares = sum((items[leaf] * error / total) ** 2 for leaf, error in zip(leaves, known, strict=False))
        pooled[key] = (mean, squares**0.5 if len(known) == len(leaves) else None)
    return pooled


def _samples(paths: Iterable[Path], results: Sequence[ModelResults]) -> dict[Path, dict[str, Path]]:
    """The files of samples by the file of results that they belong to, and by task."""
    found: dict[Path, dict[str, Path]] = {one.paths[0]: {} for one in results}
    for path in paths:
        stamp = TIME.search(path.stem)
        if stamp is None or not path.stem.startswith("samples_"):
            raise BadInput(f"{path} is not named samples_<task>_<time>.jsonl, as lm-eval does, so nothing tells which run it is of")
        same_time = [one for one in results if one.paths[0].stem.endswith(stamp[0])]
        owners = [one for one in same_time if one.paths[0].parent == path.parent] if len(same_time) > 1 else same_time
        if len(owners) != 1:
            raise BadInput(
                f"{path} belongs to {'none' if not owners else 'several'} of the results: lm-eval writes both with the same time at the "
                f"end of their names; name results{stamp[0]}.json, too, or leave these samples out"
            )
        task = path.stem.removeprefix("samples_").removesuffix(stamp[0])
        if task not in owners[0].configs:
            raise BadInput(f"{path}: {owners[0].paths[0]} has no task {task}")
        found[owners[0].paths[0]][task] = path
    return found


def _merged(first: ModelResults, second: ModelResults) -> ModelResults:
    """Results of one model in two files, of different tasks."""
    files = f"{', '.join(map(str, first.paths))} and {second.paths[0]}"
    if (first.model, first.arguments) != (second.model, second.arguments):
        raise BadInput(
            f"two models under the name {first.name}: {files} ({first.arguments or first.model}; {second.arguments or second.model}); "
            f"give one of them another name: NAME={second.paths[0]}"
        )
    twice = sorted(set(first.tasks) & set(second.tasks))
    if twice:
        raise BadInput(
            f"{files} both have {', '.join(twice)} of {first.name}; leave one of them out, or, if they are two models, name one: "
            f"NAME={second.paths[0]}"
        )
    return replace(
        first,
        paths=(*first.paths, *second.paths),
        lm_eval=first.lm_eval if first.lm_eval == second.lm_eval else f"{first.lm_eval} and {second.lm_eval}",
        template=first.template or second.template,
        tasks={**first.tasks, **second.tasks},
        configs={**first.configs, **second.configs},
        samples={**first.samples, **second.samples},
    )
