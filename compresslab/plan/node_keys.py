"""The content key of every node of a plan: what of a recipe, of the code and of the machine decides its result."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from compresslab.catalog.graders import graders
from compresslab.catalog.olmes import is_olmes
from compresslab.catalog.stock_tasks import plain
from compresslab.machine.this_machine import Machine
from compresslab.methods.adopt import Adopt
from compresslab.methods.distill import Distill
from compresslab.methods.method import Method
from compresslab.methods.registry import known
from compresslab.methods.settings import PARENT, StepConfig
from compresslab.plan.gathering import GATHER_MODULES, GatherRequest, gather_settings, gathers_of, serving_requests
from compresslab.plan.keys import code_version, content_key, model_identity, node_code
from compresslab.plan.model_files import possible_formats
from compresslab.plan.replicates import with_replicates
from compresslab.plan.resolve import ResolvedRecipe
from compresslab.recipe.order import ordered
from compresslab.recipe.source import Source, parse_source
from compresslab.recipe.steps import BASE, Step
from compresslab.versions import package_of, version

# Modules that `runner.nodes` calls, by the node that it makes, beside those of its method or format.
BASE_CODE = tuple(
    f"compresslab.models.{name}"
    for name in (
        "computing",
        "counting.size",
        "device",
        "formats.dequantize",
        "formats.gguf_origin",
        "load",
        "save",
        "streamed.check",
        "streamed.trial",
    )
)
STEP_CODE = (
    *(f"compresslab.models.{name}" for name in ("device", "load", "streamed.check", "streamed.open")),
    "compresslab.steps.contract",
    "compresslab.steps.step_text",
)
ADOPT_CODE = (*STEP_CODE, "compresslab.models.streamed.trial", "compresslab.steps.adopt")
GATHER_CODE = tuple(f"compresslab.models.{name}" for name in ("device", "load", "streamed.open", "text", "vocabulary"))
SCORE_CODE = tuple(f"compresslab.evaluation.{name}" for name in ("backends", "harness", "scores"))
# What judges programs of a model. Scores of studies that run none do not depend on it.
SANDBOX_CODE = tuple(f"compresslab.evaluation.sandbox.{name}" for name in ("bubblewrap", "code_eval", "programs", "seccomp", "supervisor"))
FIDELITY_CODE = ("compresslab.evaluation.text_divergence",)
MEASURE_CODE = ("compresslab.evaluation.timing.measured",)
MACHINE_CODE = ("compresslab.evaluation.timing.machine",)


class NodeKeys:
    """The keys of a recipe without complaints. `trust_code` says whether programs of the model run without a sandbox.

    Attributes:
        recipe: with a variant for each further replicate. replicates: what these are, by name.
        chains: keys of the models of each variant and of the base, from the base to its own, by name.
        top_ks: the numbers of a teacher's largest logits that the steps up to a model read, by the key of the model.
        gathered: the gather request that serves a step, and the key of its node, by the key of the step. Steps without one are left out.
    """

    def __init__(self, resolved: ResolvedRecipe, machine: Machine, *, trust_code: bool = False) -> None:
        self.resolved, self.machine, self.trust_code = resolved, machine, trust_code
        self.recipe, self.replicates = with_replicates(resolved.recipe)
        self._versions: dict[str, str] = {}
        self._requests: dict[str, GatherRequest] = {}
        self._readers: dict[GatherRequest, dict[str, list[StepConfig]]] = {}
        self.top_ks: dict[str, tuple[int, ...]] = {}
        self._unpruned: dict[str, str] = {}  # model key after a prune step -> model key before the last prune step
        self.chains: dict[str, tuple[str, ...]] = {BASE: (self._base_key(),)}
        for name in ordered(self.recipe):
            self.chains[name] = self._chain_keys(name)
        served = serving_requests(self._requests.values())
        self.gathered = {key: (served[request], self._gather_key(served[request])) for key, request in self._requests.items()}

    def machine_key(self) -> str:
        """Key of this machine's measured speed."""
        return content_key("machine", machine=self.machine.facts, compute=self._compute, code=node_code(*MACHINE_CODE))

    def score_keys(self, model: str) -> dict[str, str]:
        """Keys of the scores of the model `model` (a key), by task."""
        evaluate = self.recipe.evaluate
        # vLLM distributes a model over all accelerators; their number changes how sums are rounded.
        devices = {"devices": self.machine.facts.get("accelerator")} if evaluate.backend == "vllm" else {}
        settings = {
            **evaluate.model_dump(mode="json", include={"items", "seed", "truncate", "backend"}),
            **devices,
            "compute": self._compute,
            "code": node_code(*SCORE_CODE),
            "libraries": self._libraries("lm_eval", *(["vllm"] if evaluate.backend == "vllm" else [])),
        }
        return {
            task: content_key("scores", model=model, task=identity, **settings, **self._grading(task))
            for task, identity in self.resolved.tasks.items()
        }

    def _grading(self, task: str) -> dict[str, Any]:
        """What decides the scores of lm-eval's own tasks beside the answers: packages that grade them, and what judges programs.

        Which tasks run programs is known when they are loaded. Where the recipe allows programs, any of lm-eval's tasks may run them.
        """
        if is_olmes(task):
            return {}
        grading: dict[str, Any] = {"graders": self._versions_of(map(package_of, graders(plain(task))))}
        if self.recipe.evaluate.run_code:
            grading["programs"] = {"code": code_version(*SANDBOX_CODE), "trusted": self.trust_code}
        return grading

    def measure_key(self, model: str, parent: str | None) -> str:
        """Key of the measured times of a model, and of its parent's in turn."""
        return content_key(
            "measure",
            child=model,
            parent=parent,
            workload=self.recipe.density.workload.model_dump(),
            code=node_code(*MEASURE_CODE),
            machine=self.machine.facts,
            compute=self._compute,
        )

    def fidelity_key(self, model: str, parent: str) -> str:
        """Key of how far a model is from its parent on the recipe's text."""
        return content_key(
            "fidelity",
            child=model,
            parent=parent,
            text=self.resolved.texts["fidelity"],
            **({"top_ks": self.top_ks[model]} if self.top_ks.get(model) else {}),
            compute=self._compute,
            code=node_code(*FIDELITY_CODE),
            libraries=self._libraries(),
        )

    @property
    def _compute(self) -> dict[str, str]:
        return self.machine.compute.decides()

    def _base_key(self) -> str:
        base, source = self.recipe.base, parse_source(self.recipe.base.model)
        return content_key(
            "base",
            model=model_identity(source, base.trust_remote_code),
            dtype=base.dtype,
            own_code=base.trust_remote_code,
            code=node_code(*BASE_CODE, *_format_code(source)),
            libraries=self._libraries(*_readers(source)),
        )

    def _chain_keys(self, name: str) -> tuple[str, ...]:
        variant = self.recipe.variants[name]
        keys = self.chains[variant.start]
        for index, step in enumerate(variant.steps):
            replicate = self.replicate_at(name, index)
            own = self._step_key(step, keys, replicate)
            self._request_gathering(step, keys, own, replicate)
            unpruned = keys[-1] if step.kind == "prune" else self._unpruned.get(keys[-1])
            if unpruned is not None and step.kind != "adopt":
                self._unpruned[own] = unpruned
            read = getattr(step.config, "top_k", None)
            before = () if step.kind == "adopt" else self.top_ks.get(keys[-1], ())
            self.top_ks[own] = tuple(sorted({*before, *([read] if read is not None else [])}))
            keys = (*keys, own)
        return keys

    def replicate_at(self, name: str, index: int) -> int:
        """What is added to the seed of the text that the step `index` of the variant `name` reads."""
        replicate = self.replicates.get(name)
        return replicate.number if replicate is not None and replicate.step == index else 0

    def _request_gathering(self, step: Step, before: tuple[str, ...], key: str, replicate: int) -> None:
        """Add the gather request of the step `key`, if it has one."""
        gathers = gathers_of(step)
        if gathers is None:
            return
        if gathers == "logits":
            assert isinstance(step.config, Distill)
            text = {
                **self._seeded("training", replicate),
                "top_k": step.config.top_k,
            }  # files with different numbers of logits are different
        else:
            text = self._seeded("calibration", replicate)
        model = self.other(step, before) if gathers == "logits" else before[-1]
        assert model is not None
        request = GatherRequest(model, gathers, content_key("text", **text), replicate)
        self._requests[key] = request
        # Equal steps may differ in what decides no result, such as the devices that they ask for.
        self._readers.setdefault(request, {}).setdefault(key, []).append(step.config)

    def _gather_key(self, request: GatherRequest) -> str:
        return content_key(
            "gather",
            model=request.model,
            gathers=request.gathers,
            text=request.text,
            readers=gather_settings(request.gathers, self.readers_of(request)),
            compute=self._compute,
            code=node_code(GATHER_MODULES[request.gathers], *GATHER_CODE),
            libraries=self._libraries(),
        )

    def readers_of(self, request: GatherRequest) -> list[StepConfig]:
        """The settings of the steps that read the result of `request`, in an order that does not depend on names.

        Of equal steps that ask for other numbers of devices, the one that asks for most.
        """
        equal = [configs for _, configs in sorted(self._readers[request].items())]
        return [max(configs, key=lambda config: getattr(config, "teacher_devices", 1)) for configs in equal]

    def _step_key(self, step: Step, before: tuple[str, ...], replicate: int) -> str:
        """Key of a step on the last of the models `before`. `replicate` is added to the seed of the text that it reads."""
        config = step.config
        if isinstance(config, Adopt):
            source = parse_source(config.model)
            return content_key(
                step.kind,
                model=model_identity(source),
                dtype=self.recipe.base.dtype,
                config=config.model_dump(mode="json", exclude={"train_tokens", "table", "trained"}),
                code=node_code(*ADOPT_CODE, *_format_code(source)),
                libraries=self._libraries(*_readers(source)),
            )
        entry, gathers = step.method, gathers_of(step)
        modules = (entry.module, *STEP_CODE, *(entry.format.modules if entry.format else ()))
        return content_key(
            step.kind,
            parent=before[-1],
            # The other model is identified by its content, not by its name.
            config=config.model_dump(mode="json", exclude={"teacher", "until"}),
            other=self.other(step, before),
            text=self._text(config, entry.text, replicate),
            **self._computed(entry),
            # The key of the gather node is not here: it depends on which other steps read the same data, and this result does not.
            gathered=(gathers, self._compute) if gathers else None,
            code=node_code(*modules, *((GATHER_MODULES[gathers], *GATHER_CODE) if gathers else ())),
            libraries=self._libraries(*entry.libraries, *config.libraries),
        )

    def _computed(self, entry: Method[Any]) -> dict[str, Any]:
        """The part of the compute settings that decides a method's result: none if the weights alone decide it."""
        if not entry.computes:
            return {}
        compute = self.machine.compute
        return {"compute": (compute.for_training() if entry.trains else compute).decides()}

    def _seeded(self, role: str, replicate: int) -> dict[str, Any]:
        """The identity of a text, in the order that a replicate reads it."""
        text = self.resolved.texts[role]
        return {**text, "seed": text["seed"] + replicate}

    def _text(self, config: StepConfig, role: str | None, replicate: int) -> dict[str, Any] | None:
        """The identity of the tokens that a step reads. Tokens of the text beyond those do not count."""
        if role is None:
            return None
        known = self._seeded(role, replicate)
        tokens = config.training_tokens
        return {**known, "different": min(tokens, self.recipe.text.training.tokens)} if tokens else known

    def other(self, step: Step, before: tuple[str, ...]) -> str | None:
        """Key of the other model that a step on the last of the models `before` reads, if any."""
        if getattr(step.config, "until", None) == PARENT:
            return self._unpruned[before[-1]]
        return self.chains[step.other_variant][-1] if step.other_variant is not None else None

    def _libraries(self, *extra: str) -> dict[str, str]:
        """Versions of the packages that decide a result."""
        return self._versions_of(("torch", "transformers", "tokenizers", *extra))

    def _versions_of(self, packages: Iterable[str]) -> dict[str, str]:
        """Versions of some packages. Each is looked up once per plan, since a look-up takes a millisecond.

        Builds of one release for different accelerators (2.13.0+cpu, 2.13.0+cu130) count as one: keys of results that passes decide contain
        the device.
        """
        names = list(packages)
        self._versions |= {name: version(name).partition("+")[0] for name in names if name not in self._versions}
        return {name: self._versions[name] for name in names}


def _readers(source: Source) -> tuple[str, ...]:
    """Packages besides transformers that read a model's files, and that unpack each format that it may have."""
    if source.kind in ("offline", "gguf"):
        return ("gguf",)
    possible = possible_formats(source)
    unpackers = {library for entry in known() if entry.format in possible for library in entry.libraries}
    return ("safetensors", *sorted(unpackers))


def _format_code(source: Source) -> tuple[str, ...]:
    """Modules that decide how an existing model is unpacked, counted and scored: those of each format that it may have."""
    return tuple(module for known in possible_formats(source) for module in known.modules)
