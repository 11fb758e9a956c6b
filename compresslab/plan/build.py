"""From a recipe to a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from compresslab.errors import RecipeError
from compresslab.plan.facts import Facts, facts_of
from compresslab.plan.graph import Node, Plan, PlanVariant
from compresslab.plan.keys import code_version, content_key, model_identity
from compresslab.plan.rules import Chain, Link, after, problems_of
from compresslab.recipe.order import ordered
from compresslab.recipe.schema import Adopt, Distill, Recipe, Step
from compresslab.recipe.source import parse_source, text_identity, version
from compresslab.registry import method

BASE = "base"


def build(recipe: Recipe, identify_task: Callable[[str], str], machine: Mapping[str, Any]) -> Plan:
    """Plan a recipe: every node once, shared prefixes shared, everything illegal refused before anything runs.

    Args:
        identify_task: what decides the content of a task, by its name (evaluation knows).
        machine: what decides measured times: processor, threads, libraries.

    Raises:
        RecipeError: all illegal step orders and settings at once. BadInput: a model or a text that does not exist.
    """
    return _Builder(recipe, identify_task, machine).plan()


class _Builder:
    def __init__(self, recipe: Recipe, identify_task: Callable[[str], str], machine: Mapping[str, Any]) -> None:
        self.recipe = recipe
        self.identify_task = identify_task
        self.machine = machine
        self.nodes: dict[str, Node] = {}
        self.variants: dict[str, PlanVariant] = {}
        self.chains: dict[str, Chain] = {}
        self.owner: dict[str, str] = {}
        self.problems: list[str] = []

    def plan(self) -> Plan:
        source = parse_source(self.recipe.base.model)
        facts = facts_of(source)
        self._name_prefixes()
        key = content_key(
            "base",
            model=model_identity(source),
            dtype=self.recipe.base.dtype,
            code=code_version("compresslab.models.load") + code_version("compresslab.models.save"),
            **_libraries(("gguf",) if source.kind in ("offline", "gguf") else ()),
        )
        self._add(Node("model", BASE, key, facts=facts))
        self.chains[BASE] = Chain(source, (), facts)
        self._variant(BASE, "", True, (key,))
        for name in ordered(self.recipe):
            self._chain(name)
        if self.problems:
            raise RecipeError(self.problems)
        warnings = []
        if source.kind == "hub" and source.revision is None:
            warnings.append(f"base.model {source.name} has no @revision: the hub may serve other weights tomorrow under the same key")
        return Plan(self.recipe, _in_running_order(self.nodes), tuple(self.variants.values()), tuple(warnings))

    def _name_prefixes(self) -> None:
        """Remember which variants the recipe names, so that a prefix of another chain is known by that name."""
        self.prefixes = {(variant.start, *map(_step_text, variant.steps)): name for name, variant in self.recipe.variants.items()}

    def _chain(self, name: str) -> None:
        variant = self.recipe.variants[name]
        if variant.start not in self.chains:
            return  # what it starts from was refused already
        parent = variant.start
        for number, step in enumerate(variant.steps, 1):
            last = number == len(variant.steps)
            child = name if last else self.prefixes.get((variant.start, *map(_step_text, variant.steps[:number])), f"{name}/{number}")
            if child in self.variants and not last:
                parent = child
                continue
            found = problems_of(self.chains[parent], step, self.chains)
            if found:
                self.problems += [f"variants.{name}, step {number} ({step.kind}): {problem}" for problem in found]
                return
            key = self._model(child, parent, step)
            self._variant(child, parent, last or child in self.recipe.variants, (*self.variants[parent].chain, key))
            parent = child

    def _model(self, name: str, parent: str, step: Step) -> str:
        config = step.config
        chain = self.chains[parent]
        link = Link(step.kind, config)
        facts: Facts | None = after(chain, link)
        source = parse_source(config.model) if isinstance(config, Adopt) else chain.origin
        self.chains[name] = Chain(source, (*chain.links, link) if not isinstance(config, Adopt) else (link,), facts)
        entry = method(step.kind, "model" if isinstance(config, Adopt) else config.method)
        text = getattr(self.recipe.text, entry.text) if entry.text else None
        teacher = self.variants[config.teacher].model if isinstance(config, Distill) else None
        above = self.variants[parent].model
        key = content_key(
            step.kind,
            parent=above,
            # The teacher counts by its content, not by its name.
            config=config.model_dump(mode="json", exclude={"teacher"}),
            teacher=teacher,
            adopted=model_identity(source) if isinstance(config, Adopt) else None,
            text=_text_key(text, config) if text else None,
            code=code_version(entry.module) + code_version("compresslab.steps.contract"),
            **_libraries(entry.libraries),
        )
        self._add(Node("model", name, key, (above, *((teacher,) if teacher else ())), (step.kind, config), teacher, facts=facts))
        return key

    def _variant(self, name: str, parent: str, named: bool, chain: tuple[str, ...]) -> None:
        model = chain[-1]
        evaluate = self.recipe.evaluate
        tasks = {
            task: content_key(
                "scores",
                model=model,
                task=self.identify_task(task),
                items=evaluate.items,
                dtype=evaluate.dtype,
                seed=evaluate.seed,
                code=code_version("compresslab.evaluation.harness"),
                **_libraries(("lm_eval",)),
            )
            for task in evaluate.tasks
        }
        facts = self.nodes[model].facts
        scores = Node("evaluate", name, content_key("evaluate", tasks=tasks), (model,), tasks=tasks, facts=facts)
        self._add(scores)
        measure = None
        if self.recipe.density.measure:
            above = self.variants[parent].model if parent else None
            workload = self.recipe.density.workload.model_dump()
            code = code_version("compresslab.evaluation.timing")
            measure = content_key("measure", child=model, parent=above, workload=workload, machine=self.machine, code=code)
            self._add(Node("measure", name, measure, (model, above) if above else (model,), facts=facts))
        if "this-machine" in self.recipe.density.hardware:
            self._add(Node("machine", "", content_key("machine", machine=self.machine, code=code_version("compresslab.evaluation.machine"))))
        self.variants[name] = PlanVariant(name, parent, named, chain, scores.key, measure)

    def _add(self, node: Node) -> None:
        self.nodes.setdefault(node.key, node)


def _in_running_order(nodes: Mapping[str, Node]) -> tuple[Node, ...]:
    """Models first, since they are what everything waits for; then scores; times last, on a machine that does nothing else."""
    order = {"machine": 0, "model": 1, "evaluate": 2, "measure": 3}
    return tuple(sorted(nodes.values(), key=lambda node: order[node.kind]))


def _text_key(text: Any, config: Any) -> dict[str, Any]:
    # How many training tokens the recipe's text section names does not matter: the step's own budget does.
    settings = text.model_dump(exclude={"tokens"})
    return {**settings, "tokens": getattr(config, "tokens", None), "identity": text_identity(text.source)}


def _step_text(step: Step) -> str:
    return step.model_dump_json()


def _libraries(extra: tuple[str, ...]) -> dict[str, Any]:
    return {"libraries": {name: version(name) for name in ("torch", "transformers", "tokenizers", *extra)}}
