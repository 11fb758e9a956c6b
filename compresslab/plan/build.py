"""From a recipe to a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from compresslab.catalog.tasks import identify_task
from compresslab.errors import BadInput
from compresslab.machine.this_machine import Machine
from compresslab.methods.adopt import Adopt
from compresslab.methods.dimensions import Dimensions
from compresslab.methods.distill import Distill
from compresslab.methods.method import Method
from compresslab.methods.registry import METHODS, formats_of
from compresslab.methods.settings import PARENT, StepConfig
from compresslab.plan.facts import format_in
from compresslab.plan.gathering import CODE, GatherRequest, decided_by, gathers_of, merged
from compresslab.plan.graph import Node, Plan, PlanVariant
from compresslab.plan.keys import code_version, content_key, model_identity
from compresslab.plan.packages import missing_backend, missing_package
from compresslab.plan.rules import Chain, after, objections, start
from compresslab.recipe.order import ordered
from compresslab.recipe.places import Complaint, Places, refusal
from compresslab.recipe.schema import Calibration, Recipe, Training
from compresslab.recipe.source import Source, parse_hub_text, parse_source, text_identity
from compresslab.recipe.steps import BASE, Step
from compresslab.versions import version

# What makes a base's folder and its record.
BASE_CODE = tuple(f"compresslab.models.{name}" for name in ("load", "save", "size", "formats.gguf_origin"))
STEP_CODE = "compresslab.steps.contract"
MOVING_REVISIONS = (None, "main", "master")


def build(
    recipe: Recipe,
    machine: Machine,
    places: Places | None = None,
    found: Sequence[Complaint] = (),
) -> Plan:
    """Plan a recipe: every node once, shared prefixes shared, everything illegal refused before anything runs.

    Args:
        machine: where it is to run: what everything multiplies in there, and what decides measured times.
        places: where the recipe's values stand in its file, for the messages.
        found: what the caller found wrong already, to be told with the rest.

    Raises:
        RecipeError: all at once, illegal step orders and settings, and models, texts and tasks that do not exist.
    """
    looked = _Look(recipe)
    if complaints := [*found, *looked.complaints]:
        raise refusal(complaints, places)
    return _Builder(looked, machine).plan()


class _Look:
    """What the recipe's names stand for, what becomes of the model step by step, and everything that is wrong with it.

    Attributes:
        tasks: what decides each task's content. texts: what decides each text, by role.
        facts: dimensions of each variant after each of its own steps; of the base, of the base.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.complaints: list[Complaint] = []
        self.tasks: dict[str, str] = {}
        self.texts: dict[str, dict[str, Any]] = {}
        self.facts: dict[str, list[Dimensions | None]] = {}
        for number, task in enumerate(recipe.evaluate.tasks):
            with self._complaining("evaluate", "tasks", number):
                self.tasks[task] = identify_task(task)
        if missing := missing_backend(recipe.evaluate.backend):
            self.complaints.append(Complaint(("evaluate", "backend"), missing))
        identities: dict[str, dict[str, str]] = {}
        for role, text in recipe.text:
            with self._complaining("text", role, "source"):
                if text.source not in identities:  # a look at packages and files costs milliseconds
                    identities[text.source] = text_identity(text.source)
                self.texts[role] = _text_key(text, identities[text.source])
        chains = {BASE: Chain(None)}
        with self._complaining("base", "model"):
            chains[BASE] = start(recipe.base.model)
        self.facts[BASE] = [chains[BASE].facts]
        for name in ordered(recipe):
            chains[name] = self._follow(name, chains)

    def _follow(self, name: str, chains: Mapping[str, Chain]) -> Chain:
        """The chain of a variant; goes on after a complaint, with what is still known."""
        variant = self.recipe.variants[name]
        chain = chains[variant.start]
        self.facts[name] = []
        for number, step in enumerate(variant.steps):
            found = objections(chain, step, chains)
            for field, reason in found:
                self.complaints.append(Complaint(("variants", name, "steps", number, step.kind, *([field] if field else [])), reason))
            if missing := missing_package(step):
                self.complaints.append(Complaint(("variants", name, "steps", number, step.kind, "method"), missing))
            before, chain = chain, Chain(None)
            with self._complaining("variants", name, "steps", number, step.kind, "model"):
                chain = after(before, step)
            self.facts[name].append(chain.facts)
        return chain

    def _complaining(self, *path: str | int) -> _Complaining:
        return _Complaining(self.complaints, path)


class _Complaining:
    """Turns a `BadInput` inside into a complaint about a place of the recipe."""

    def __init__(self, complaints: list[Complaint], path: tuple[str | int, ...]) -> None:
        self.complaints, self.path = complaints, path

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, BadInput):
            self.complaints.append(Complaint(self.path, str(error)))
        return isinstance(error, BadInput)


class _Builder:
    """Keys first, for all chains; then names for what the keys stand for; then nodes."""

    def __init__(self, looked: _Look, machine: Machine) -> None:
        self.looked = looked
        self.compute = machine.compute
        self.recipe = looked.recipe
        self.machine = machine
        self.versions: dict[str, str] = {}
        self.nodes: dict[str, Node] = {}
        self.requests: dict[str, GatherRequest] = {}
        self.readers: dict[GatherRequest, dict[str, StepConfig]] = {}
        self.unpruned: dict[str, str] = {}  # of each model after a prune step, the one before it
        self.variants: dict[str, PlanVariant] = {}

    def plan(self) -> Plan:
        """The plan of a recipe without complaints."""
        self.keys: dict[str, tuple[str, ...]] = {BASE: (self._base_key(),)}
        for name in ordered(self.recipe):
            self.keys[name] = self._chain_keys(name)
        # Of several variants that are made alike, the first gives its name to what they share.
        self.names: dict[str, str] = {self.keys[BASE][0]: BASE}
        for name in self.recipe.variants:
            self.names.setdefault(self.keys[name][-1], name)
        served = merged(self.requests.values())
        self.gather_nodes = {key: (served[request], self._gather_key(served[request])) for key, request in self.requests.items()}
        if "this-machine" in self.recipe.density.hardware:
            code = code_version("compresslab.evaluation.timing.machine")
            self._add(Node("machine", "", content_key("machine", machine=self.machine.facts, compute=self.compute.decides(), code=code)))
        self._add(Node("model", BASE, self.keys[BASE][0], facts=self.looked.facts[BASE][0]))
        self._variant(BASE, "", self.keys[BASE])
        for name in ordered(self.recipe):
            self._chain(name)
        nodes, variants = _in_running_order(self.nodes), tuple(self.variants.values())
        here = self.machine
        warnings = (*filter(None, [here.warning]), *self._warnings())
        return Plan(
            self.recipe, nodes, variants, warnings, compute=self.compute, probe=here.probe, machine=here.name, machine_facts=here.facts
        )

    def _base_key(self) -> str:
        base, source = self.recipe.base, parse_source(self.recipe.base.model)
        return content_key(
            "base",
            model=model_identity(source),
            dtype=base.dtype,
            own_code=base.trust_remote_code,
            code=code_version(*BASE_CODE, *_format_readers(source)),
            libraries=self._libraries(*_readers(source)),
        )

    def _chain_keys(self, name: str) -> tuple[str, ...]:
        variant = self.recipe.variants[name]
        keys = self.keys[variant.start]
        for step in variant.steps:
            own = self._step_key(step, keys)
            self._request_gathering(step, keys, own)
            unpruned = keys[-1] if step.kind == "prune" else self.unpruned.get(keys[-1])
            if unpruned is not None and step.kind != "adopt":
                self.unpruned[own] = unpruned
            keys = (*keys, own)
        return keys

    def _request_gathering(self, step: Step, before: tuple[str, ...], key: str) -> None:
        """Note what the step `key` wants gathered, and of which model."""
        gathers = gathers_of(step)
        if gathers is None:
            return
        if gathers == "logits":
            assert isinstance(step.config, Distill)
            text = {**self.looked.texts["training"], "top_k": step.config.top_k}  # another number of logits is another file
        else:
            text = self.looked.texts["calibration"]
        model = self._other(step, before) if gathers == "logits" else before[-1]
        assert model is not None
        request = GatherRequest(model, gathers, content_key("text", **text))
        self.requests[key] = request
        self.readers.setdefault(request, {})[key] = step.config

    def _gather_key(self, request: GatherRequest) -> str:
        return content_key(
            "gather",
            **request._asdict(),
            readers=decided_by(request.gathers, self._readers_of(request)),
            compute=self.compute.decides(),
            code=code_version(CODE[request.gathers]),
            libraries=self._libraries(),
        )

    def _readers_of(self, request: GatherRequest) -> list[StepConfig]:
        """The steps that read what `request` asks for, in an order that names do not change."""
        return [config for _, config in sorted(self.readers[request].items())]

    def _step_key(self, step: Step, before: tuple[str, ...]) -> str:
        """Key of a step after the models `before`."""
        config = step.config
        if isinstance(config, Adopt):
            source = parse_source(config.model)
            return content_key(
                step.kind,
                model=model_identity(source),
                dtype=self.recipe.base.dtype,
                config=config.model_dump(mode="json", exclude={"train_tokens", "table"}),
                code=code_version("compresslab.steps.adopt", STEP_CODE, *_format_readers(source)),
                libraries=self._libraries(*_readers(source)),
            )
        entry = step.method
        return content_key(
            step.kind,
            parent=before[-1],
            # The other model counts by its content, not by its name.
            config=config.model_dump(mode="json", exclude={"teacher", "until"}),
            other=self._other(step, before),
            text=self._text(config, entry.text),
            **self._computed(entry),
            code=code_version(entry.module, STEP_CODE, *([entry.format.reader] if entry.format else [])),
            libraries=self._libraries(*entry.libraries),
        )

    def _computed(self, entry: Method[Any]) -> dict[str, Any]:
        """What of the compute decides a method's result: nothing where the weights alone do."""
        if not entry.computes:
            return {}
        return {"compute": (self.compute.for_training() if entry.trains else self.compute).decides()}

    def _text(self, config: StepConfig, role: str | None) -> dict[str, Any] | None:
        """What decides the tokens that a step reads. How much text there is beyond what it asks for does not count."""
        if role is None:
            return None
        known = self.looked.texts[role]
        wanted = config.training_tokens
        return {**known, "different": min(wanted, self.recipe.text.training.tokens)} if wanted else known

    def _other(self, step: Step, before: tuple[str, ...]) -> str | None:
        """Key of the model that a step after the models `before` looks at."""
        if getattr(step.config, "until", None) == PARENT:
            return self.unpruned[before[-1]]
        return self.keys[step.looks_at][-1] if step.looks_at is not None else None

    def _chain(self, name: str) -> None:
        """Nodes and variants of a chain. What another variant is, or has on its way, is known by that one's name."""
        variant = self.recipe.variants[name]
        keys = self.keys[name]
        first = len(keys) - len(variant.steps)
        parent = variant.start
        for number, step in enumerate(variant.steps, 1):
            here = keys[: first + number]
            child = name if number == len(variant.steps) else self.names.setdefault(here[-1], f"{name}/{number}")
            if child not in self.variants:
                gather = self._gather_node(here[-1])
                other = self._other(step, here[:-1]) if gather is None or gather.gathers != "logits" else None
                own = () if isinstance(step.config, Adopt) else (here[-2],)
                needs = (*own, *((other,) if other else ()), *((gather.key,) if gather else ()))
                facts = self.looked.facts[name][number - 1]
                made = Node("model", child, here[-1], needs, (step.kind, step.config), other, gather.key if gather else None, facts=facts)
                self._add(made)
                self._variant(child, parent, here)
            parent = child

    def _gather_node(self, key: str) -> Node | None:
        """The gather node that the step `key` reads, if it reads one; added to the plan when it is first asked for."""
        if key not in self.gather_nodes:
            return None
        request, own = self.gather_nodes[key]
        if own not in self.nodes:
            of = self.nodes[request.model]
            readers = tuple(self._readers_of(request))
            self._add(Node("gather", of.variant, own, (request.model,), gathers=request.gathers, readers=readers, facts=of.facts))
        return self.nodes[own]

    def _variant(self, name: str, parent: str, chain: tuple[str, ...]) -> None:
        model = chain[-1]
        evaluate, density = self.recipe.evaluate, self.recipe.density
        code = code_version("compresslab.evaluation.harness", "compresslab.evaluation.sandboxed_program")
        libraries = self._libraries("lm_eval", *(["vllm"] if evaluate.backend == "vllm" else []))
        decides = evaluate.model_dump(mode="json", include={"items", "seed", "truncate", "backend"})
        # vLLM spreads a model over all accelerators, and their number changes how sums are rounded.
        devices = {"devices": self.machine.facts.get("accelerator")} if evaluate.backend == "vllm" else {}
        settings = {**decides, **devices, "compute": self.compute.decides(), "code": code, "libraries": libraries}
        tasks = {task: content_key("scores", model=model, task=identity, **settings) for task, identity in self.looked.tasks.items()}
        facts = self.nodes[model].facts
        scores = Node("evaluate", name, content_key("evaluate", tasks=tasks), (model,), tasks=tasks, facts=facts)
        self._add(scores)
        measure = None
        if density.measure:
            above = self.variants[parent].model if parent else None
            workload = density.workload.model_dump()
            code = code_version("compresslab.evaluation.timing.measured")
            where = {"machine": self.machine.facts, "compute": self.compute.decides()}
            measure = content_key("measure", child=model, parent=above, workload=workload, code=code, **where)
            self._add(Node("measure", name, measure, (model, above) if above else (model,), facts=facts))
        named = name == BASE or name in self.recipe.variants
        self.variants[name] = PlanVariant(name, parent, named, chain, scores.key, measure)

    def _add(self, node: Node) -> None:
        self.nodes.setdefault(node.key, node)

    def _libraries(self, *extra: str) -> dict[str, str]:
        """Versions of the packages that decide a result. Each is looked up once a plan: a look costs a millisecond.

        Builds of one release for different accelerators (2.13.0+cpu, 2.13.0+cu130) count as one: where a device computes, it is in the key.
        """
        names = ("torch", "transformers", "tokenizers", *extra)
        self.versions |= {name: version(name).partition("+")[0] for name in names if name not in self.versions}
        return {name: self.versions[name] for name in names}

    def _steps(self) -> Iterator[Step]:
        return (step for variant in self.recipe.variants.values() for step in variant.steps)

    def _warnings(self) -> Iterator[str]:
        models = {"base.model": self.recipe.base.model}
        for name, variant in self.recipe.variants.items():
            models |= {f"variants.{name}, adopt": step.adopt.model for step in variant.steps if step.adopt is not None}
        for where, model in models.items():
            source = parse_source(model)
            if source.kind == "hub" and source.revision in MOVING_REVISIONS:
                yield f"{where}: {source.name} names no @<commit>; the hub may serve other weights tomorrow, and what is cached stays"
        read = {step.method.text for step in self._steps()}
        for role, text in self.recipe.text:
            if role in read and text.source.startswith("hub:"):
                named = parse_hub_text(text.source)
                if named.revision in MOVING_REVISIONS:
                    told = "names no @<commit>; the hub may serve other text tomorrow, and what is cached stays"
                    yield f"text.{role}: {named.dataset} {told}"
        different = self.recipe.text.training.tokens
        for name, variant in self.recipe.variants.items():
            for step in variant.steps:
                if (wanted := step.config.training_tokens) > different:
                    yield f"variants.{name}, {step.kind}: {wanted} tokens go {wanted / different:.1f} times over text.training.tokens"
        for name in self.recipe.variants:
            if (other := self.names[self.keys[name][-1]]) != name:
                yield f"variants.{name}: made exactly like '{other}', so both show the same results"


def _in_running_order(nodes: Mapping[str, Node]) -> tuple[Node, ...]:
    """Models first, since they are what everything waits for; then scores; times last, on a machine that does nothing else."""
    order = {"machine": 0, "gather": 1, "model": 1, "evaluate": 2, "measure": 3}
    return tuple(sorted(nodes.values(), key=lambda node: order[node.kind]))


def _text_key(text: Calibration | Training, identity: dict[str, str]) -> dict[str, Any]:
    """What decides the tokens that a step reads, beside how many it asks for, which its own settings say.

    A file counts by its content and by how it is read, so that it can be moved.
    """
    form = {"form": Path(text.source).suffix} if "sha256" in identity else {}
    return {**text.model_dump(exclude={"tokens", "source"}), **identity, **form}


def _readers(source: Source) -> tuple[str, ...]:
    """Packages that read a model's files, beside transformers."""
    return ("gguf",) if source.kind in ("offline", "gguf") else ("safetensors",)


def _format_readers(source: Source) -> tuple[str, ...]:
    """Modules that may unpack an existing model: those of our own formats, and that of the format that it is known to have."""
    known = format_in(source)
    return (*(one.reader for one in formats_of(METHODS)), *([known.reader] if known else []))
