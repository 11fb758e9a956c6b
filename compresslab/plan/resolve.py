"""What a recipe's names stand for, and everything that is wrong with it that its schema does not see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from compresslab.catalog.tasks import identify_task
from compresslab.density.published_laws.collapses import collapses
from compresslab.errors import BadInput
from compresslab.methods.dimensions import Dimensions
from compresslab.plan.model_files import crosses_documents, positions_known
from compresslab.plan.packages import missing_backend, missing_package
from compresslab.plan.replicates import seeds_beyond
from compresslab.plan.rules import Chain, after, not_comparable, objections, start
from compresslab.recipe.model_folder import code_elsewhere
from compresslab.recipe.order import ordered
from compresslab.recipe.places import Complaint
from compresslab.recipe.schema import Calibration, FidelityText, Packing, Recipe, Training
from compresslab.recipe.source import for_role, parse_hub_text, parse_source, share_documents, text_identity
from compresslab.recipe.steps import BASE, Step
from compresslab.suggestions import MOST_PROBLEMS
from compresslab.text_files import check_text_file, text_amount

MOVING_REVISIONS = (None, "main", "master")


class ResolvedRecipe:
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
        self._amounts: dict[str, tuple[int, int] | None] = {}
        for number, task in enumerate(recipe.evaluate.tasks):
            with self._complaints_at("evaluate", "tasks", number):
                self.tasks[task] = identify_task(task, suggesting=len(self.complaints) < MOST_PROBLEMS)
        if missing := missing_backend(recipe.evaluate.backend):
            self.complaints.append(Complaint(("evaluate", "backend"), missing))
        elif recipe.base.trust_remote_code and recipe.evaluate.backend == "vllm":
            reason = "vLLM is not given the code that a model brings; take another backend, or leave base.trust_remote_code out"
            self.complaints.append(Complaint(("evaluate", "backend"), reason))
        identities: dict[str, dict[str, str]] = {}
        for role, text in recipe.text:
            source = for_role(text.source, role)
            with self._complaints_at("text", role, "source"):
                if source not in identities:  # reading packages and files takes milliseconds
                    identities[source] = _checked_identity(source)
                self.texts[role] = _text_key(text, identities[source])
        if (compared := recipe.evaluate.fidelity) is not None:
            with self._complaints_at("evaluate", "fidelity", "source"):
                source = for_role(compared.source, "held-out")
                identity = identities.get(source) or _checked_identity(source)
                self.texts["fidelity"] = {**_text_key(compared, identity), "tokens": compared.tokens}
        chains = {BASE: Chain(None)}
        with self._complaints_at("base", "model"):
            chains[BASE] = start(recipe.base.model, recipe.base.trust_remote_code)
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
            if step.method.text is not None:
                self._check_length(chain, ("text", step.method.text, "length"), getattr(self.recipe.text, step.method.text).length)
                self._check_documents(chain, step, ("text", step.method.text, "documents"), getattr(self.recipe.text, step.method.text))
                self._check_amount(step)
            if beyond := seeds_beyond(step, self.recipe.text):
                self.complaints.append(Complaint(("variants", name, "steps", number, "replicates"), beyond))
            if missing := missing_package(step):
                self.complaints.append(Complaint(("variants", name, "steps", number, step.kind, "method"), missing))
            before, chain = chain, Chain(None)
            with self._complaints_at("variants", name, "steps", number, step.kind, "model"):
                chain = after(before, step)
                if (compared := self.recipe.evaluate.fidelity) is not None:
                    if reason := not_comparable(chain, before):
                        raise BadInput(reason)
                    for one in (before, chain):
                        self._check_length(one, ("evaluate", "fidelity", "length"), compared.length)
                        self._check_bounded(one, ("evaluate", "fidelity", "documents"), compared)
            self.dimensions[name].append(chain.dimensions)
        return chain

    def _check_documents(self, chain: Chain, step: Step, place: tuple[str, ...], text: Calibration | Training) -> None:
        """Add a complaint if a step or its model cannot keep the documents of its text apart."""
        self._check_bounded(chain, place, text)
        if text.documents == "bounded" and getattr(step.config, "on_policy", False):
            self._add(Complaint(place, "what a student writes (on_policy) has no documents to keep apart; take packed, or drop on_policy"))

    def _check_amount(self, step: Step) -> None:
        """Add a complaint if a text file is shorter than one sequence, or is a single document of which `until` cannot hold out another."""
        role = str(step.method.text)
        text = getattr(self.recipe.text, role)
        amounts = self._amounts
        if role not in amounts:
            is_file = "sha256" in self.texts.get(role, {})
            amounts[role] = text_amount(Path(text.source).expanduser()) if is_file else None
        if (found := amounts[role]) is None:
            return
        documents, size = found
        # No tokenizer of bytes has more tokens. Each document may begin with a space and a token of its own, and ends with one.
        if size + 3 * documents < text.length:
            reason = f"{text.source} has {size:,} bytes, which are fewer tokens than one sequence of {text.length:,}"
            self._add(Complaint(("text", role, "source"), f"{reason}; give a longer text, or lower length"))
        elif documents == 1 and getattr(step.config, "until", None) is not None:
            reason = f"{text.source} is one document, and until holds out documents that are not trained on"
            self._add(Complaint(("text", role, "source"), f"{reason}; give a text of several, with two blank lines between them"))

    def _check_bounded(self, chain: Chain, place: tuple[str, ...], text: Packing) -> None:
        reason = crosses_documents(chain.origin) if chain.origin and text.documents == "bounded" else ""
        if reason:
            self._add(Complaint(place, f"{reason}; take packed"))

    def _add(self, complaint: Complaint) -> None:
        self.complaints += [complaint] if complaint not in self.complaints else []

    def _check_length(self, chain: Chain, place: tuple[str, ...], length: int) -> None:
        """Add a complaint if a model with a table of positions cannot read sequences of a length."""
        positions = positions_known(chain.origin) if chain.origin else None
        if chain.origin is None or positions is None or not positions.table or length <= positions.number:
            return
        reason = f"sequences of {length} tokens are longer than the {positions.number} positions of {chain.origin.name}"
        self._add(Complaint(place, f"{reason}; set length to {positions.number} or less"))

    def _complaints_at(self, *path: str | int) -> _ComplaintContext:
        return _ComplaintContext(self.complaints, path)

    def warnings(self) -> Iterator[str]:
        """Models and texts that may change, texts that are shorter than what a step reads, lossy settings, and steps that collapse."""
        models = {"base.model": self.recipe.base.model}
        for name, variant in self.recipe.variants.items():
            models |= {f"variants.{name}, adopt": step.adopt.model for step in variant.steps if step.adopt is not None}
        for where, model in models.items():
            source = parse_source(model)
            if source.kind == "hub" and source.revision in MOVING_REVISIONS:
                yield f"{where}: {source.name} names no @<commit>; the hub may serve other weights tomorrow, and what is cached stays"
        base = parse_source(self.recipe.base.model)
        if base.kind == "folder" and self.recipe.base.trust_remote_code:
            for repository in code_elsewhere(Path(base.name)):
                reason = "at no fixed commit; the hub may serve other code tomorrow. Copy the code into the folder"
                yield f"base.model: {base.name} runs code of {repository} on the hub, {reason}"
        read = {step.method.text for variant in self.recipe.variants.values() for step in variant.steps}
        texts = {f"text.{role}": for_role(text.source, role) for role, text in self.recipe.text if role in read}
        if (compared := self.recipe.evaluate.fidelity) is not None:
            held_out = for_role(compared.source, "held-out")
            for place in (place for place, text in texts.items() if share_documents(text, held_out)):
                yield (
                    f"evaluate.fidelity: {held_out} shares documents with {place}, so variants are compared on text that steps may have "
                    "read; another seed does not change that"
                )
            texts["evaluate.fidelity"] = held_out
        for place, text in texts.items():
            if text.startswith("hub:"):
                named = parse_hub_text(text)
                if named.revision in MOVING_REVISIONS:
                    reason = "names no @<commit>; the hub may serve other text tomorrow, and what is cached stays"
                    yield f"{place}: {named.dataset} {reason}"
        positions = positions_known(base)
        lengths = {f"text.{role}.length": text.length for role, text in self.recipe.text if role in read}
        lengths |= {"evaluate.fidelity.length": compared.length} if compared is not None else {}
        for place, length in lengths.items():
            if positions is not None and not positions.table and length > positions.number:
                reason = f"{length} tokens are more than the {positions.number} positions that {base.name} is made for"
                yield f"{place}: {reason}; it reads the later ones worse"
        available = self.recipe.text.training.tokens
        for name, variant in self.recipe.variants.items():
            for step in variant.steps:
                if (tokens := step.config.training_tokens) > available:
                    yield f"variants.{name}, {step.kind}: {tokens} tokens go {tokens / available:.1f} times over text.training.tokens"
                yield from (f"variants.{name}, {step.kind}: {warning}" for warning in step.method.warnings(step.config))
        yield from collapses(self.recipe, self.dimensions)


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


def _checked_identity(source: str) -> dict[str, str]:
    """The identity of a text source. Raises BadInput if it cannot be read as a text."""
    identity = text_identity(source)
    if "sha256" in identity:
        check_text_file(Path(source).expanduser())
    return identity


def _text_key(text: Calibration | Training | FidelityText, identity: dict[str, str]) -> dict[str, Any]:
    """The identity of a text, without the number of tokens, which is a setting of the step.

    A file is identified by its content and its suffix, which decides how it is read. It can therefore be moved.
    """
    form = {"form": Path(text.source).suffix.lower()} if "sha256" in identity else {}
    return {**text.model_dump(exclude={"tokens", "source"}), **identity, **form}
