"""Several devices a step: what a recipe may say, what the plan makes of it, and that it is in no key."""

from __future__ import annotations

import pytest
from plan_helpers import HEAD, MACHINE, plan_of

from compresslab.errors import RecipeError
from compresslab.plan.build import build
from compresslab.plan.estimate import USABLE, WORKER_BYTES, estimate
from compresslab.plan.graph import Node, Plan
from compresslab.recipe.load import loads_located
from compresslab.records.compute import Compute, Probe
from compresslab.versions import version

HEALED = "variants: {{healed: [{{retrain: {{method: full, tokens: 4096, {}}}}}]}}"
CUDA = Compute("bfloat16", "cuda:0", "cuda")


def healed(plan: Plan) -> Node:
    return plan.node(plan.variant("healed").model)


def planned_on(text: str, memory: float, count: int = 8) -> Plan:
    """The plan of a recipe on a machine with accelerators."""
    probe = Probe(device="cuda:0", backend="cuda", count=count, rates={"bfloat16": 1e15}, slowdown={}, bandwidth=1e12, memory=int(memory))
    recipe, places, _ = loads_located(HEAD + text, "r.yaml")
    return build(recipe, MACHINE._replace(compute=CUDA, probe=probe), places)


def test_the_number_of_devices_is_in_the_plan_and_in_no_key():
    one, four = plan_of(HEALED.format("seed: 0")), plan_of(HEALED.format("devices: 4"))
    assert [node.key for node in one.nodes] == [node.key for node in four.nodes]
    assert (healed(one).devices, healed(four).devices) == (1, 4)
    assert {node.devices for node in four.nodes if node.key != healed(four).key} == {1}
    step = healed(four).step
    assert step is not None
    assert "devices" not in step[1].model_dump()


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            "retrain: {method: qlora, tokens: 64, devices: 2}",
            "bitsandbytes packs cannot be divided among devices; take devices: 1",
        ),
        (
            "retrain: {method: lora, tokens: 64, dropout: 0.1, devices: 2}",
            "what dropout drops would depend on the number of devices",
        ),
        ("distill: {tokens: 64, on_policy: 0.5, devices: 2}", "devices: what a student writes is drawn token by token on one device"),
        *(
            (f"{step}, tokens: 64, devices: 2, optimizer: {{state_bits: 8}}}}", "blocks of 8-bit states would be others in shards")
            for step in ("distill: {method: forward-kl", "retrain: {method: full", "retrain: {method: lora")
        ),
        ("retrain: {method: full, tokens: 64, devices: 0}", "devices"),
        ("retrain: {method: full, tokens: 64, devices: many}", "devices"),
        ("prune: {method: depth, keep: 8, devices: 2}", "devices"),
    ],
)
def test_what_several_devices_cannot_do_is_refused_with_the_reason(step: str, message: str):
    with pytest.raises(RecipeError) as caught:
        plan_of(f"variants: {{healed: [{{{step}}}]}}")
    assert message in str(caught.value)
    assert str(caught.value).startswith("1 problem in the recipe:\nr.yaml:4:")


@pytest.mark.parametrize(
    "step", ["retrain: {method: lora, tokens: 64, devices: 2}", "distill: {cross_entropy: 0.5, tokens: 64, top_k: 8, devices: 2}"]
)
def test_adapters_and_stored_logits_take_several_devices(step: str):
    assert healed(plan_of(f"variants: {{healed: [{{{step}}}]}}")).devices == 2


def test_auto_takes_one_device_for_states_of_8_bits():
    assert healed(planned_on(HEALED.format("devices: auto, optimizer: {state_bits: 8}"), 1e6)).devices == 1


def test_states_of_8_bits_are_refused_where_no_kernel_updates_them():
    recipe, places, _ = loads_located(HEAD + HEALED.format("optimizer: {state_bits: 8}"), "r.yaml")
    with pytest.raises(RecipeError, match=r"r\.yaml:4:.*bitsandbytes has no 8-bit optimizer for Apple's GPU"):
        build(recipe, MACHINE._replace(compute=Compute("float32", "mps", "mps")), places)


def test_states_of_8_bits_are_in_the_key_with_the_release_of_bitsandbytes(monkeypatch: pytest.MonkeyPatch):
    texts = [HEALED.format(f"optimizer: {{state_bits: {bits}}}") for bits in (32, 8)]
    fine, coarse = (healed(plan_of(text)).key for text in texts)
    assert fine == healed(plan_of(HEALED.format("seed: 0"))).key != coarse
    monkeypatch.setattr("compresslab.plan.node_keys.version", lambda name: "9.9" if name == "bitsandbytes" else version(name))
    assert healed(plan_of(texts[0])).key == fine
    assert healed(plan_of(texts[1])).key != coarse


def test_auto_takes_as_few_devices_as_hold_the_step():
    needed = estimate(healed(planned_on(HEALED.format("seed: 0"), 80e9)), planned_on(HEALED.format("seed: 0"), 80e9)).device_memory
    assert needed is not None
    found = [healed(planned_on(HEALED.format("devices: auto"), share * needed / USABLE)).devices for share in (1.01, 0.7, 0.4, 0.001)]
    assert found == sorted(found)
    assert (found[0], found[1], found[-1]) == (1, 2, 8)
    assert healed(planned_on(HEALED.format("devices: auto"), 0)).devices == 1, "nothing is known of the memory"
    assert healed(plan_of(HEALED.format("devices: auto"))).devices == 1, "a processor is one device"


def test_a_method_that_several_devices_cannot_make_takes_one_by_auto():
    assert healed(planned_on("variants: {healed: [{retrain: {method: qlora, tokens: 64, devices: auto}}]}", 1e6)).devices == 1


def test_each_device_needs_its_part_of_the_memory_and_the_time():
    (one, four) = (planned_on(HEALED.format(f"devices: {devices}"), 80e9) for devices in (1, 4))
    whole, part = estimate(healed(one), one), estimate(healed(four), four)
    assert whole.device_memory is not None
    assert part.device_memory is not None
    assert whole.seconds is not None
    assert part.seconds is not None
    assert whole.device_memory / 4 < part.device_memory < whole.device_memory / 2
    assert part.seconds < whole.seconds
    processes = plan_of(HEALED.format("devices: 4"))
    together = estimate(healed(processes), processes).memory
    assert together is not None
    assert together > 4 * WORKER_BYTES, "processes share the memory of one machine"
