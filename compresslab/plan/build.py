"""From a recipe to a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from compresslab.machine.this_machine import Machine
from compresslab.methods.adopt import Adopt
from compresslab.plan.estimate import devices_for
from compresslab.plan.graph import Node, Plan, PlanVariant
from compresslab.plan.keys import content_key
from compresslab.plan.node_keys import NodeKeys
from compresslab.plan.packages import states_that_no_kernel_updates
from compresslab.plan.resolve import ResolvedRecipe
from compresslab.recipe.order import ordered
from compresslab.recipe.places import Complaint, Places, refusal
from compresslab.recipe.schema import Recipe
from compresslab.recipe.steps import BASE


def build(
    recipe: Recipe,
    machine: Machine,
    places: Places | None = None,
    found: Sequence[Complaint] = (),
    *,
    trust_code: bool = False,
) -> Plan:
    """Plan a recipe. Variants with equal first steps share the nodes of these steps.

    Args:
        machine: the machine that runs the study: its compute dtype, and the facts that decide measured times.
        places: positions of the recipe's values in its file, for the messages.
        found: complaints of the caller, which are reported with those found here.
        trust_code: whether programs of the model run without a sandbox.

    Raises:
        RecipeError: all complaints at once: illegal step orders and settings, and models, texts and tasks that do not exist.
    """
    resolved = ResolvedRecipe(recipe)
    if complaints := [*found, *resolved.complaints, *states_that_no_kernel_updates(recipe, machine.compute.backend)]:
        raise refusal(complaints, places)
    return _Builder(resolved, machine, trust_code).plan()


class _Builder:
    """Names the models of all chains, then adds the nodes."""

    def __init__(self, resolved: ResolvedRecipe, machine: Machine, trust_code: bool) -> None:
        self.resolved, self.recipe, self.machine, self.trust_code = resolved, resolved.recipe, machine, trust_code
        self.keys = NodeKeys(resolved, machine, trust_code=trust_code)
        self.nodes: dict[str, Node] = {}
        self.variants: dict[str, PlanVariant] = {}
        self.chains: dict[str, list[str]] = {}  # names of the variants after each step
        # If several variants have the same steps, the shared models bear the name of the first.
        self.names: dict[str, str] = {self.keys.chains[BASE][0]: BASE}
        for name in (*self.recipe.variants, *self.keys.replicates):
            self.names.setdefault(self.keys.chains[name][-1], name)

    def plan(self) -> Plan:
        """The plan of a recipe without complaints."""
        machine, base = self.machine, self.keys.chains[BASE]
        if "this-machine" in self.recipe.density.hardware:
            self._add(Node("machine", "", self.keys.machine_key()))
        self._add(Node("model", BASE, base[0], dimensions=self.resolved.dimensions[BASE][0], copied=self.recipe.base.store_copy))
        self._variant(BASE, "", base)
        # Replicates come last, since nothing is made from them.
        for name in sorted(ordered(self.keys.recipe), key=lambda name: name in self.keys.replicates):
            self._chain(name)
        self._link_replicates()
        plan = Plan(
            self.recipe,
            _in_running_order(self.nodes),
            tuple(self.variants.values()),
            (*filter(None, [machine.warning]), *self.resolved.warnings(), *self._equal_variants()),
            compute=machine.compute,
            probe=machine.probe,
            machine=machine.name,
            machine_facts=machine.facts,
            trust_code=self.trust_code,
        )
        return replace(plan, nodes=tuple(replace(node, devices=devices_for(node, plan)) for node in plan.nodes))

    def _chain(self, name: str) -> None:
        """Add the nodes and variants of a chain. A model that an earlier variant also has keeps that variant's name."""
        variant = self.keys.recipe.variants[name]
        keys = self.keys.chains[name]
        first = len(keys) - len(variant.steps)
        parent = variant.start
        replicate = self.keys.replicates.get(name)
        self.chains[name] = []
        for number, step in enumerate(variant.steps, 1):
            chain_keys = keys[: first + number]
            child = name if number == len(variant.steps) else self.names.setdefault(chain_keys[-1], f"{name}/{number}")
            if child not in self.variants:
                gather = self._gather_node(chain_keys[-1])
                other = self.keys.other(step, chain_keys[:-1]) if gather is None or gather.gathers != "logits" else None
                own = () if isinstance(step.config, Adopt) else (chain_keys[-2],)
                needs = (*own, *((other,) if other else ()), *((gather.key,) if gather else ()))
                dimensions = self.resolved.dimensions[replicate.of if replicate else name][number - 1]
                gathered = gather.key if gather else None
                settings = (step.kind, step.config)
                added = self.keys.replicate_at(name, number - 1)
                node = Node("model", child, chain_keys[-1], needs, settings, other, gathered, dimensions=dimensions, replicate=added)
                self._add(replace(node, copied=self.recipe.base.store_copy and isinstance(step.config, Adopt)))
                self._variant(child, parent, chain_keys, timed=replicate is None)
            self.chains[name].append(child)
            parent = child

    def _link_replicates(self) -> None:
        """Tell the variants from the replicated step on of their replicates, and these of what they are."""
        made = {of.of: of.step for of in self.keys.replicates.values()}
        for name, step in made.items():
            others = [other for other, of in self.keys.replicates.items() if of.of == name]
            for index in range(step, len(self.chains[name])):
                first = self.variants[self.chains[name][index]]
                names = tuple(self.chains[other][index] for other in others)
                if len(names) > len(first.replicates):
                    key = first.chain[step - index - 1]
                    self.variants[first.name] = replace(first, replicates=names, replicated=key)
                for other in names:
                    if other.partition("/")[0] in self.keys.replicates:  # others are variants of their own with equal steps
                        self.variants[other] = replace(self.variants[other], replicate_of=first.name)

    def _gather_node(self, key: str) -> Node | None:
        """The gather node that the step `key` reads, if any. The first call adds it to the plan."""
        if key not in self.keys.gathered:
            return None
        request, own = self.keys.gathered[key]
        if own not in self.nodes:
            of = self.nodes[request.model]
            readers = tuple(self.keys.readers_of(request))
            self._add(
                Node(
                    "gather",
                    of.variant,
                    own,
                    (request.model,),
                    gathers=request.gathers,
                    readers=readers,
                    dimensions=of.dimensions,
                    replicate=request.replicate,
                )
            )
        return self.nodes[own]

    def _variant(self, name: str, parent: str, chain: tuple[str, ...], *, timed: bool = True) -> None:
        model = chain[-1]
        tasks, dimensions = self.keys.score_keys(model), self.nodes[model].dimensions
        scores = Node("evaluate", name, content_key("evaluate", tasks=tasks), (model,), tasks=tasks, dimensions=dimensions)
        self._add(scores)
        measure = None
        if self.recipe.density.measure and timed:
            above = self.variants[parent].model if parent else None
            measure = self.keys.measure_key(model, above)
            self._add(Node("measure", name, measure, (model, above) if above else (model,), dimensions=dimensions))
        fidelity = None
        if parent and self.recipe.evaluate.fidelity:
            above = self.variants[parent].model
            fidelity = self.keys.fidelity_key(model, above)
            self._add(Node("fidelity", name, fidelity, (model, above), dimensions=dimensions, top_ks=self.keys.top_ks[model]))
        named = name == BASE or name in self.recipe.variants
        self.variants[name] = PlanVariant(name, parent, named, chain, scores.key, measure, fidelity)

    def _add(self, node: Node) -> None:
        self.nodes.setdefault(node.key, node)

    def _equal_variants(self) -> Iterator[str]:
        for name in self.recipe.variants:
            if (other := self.names[self.keys.chains[name][-1]]) != name:
                yield f"variants.{name}: made exactly like '{other}', so both show the same results"


def _in_running_order(nodes: Mapping[str, Node]) -> tuple[Node, ...]:
    """Models first, since all other nodes need them; then scores; times last, when the machine does nothing else."""
    order = {"machine": 0, "gather": 1, "model": 1, "evaluate": 2, "fidelity": 2, "measure": 3}
    return tuple(sorted(nodes.values(), key=lambda node: order[node.kind]))
