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
from compresslab.plan.gathering import GATHER_MODULES, GatherRequest, gather_settings, gathers_of, serving_requests
from compresslab.plan.graph import Node, Plan, PlanVariant
from compresslab.plan.keys import code_version, content_key, model_identity
from compresslab.plan.model_files import format_of_source
from compresslab.plan.packages import missing_backend, missing_package
from compresslab.plan.rules import Chain, after, objections, start
from compresslab.recipe.order import ordered
from compresslab.recipe.places import Complaint, Places, refusal
from compresslab.recipe.schema import Calibration, Recipe, Training
from compresslab.recipe.source import Source, parse_hub_text, parse_source, text_identity
from compresslab.recipe.steps import BASE, Step
from compresslab.versions import version

# Modules that write a base's folder and its record.
BASE_CODE = tuple(f"compresslab.models.{name}" for name in ("load", "save", "size", "formats.gguf_origin"))
STEP_CODE = "compresslab.steps.contract"
MOVING_REVISIONS = (None, "main", "master")


def build(
    recipe: Recipe,
    machine: Machine,
    places: Places | None = None,
    found: Sequence[Complaint] = (),
) -> Plan:
    """Plan a recipe. Variants with equal first steps share the nodes of these steps.

    Args:
        machine: the machine that runs the study: its compute dtype, and the facts that decide measured times.
        places: positions of the recipe's values in its file, for the messages.
        found: complaints of the caller, which are reported with those found here.

    Raises:
        RecipeError: all complaints at once: illegal step orders and settings, and models, texts and tasks that do not exist.
    """
    resolved = _ResolvedRecipe(recipe)
    if complaints := [*found, *resolved.complaints]:
        raise refusal(complaints, places)
    return _Builder(resolved, machine).plan()


class _ResolvedRecipe:
    """A recipe with its names resolved, the dimensions of its models after each step, and all complaints about it.

    Attributes:
        tasks: the identity of each task's content, by name. texts: the identity of each text, by role.
        dimensions: dimensions of each variant after each of its own steps, and of the base, by name.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.complaints: list[Complaint] = []
        self.tasks: dict[str, str] = {}
        self.texts: dict[str, dict[str, Any]] = {}
        self.dimensions: dict[str, list[Dimensions | None]] = {}
        for number, task in enumerate(recipe.evaluate.tasks):
            with self._complaints_at("evaluate", "tasks", number):
                self.tasks[task] = identify_task(task)
        if missing := missing_backend(recipe.evaluate.backend):
            self.complaints.append(Complaint(("evaluate", "backend"), missing))
        identities: dict[str, dict[str, str]] = {}
        for role, text in recipe.text:
            with self._complaints_at("text", role, "source"):
                if text.source not in identities:  # reading packages and files takes milliseconds
                    identities[text.source] = text_identity(text.source)
                self.texts[role] = _text_key(text, identities[text.source])
        chains = {BASE: Chain(None)}
        with self._complaints_at("base", "model"):
            chains[BASE] = start(recipe.base.model)
        self.dimensions[BASE] = [chains[BASE].dimensions]
        for name in ordered(recipe):
            chains[name] = self._resolve_chain(name, chains)

    def _resolve_chain(self, name: str, chains: Mapping[str, Chain]) -> Chain:
        """The chain of a variant. It continues after a complaint, with unknown dimensions if need be."""
        variant = self.recipe.variants[name]
        chain = chains[variant.start]
        self.dimensions[name] = []
        for number, step in enumerate(variant.steps):
            found = objections(chain, step, chains)
            for field, reason in found:
                self.complaints.append(Complaint(("variants", name, "steps", number, step.kind, *([field] if field else [])), reason))
            if missing := missing_package(step):
                self.complaints.append(Complaint(("variants", name, "steps", number, step.kind, "method"), missing))
            before, chain = chain, Chain(None)
            with self._complaints_at("variants", name, "steps", number, step.kind, "model"):
                chain = after(before, step)
            self.dimensions[name].append(chain.dimensions)
        return chain

    def _complaints_at(self, *path: str | int) -> _ComplaintContext:
        return _ComplaintContext(self.complaints, path)


class _ComplaintContext:
    """A context that turns a `BadInput` raised inside into a complaint about a place of the recipe."""

    def __init__(self, complaints: list[Complaint], path: tuple[str | int, ...]) -> None:
        self.complaints, self.path = complaints, path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, BadInput):
            self.complaints.append(Complaint(self.path, str(error)))
        return isinstance(error, BadInput)


class _Builder:
    """Builds the keys of all chains, then the names of their models, then the nodes."""

    def __init__(self, resolved: _ResolvedRecipe, machine: Machine) -> None:
        self.resolved = resolved
        self.compute = machine.compute
        self.recipe = resolved.recipe
        self.machine = machine
        self.versions: dict[str, str] = {}
        self.nodes: dict[str, Node] = {}
        self.requests: dict[str, GatherRequest] = {}
        self.readers: dict[GatherRequest, dict[str, StepConfig]] = {}
        self.unpruned: dict[str, str] = {}  # model key after a prune step -> model key before the last prune step
        self.variants: dict[str, PlanVariant] = {}

    def plan(self) -> Plan:
        """The plan of a recipe without complaints."""
        self.keys: dict[str, tuple[str, ...]] = {BASE: (self._base_key(),)}
        for name in ordered(self.recipe):
            self.keys[name] = self._chain_keys(name)
        # If several variants have the same steps, the shared models bear the name of the first.
        self.names: dict[str, str] = {self.keys[BASE][0]: BASE}
        for name in self.recipe.variants:
            self.names.setdefault(self.keys[name][-1], name)
        served = serving_requests(self.requests.values())
        self.gather_nodes = {key: (served[request], self._gather_key(served[request])) for key, request in self.requests.items()}
        if "this-machine" in self.recipe.density.hardware:
            code = code_version("compresslab.evaluation.timing.machine")
            self._add(Node("machine", "", content_key("machine", machine=self.machine.facts, compute=self.compute.decides(), code=code)))
        self._add(Node("model", BASE, self.keys[BASE][0], dimensions=self.resolved.dimensions[BASE][0]))
        self._variant(BASE, "", self.keys[BASE])
        for name in ordered(self.recipe):
            self._chain(name)
        nodes, variants = _in_running_order(self.nodes), tuple(self.variants.values())
        machine = self.machine
        warnings = (*filter(None, [machine.warning]), *self._warnings())
        return Plan(
            self.recipe,
            nodes,
            variants,
            warnings,
            compute=self.compute,
            probe=machine.probe,
            machine=machine.name,
            machine_facts=machine.facts,
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
        """Add the gather request of the step `key`, if it has one."""
        gathers = gathers_of(step)
        if gathers is None:
            return
        if gathers == "logits":
            assert isinstance(step.config, Distill)
            text = {**self.resolved.texts["training"], "top_k": step.config.top_k}  # files with different numbers of logits are different
        else:
            text = self.resolved.texts["calibration"]
        model = self._other(step, before) if gathers == "logits" else before[-1]
        assert model is not None
        request = GatherRequest(model, gathers, content_key("text", **text))
        self.requests[key] = request
        self.readers.setdefault(request, {})[key] = step.config

    def _gather_key(self, request: GatherRequest) -> str:
        return content_key(
            "gather",
            **request._asdict(),
            readers=gather_settings(request.gathers, self._readers_of(request)),
            compute=self.compute.decides(),
            code=code_version(GATHER_MODULES[request.gathers]),
            libraries=self._libraries(),
        )

    def _readers_of(self, request: GatherRequest) -> list[StepConfig]:
        """The settings of the steps that read the result of `request`, in an order that does not depend on names."""
        return [config for _, config in sorted(self.readers[request].items())]

    def _step_key(self, step: Step, before: tuple[str, ...]) -> str:
        """Key of a step on the last of the models `before`."""
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
            # The other model is identified by its content, not by its name.
            config=config.model_dump(mode="json", exclude={"teacher", "until"}),
            other=self._other(step, before),
            text=self._text(config, entry.text),
            **self._computed(entry),
            code=code_version(entry.module, STEP_CODE, *([entry.format.reader] if entry.format else [])),
            libraries=self._libraries(*entry.libraries),
        )

    def _computed(self, entry: Method[Any]) -> dict[str, Any]:
        """The part of the compute settings that decides a method's result: none if the weights alone decide it."""
        if not entry.computes:
            return {}
        return {"compute": (self.compute.for_training() if entry.trains else self.compute).decides()}

    def _text(self, config: StepConfig, role: str | None) -> dict[str, Any] | None:
        """The identity of the tokens that a step reads. Tokens of the text beyond those do not count."""
        if role is None:
            return None
        known = self.resolved.texts[role]
        tokens = config.training_tokens
        return {**known, "different": min(tokens, self.recipe.text.training.tokens)} if tokens else known

    def _other(self, step: Step, before: tuple[str, ...]) -> str | None:
        """Key of the other model that a step on the last of the models `before` reads, if any."""
        if getattr(step.config, "until", None) == PARENT:
            return self.unpruned[before[-1]]
        return self.keys[step.other_variant][-1] if step.other_variant is not None else None

    def _chain(self, name: str) -> None:
        """Add the nodes and variants of a chain. A model that an earlier variant also has keeps that variant's name."""
        variant = self.recipe.variants[name]
        keys = self.keys[name]
        first = len(keys) - len(variant.steps)
        parent = variant.start
        for number, step in enumerate(variant.steps, 1):
            chain_keys = keys[: first + number]
            child = name if number == len(variant.steps) else self.names.setdefault(chain_keys[-1], f"{name}/{number}")
            if child not in self.variants:
                gather = self._gather_node(chain_keys[-1])
                other = self._other(step, chain_keys[:-1]) if gather is None or gather.gathers != "logits" else None
                own = () if isinstance(step.config, Adopt) else (chain_keys[-2],)
                needs = (*own, *((other,) if other else ()), *((gather.key,) if gather else ()))
                dimensions = self.resolved.dimensions[name][number - 1]
                gathered = gather.key if gather else None
                self._add(Node("model", child, chain_keys[-1], needs, (step.kind, step.config), other, gathered, dimensions=dimensions))
                self._variant(child, parent, chain_keys)
            parent = child

    def _gather_node(self, key: str) -> Node | None:
        """The gather node that the step `key` reads, if any. The first call adds it to the plan."""
        if key not in self.gather_nodes:
            return None
        request, own = self.gather_nodes[key]
        if own not in self.nodes:
            of = self.nodes[request.model]
            readers = tuple(self._readers_of(request))
            self._add(Node("gather", of.variant, own, (request.model,), gathers=request.gathers, readers=readers, dimensions=of.dimensions))
        return self.nodes[own]

    def _variant(self, name: str, parent: str, chain: tuple[str, ...]) -> None:
        model = chain[-1]
        evaluate, density = self.recipe.evaluate, self.recipe.density
        code = code_version("compresslab.evaluation.harness", "compresslab.evaluation.sandboxed_program")
        libraries = self._libraries("lm_eval", *(["vllm"] if evaluate.backend == "vllm" else []))
        decides = evaluate.model_dump(mode="json", include={"items", "seed", "truncate", "backend"})
        # vLLM distributes a model over all accelerators; their number changes how sums are rounded.
        devices = {"devices": self.machine.facts.get("accelerator")} if evaluate.backend == "vllm" else {}
        settings = {**decides, **devices, "compute": self.compute.decides(), "code": code, "libraries": libraries}
        tasks = {task: content_key("scores", model=model, task=identity, **settings) for task, identity in self.resolved.tasks.items()}
        dimensions = self.nodes[model].dimensions
        scores = Node("evaluate", name, content_key("evaluate", tasks=tasks), (model,), tasks=tasks, dimensions=dimensions)
        self._add(scores)
        measure = None
        if density.measure:
            above = self.variants[parent].model if parent else None
            workload = density.workload.model_dump()
            code = code_version("compresslab.evaluation.timing.measured")
            where = {"machine": self.machine.facts, "compute": self.compute.decides()}
            measure = content_key("measure", child=model, parent=above, workload=workload, code=code, **where)
            self._add(Node("measure", name, measure, (model, above) if above else (model,), dimensions=dimensions))
        named = name == BASE or name in self.recipe.variants
        self.variants[name] = PlanVariant(name, parent, named, chain, scores.key, measure)

    def _add(self, node: Node) -> None:
        self.nodes.setdefault(node.key, node)

    def _libraries(self, *extra: str) -> dict[str, str]:
        """Versions of the packages that decide a result. Each is resolved up once per plan, since a look-up takes a millisecond.

        Builds of one release for different accelerators (2.13.0+cpu, 2.13.0+cu130) count as one: keys of results that passes decide contain
        the device.
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
                    reason = "names no @<commit>; the hub may serve other text tomorrow, and what is cached stays"
                    yield f"text.{role}: {named.dataset} {reason}"
        different = self.recipe.text.training.tokens
        for name, variant in self.recipe.variants.items():
            for step in variant.steps:
                if (tokens := step.config.training_tokens) > different:
                    yield f"variants.{name}, {step.kind}: {tokens} tokens go {tokens / different:.1f} times over text.training.tokens"
        for name in self.recipe.variants:
            if (other := self.names[self.keys[name][-1]]) != name:
                yield f"variants.{name}: made exactly like '{other}', so both show the same results"


def _in_running_order(nodes: Mapping[str, Node]) -> tuple[Node, ...]:
    """Models first, since all other nodes need them; then scores; times last, when the machine does nothing else."""
    order = {"machine": 0, "gather": 1, "model": 1, "evaluate": 2, "measure": 3}
    return tuple(sorted(nodes.values(), key=lambda node: order[node.kind]))


def _text_key(text: Calibration | Training, identity: dict[str, str]) -> dict[str, Any]:
    """The identity of a text, without the number of tokens, which is a setting of the step.

    A file is identified by its content and its suffix, which decides how it is read. It can therefore be moved.
    """
    form = {"form": Path(text.source).suffix} if "sha256" in identity else {}
    return {**text.model_dump(exclude={"tokens", "source"}), **identity, **form}


def _readers(source: Source) -> tuple[str, ...]:
    """Packages besides transformers that read a model's files."""
    return ("gguf",) if source.kind in ("offline", "gguf") else ("safetensors",)


def _format_readers(source: Source) -> tuple[str, ...]:
    """Modules that may unpack an existing model: the readers of the package's own formats, and the reader of the model's known format."""
    known = format_of_source(source)
    return (*(one.reader for one in formats_of(METHODS)), *([known.reader] if known else []))
