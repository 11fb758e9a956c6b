"""Advice for long studies: the nodes that take most of the time, and the settings that shorten them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from compresslab.methods.registry import method_of
from compresslab.plan.graph import Node, Plan

# Seconds up to which a study gets no advice.
LONG_SECONDS = 3600
NODES_NAMED = 3
# Share of the study's time from which on a part gets advice.
MIN_SHARE = 0.05


def advice(plan: Plan, seconds: Mapping[str, float | None]) -> list[str]:
    """Sentences on how to shorten a study of more than an hour; none for a shorter one.

    Args:
        seconds: estimates of the nodes that will run, by key.
    """
    known = {key: estimated for key, estimated in seconds.items() if estimated}
    total = sum(known.values())
    if total <= LONG_SECONDS:
        return []
    nodes = [node for node in plan.nodes if node.key in known]
    longest = sorted(nodes, key=lambda node: -known[node.key])[:NODES_NAMED]
    sentences = ["most of the time goes to " + ", ".join(f"{node.label} ({known[node.key] / total:.0%})" for node in longest)]
    for what, settings, members in _parts(plan, nodes):
        share = sum(known[node.key] for node in members) / total
        if share >= MIN_SHARE:
            sentences.append(f"{what} takes {share:.0%}; less with {settings}")
    named = [variant for variant in plan.variants if variant.named]
    if len(named) > 2:
        sentences.append(f"--only VARIANT runs one of the {len(named) - 1} variants and what it needs")
    return sentences


def _parts(plan: Plan, nodes: Iterable[Node]) -> list[tuple[str, str, list[Node]]]:
    """Parts of a study: the name, the settings that shorten it, and its nodes."""
    recipe = plan.recipe
    evaluate, calibration, workload = recipe.evaluate, recipe.text.calibration, recipe.density.workload
    nodes = list(nodes)
    trained = [node for node in nodes if node.step and method_of(*node.step).trains]
    stored = [node for node in nodes if node.gathers == "logits"]
    gathered = [node for node in nodes if node.gathers in ("activations", "grams")]
    ordered = [node for node in nodes if node.gathers == "removals"]
    text = f"fewer calibration tokens (text.calibration: {calibration.samples} samples of {calibration.length})"
    return [
        (
            "evaluation",
            f"fewer items (evaluate.items is {evaluate.items}; or --limit) or fewer tasks (evaluate.tasks names {len(evaluate.tasks)})",
            [node for node in nodes if node.kind == "evaluate"],
        ),
        (
            "comparing with parents",
            f"fewer tokens in evaluate.fidelity ({evaluate.fidelity.tokens if evaluate.fidelity else 0:,})",
            [node for node in nodes if node.kind == "fidelity"],
        ),
        ("training", f"fewer tokens in the steps of {_tokens(trained)}", trained),
        ("storing logits", f"fewer tokens in the distill steps, or in text.training.tokens ({recipe.text.training.tokens:,})", stored),
        ("calibration", text, gathered),
        ("ordering layers by loss", f"by: block-influence, or {text}", ordered),
        (
            "timing",
            f"density.measure: false, or a smaller density.workload ({workload.prompt} + {workload.decode} tokens, batch {workload.batch})",
            [node for node in nodes if node.kind == "measure"],
        ),
    ]


def _tokens(trained: Iterable[Node]) -> str:
    """The steps that train, each with its number of tokens."""
    return ", ".join(f"{node.variant} ({node.step[1].training_tokens:,})" for node in trained if node.step)
