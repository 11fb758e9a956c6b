"""The keys of nodes cover all code that the workers run for them."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
from plan_helpers import HEAD, FolderMaker, plan_of

import compresslab
from compresslab.methods.registry import formats
from compresslab.plan import keys, node_keys
from compresslab.plan.gathering import GATHER_MODULES
from compresslab.plan.graph import Plan
from compresslab.records.compute import Compute
from compresslab.versions import version

STUDY = """
variants:
  nf4: [{quantize: {method: bnb-nf4}}]
  depth: [{prune: {method: depth, keep: 24}}]
  ordered: [{prune: {method: depth, keep: 24, by: loss}}]
  healed: {from: depth, steps: [{distill: {tokens: 1000, top_k: 8}}]}
"""
NODES = Path(compresslab.__file__).parent / "runner" / "nodes.py"
# The code that the keys name, by the function of `runner.nodes` that makes the node or a part of it.
NAMED = {
    "_base": node_keys.BASE_CODE,
    "_step": node_keys.STEP_CODE,
    "_referred": (*node_keys.ADOPT_CODE, *node_keys.BASE_CODE),
    "_adopt": node_keys.ADOPT_CODE,
    "_start": node_keys.ADOPT_CODE,
    "gather_for_steps": (*node_keys.GATHER_CODE, *GATHER_MODULES.values()),
    "evaluate": node_keys.SCORE_CODE,
    "time_model": node_keys.MEASURE_CODE,
    "compare_with_parent": node_keys.FIDELITY_CODE,
    "time_machine": node_keys.MACHINE_CODE,
}


def models(plan: Plan) -> dict[str, str]:
    return {variant.name: variant.model for variant in plan.variants}


def scores(plan: Plan) -> dict[str, str]:
    return {variant.name: variant.evaluate for variant in plan.variants}


def differing(one: dict[str, str], other: dict[str, str]) -> set[str]:
    return {name for name in one if one[name] != other[name]}


def on(model: str) -> str:
    return HEAD.replace("offline:smollm2-135m-instruct", model)


@pytest.mark.parametrize("module", ["compresslab.methods.bitsandbytes", "compresslab.models.formats.bitsandbytes"])
def test_the_code_of_a_format_decides_the_models_and_scores_of_that_format_alone(
    module: str, folder: FolderMaker, change: Callable[[str], None]
) -> None:
    packed = folder("packed", quantization_config={"load_in_8bit": True})
    text = f"{STUDY}  taken: [{{adopt: {{model: {packed}}}}}]\n  remote: [{{adopt: {{model: o/m@01}}}}]\n"
    before, of_packed = plan_of(text), plan_of("", head=on(str(packed)))
    change(module)
    assert differing(models(before), models(plan_of(text))) == {"nf4", "taken", "remote"}
    assert differing(scores(before), scores(plan_of(text))) == {"nf4", "taken", "remote"}
    assert differing(scores(of_packed), scores(plan_of("", head=on(str(packed))))) == {"base"}


def test_the_release_of_what_unpacks_a_format_decides_the_models_of_that_format_alone(
    folder: FolderMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, plain = folder("packed", quantization_config={"load_in_8bit": True}), folder("plain")
    text = f"variants:\n  packed: [{{adopt: {{model: {packed}}}}}]\n  plain: [{{adopt: {{model: {plain}}}}}]\n"
    before, of_packed = plan_of(text), plan_of("", head=on(str(packed)))
    monkeypatch.setattr(node_keys, "version", lambda package: "another" if package == "bitsandbytes" else version(package))
    assert differing(models(before), models(plan_of(text))) == {"packed"}
    assert differing(models(of_packed), models(plan_of("", head=on(str(packed))))) == {"base"}


def test_every_format_names_the_modules_that_define_it() -> None:
    named = {known.name: set(known.modules) for known in formats()}
    assert named["bitsandbytes"] >= {"compresslab.methods.bitsandbytes", "compresslab.models.formats.bitsandbytes"}
    assert named["awq"] >= {"compresslab.methods.gptq", "compresslab.models.formats.awq"}


def test_the_key_of_a_hub_model_does_not_depend_on_what_is_in_the_cache(
    folder: FolderMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    text = "variants: {v: [{adopt: {model: owner/model@abc}}]}"
    before = plan_of(text, head=on("owner/model@abc"))
    snapshots = tmp_path / "hub" / "models--owner--model" / "snapshots"
    snapshots.mkdir(parents=True)
    folder("packed", quantization_config={"quant_method": "gptq", "bits": 4}).rename(snapshots / "abc")
    after = plan_of(text, head=on("owner/model@abc"))
    assert after.node(after.variant("base").model).dimensions is not None
    assert models(after) == models(before)


def test_what_the_workers_do_with_a_node_decides_every_key(change: Callable[[str], None]) -> None:
    before = plan_of(STUDY)
    change("compresslab.runner.nodes")
    assert {node.key for node in before.nodes}.isdisjoint(node.key for node in plan_of(STUDY).nodes)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("compresslab.steps.step_text", {"nf4", "depth", "ordered", "healed"}),
        ("compresslab.models.calibration.removals", {"depth", "ordered", "healed"}),
        ("compresslab.models.computing", {"base", "nf4", "depth", "ordered", "healed"}),
    ],
)
def test_code_decides_the_models_that_it_takes_part_in(module: str, expected: set[str], change: Callable[[str], None]) -> None:
    before = plan_of(STUDY)
    change(module)
    assert differing(models(before), models(plan_of(STUDY))) == expected


def test_a_student_of_stored_logits_depends_on_what_computed_them() -> None:
    """A step that trains computes in float32 where its teacher's logits are computed in float16."""
    student = "variants: {healed: [{distill: {cross_entropy: 0.5, tokens: 1000, top_k: 8}}]}"
    half, single = (models(plan_of(student, compute=Compute(dtype))) for dtype in ("float16", "float32"))
    assert half["base"] == single["base"]
    assert half["healed"] != single["healed"]


def closure(*modules: str) -> set[str]:
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += keys._code(name).imports
    return found


def test_the_keys_name_every_module_that_the_workers_call() -> None:
    tree = ast.parse(NODES.read_text(encoding="utf-8"))
    imported = {
        alias.name: node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("compresslab.")
        for alias in node.names
    }
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert set(NAMED) <= set(functions)
    called = set()
    for name, modules in NAMED.items():
        used = {imported[part.id] for part in ast.walk(functions[name]) if isinstance(part, ast.Name) and part.id in imported}
        called |= used
        assert {module for module in used if not keys._arranges(module)} <= closure(*modules), name
    assert {module for module in imported.values() if not keys._arranges(module)} - called <= closure(*node_keys.BASE_CODE)
