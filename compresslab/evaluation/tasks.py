"""Loads lm-eval tasks by name: OLMES requests of the data wheel, or lm-eval's own tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from datasets.exceptions import DatasetsError
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.api.task import Task
from lm_eval.config.task import TaskConfig
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Kind
from lm_eval.tasks._yaml_loader import load_yaml

from compresslab.catalog import olmes
from compresslab.catalog import stock_tasks as stock
from compresslab.errors import BadInput
from compresslab.evaluation import code_tasks, olmes_requests, scores
from compresslab.evaluation.olmes_requests import Item
from compresslab.evaluation.sandbox.code_eval import own_code_eval

UNREACHABLE = (OSError, DatasetsError, HfHubHTTPError, OfflineModeIsEnabled)


class OlmesRequests(Task):  # type: ignore[misc]
    """One OLMES task for lm-eval's evaluator, with the prompts and continuations of the file."""

    OUTPUT_TYPE = "multiple_choice"
    VERSION = 1

    def __init__(self, task: olmes.OlmesTask) -> None:
        self.olmes = task
        super().__init__()
        self._config = TaskConfig(task=task.name, output_type="multiple_choice", metadata={"version": self.VERSION, "form": task.form})

    def download(self, *_: object, **__: object) -> None:
        """Read the requests from the data wheel in the cache."""
        self.dataset = olmes_requests.load(self.olmes.name)

    def has_training_docs(self) -> bool:
        """There are none, since the few-shot examples are part of the prompts."""
        return False

    def has_validation_docs(self) -> bool:
        """There are none, since the test split is the only one."""
        return False

    def has_test_docs(self) -> bool:
        """The items of the file."""
        return True

    def test_docs(self) -> list[Item]:
        """The items of the file, in its order."""
        return self.dataset

    def fewshot_context(self, doc: Item, *_: object, **__: object) -> str:
        """The prompt of the first option. Only winogrande has different prompts for the options of an item."""
        return self.doc_to_text(doc)

    def doc_to_text(self, doc: Item) -> str:
        """The prompt of the first option."""
        return doc.requests[0][0]

    def doc_to_target(self, doc: Item) -> int:
        """Index of the right option."""
        return doc.gold

    def construct_requests(self, doc: Item, ctx: str, metadata: Any = (None, None, None), **_: object) -> list[Instance]:  # noqa: ARG002
        """One log-likelihood request per option, exactly as in the file."""
        return [Instance("loglikelihood", {"id": doc.id}, pair, i, metadata) for i, pair in enumerate(doc.requests)]

    def choice(self, doc: Item, logprobs: Sequence[float]) -> int:
        """The index of the option that the task's metric chooses."""
        lengths = [scores.characters(continuation) for _, continuation in doc.requests]
        return scores.choose(logprobs, lengths if self.olmes.metric == "acc_per_char" else None)

    def process_results(self, doc: Item, results: Iterable[tuple[float, bool]]) -> dict[str, float]:
        """Accuracy and bits-per-byte of the gold continuation of one item."""
        logprobs = [logprob for logprob, _ in results]
        bits = scores.bits_per_byte(logprobs[doc.gold], doc.requests[doc.gold][1])
        return {self.olmes.metric: float(self.choice(doc, logprobs) == doc.gold), "bits_per_byte": bits}

    def aggregation(self) -> dict[str, Callable[[list[float]], float]]:
        """Means over items."""
        return {self.olmes.metric: mean, "bits_per_byte": mean}

    def higher_is_better(self) -> dict[str, bool]:
        return {self.olmes.metric: True, "bits_per_byte": False}


def load(name: str, *, seed: int = 0, run_code: bool = False, trust_code: bool = False) -> dict[str, Task]:
    """The lm-eval tasks of a name: one, or all leaves of a group such as `mmlu`.

    `seed` changes the choice of few-shot examples of tasks that draw them; 0 is lm-eval's default. `run_code` allows tasks that run
    programs of the model in the sandbox, `trust_code` runs those, and those of tasks that run programs by their own means, without one.

    Raises:
        BadInput: there is no such task, its data cannot be read, it has no answers that can be right or wrong, or it runs
            programs where that is not allowed or there is no sandbox for them.
    """
    if olmes.is_olmes(name):
        return {name: OlmesRequests(olmes.TASKS[name])}
    try:
        with own_code_eval(trust_code, "" if run_code else code_tasks.not_allowed(name)):
            tasks = _stock(stock.plain(name))
    except SystemExit as ended:  # a task's own code, which would end the program without a message
        raise BadInput(
            f"the code of the task {name} ended the program (SystemExit: {str(ended)[:200]}); mend it, or leave the task out"
        ) from ended
    for leaf, task in tasks.items():
        if task.OUTPUT_TYPE == "loglikelihood_rolling":
            raise BadInput(f"{leaf} measures perplexity alone; name a task that has answers. {stock.offline_tasks()}")
        code_tasks.check(leaf, task, run_code=run_code, trust_code=trust_code)
        if task.config.num_fewshot is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=1234 + seed)
    return tasks


def _stock(name: str) -> dict[str, Task]:
    """lm-eval's own task or group. The index of all 14,000 task files is only read if the task's folder does not suffice."""
    manager = TaskManager(include_defaults=False, include_path=str(stock.find(name)))
    try:
        try:
            return _built(manager, name)
        except KeyError:
            entry = manager.task_index.get(name)
            if entry is not None and entry.kind in (Kind.TASK, Kind.PY_TASK):
                raise
            manager = TaskManager()  # slow; needed for groups with members in other folders
            return _built(manager, name)
    except KeyError as missing:
        raise BadInput(f"{name} needs {missing}, which its data do not have here. {stock.offline_tasks()}") from missing
    except UNREACHABLE as problem:
        reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        raise BadInput(
            f"{name} needs {_dataset(manager, name)} from the Hugging Face hub, which cannot be read here: {reason}. "
            "Fetch it where the hub can be reached, or lay a copy into a folder of that name in the working directory. "
            f"{stock.offline_tasks()}"
        ) from problem


def _built(manager: TaskManager, name: str) -> dict[str, Task]:
    """Load `name`. The data may lack a training split if the task draws no examples from it."""
    try:
        tasks: dict[str, Task] = manager.load(name)["tasks"]
    except KeyError as missing:
        entry = manager.task_index.get(name)
        config = load_yaml(entry.yaml_path, resolve_func=False) if entry is not None and entry.yaml_path else {}
        if missing.args != (config.get("training_split"),) or config.get("num_fewshot"):
            raise
        overrides = {"training_split": None, "fewshot_split": None}
        tasks = {name: manager._factory.build(entry, overrides=overrides, registry=manager.task_index)}
    return tasks


def _dataset(manager: TaskManager, name: str) -> str:
    """The hub's id of the data of a task, for a message."""
    entry = manager.task_index.get(name)
    config = load_yaml(entry.yaml_path, resolve_func=False) if entry and entry.yaml_path else {}
    path, subset = config.get("dataset_path"), config.get("dataset_name")
    if not path:
        return "data sets"
    return f"the data set {path} ({subset})" if subset else f"the data set {path}"
