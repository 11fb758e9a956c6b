"""Whether programs of a model can be run on this machine, before anything runs."""

from __future__ import annotations

from compresslab.plan.graph import Plan
from compresslab.store.done import to_do
from compresslab.store.store import Store


def check_programs(plan: Plan, store: Store) -> None:
    """Refuse a plan that may run programs of a model where there is no sandbox for them.

    Raises:
        BadInput: saying what to install.
    """
    if plan.recipe.evaluate.run_code and any(node.kind == "evaluate" for node in to_do(plan, store)):
        from compresslab.evaluation.sandbox import programs

        programs.check(plan.trust_code)


def missing_sandbox(plan: Plan) -> str:
    """A warning if programs of the model may run in the plan and there is no sandbox for them here; empty otherwise."""
    if not plan.recipe.evaluate.run_code or plan.trust_code:
        return ""
    from compresslab.evaluation.sandbox import programs

    problem = programs.refusal()
    return f"evaluate.run_code: programs that a model wrote cannot be run here: {problem}" if problem else ""
