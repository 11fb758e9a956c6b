"""What several processes gather of one model: logits and orders of one process, sums that differ in rounding."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from models.tiny import THIRD_PARTY_WARNINGS, make, text
from pydantic import ValidationError
from runner.test_ranks import deaf
from safetensors.torch import load_file
from torch import Tensor, nn

from compresslab.methods.depth import PruneDepth
from compresslab.methods.distill import Distill
from compresslab.models.calibration import stored_logits
from compresslab.models.calibration.input_sums import InputSums
from compresslab.models.calibration.removals import order_removals
from compresslab.models.calibration.statistics import gather
from compresslab.models.calibration.stored_logits import store_logits
from compresslab.models.progress import silent
from compresslab.models.ranks import this_rank
from compresslab.plan.estimate import estimate
from compresslab.plan.graph import Plan
from compresslab.plan.prepare import prepare
from compresslab.recipe.schema import Calibration
from compresslab.runner.ranks.group import together
from compresslab.runner.ranks.member import Send

pytestmark = [pytest.mark.slow, *(pytest.mark.filterwarnings(warning) for warning in THIRD_PARTY_WARNINGS)]

# 71 sequences of 256 tokens: nine batches of eight, of which the last one has seven.
TEXT = text(71, 256)


def gathered(what: str, name: str, folder: Path, _: int, __: Send) -> None:
    """What each process does."""
    loaded, ranks = make(name, dtype=torch.float32), this_rank()
    if what == "logits":
        stored_logits.FILE_BYTES = 200_000  # some files
        store_logits(loaded, TEXT, 8, folder, silent, ranks)
    elif what == "removals":
        order_removals(loaded.model, TEXT, [PruneDepth(method="depth", keep=2, by="loss")], folder, silent, ranks)
    else:
        gather(loaded, TEXT, folder, grams=what == "grams", progress=silent, ranks=ranks)


def files(size: int, what: str, folder: Path, name: str = "llama") -> Path:
    """The folder that so many processes write, each of one thread."""
    folder.mkdir()
    together(size, partial(gathered, what, name, folder), deaf, device="cpu", threads=size, log=folder.parent / "log")
    return folder


@pytest.mark.parametrize("what", ["logits", "removals"])
@pytest.mark.parametrize("size", [2, 3])
def test_logits_and_orders_of_removal_are_those_of_one_process(tmp_path: Path, what: str, size: int):
    one, several = (files(number, what, tmp_path / str(number)) for number in (1, size))
    names = sorted(path.name for path in one.iterdir())
    assert sorted(path.name for path in several.iterdir()) == names
    assert len(names) > 2 or what == "removals"
    for name in names:
        assert (several / name).read_bytes() == (one / name).read_bytes()


@pytest.mark.parametrize("name", ["llama", "gemma2"])
@pytest.mark.parametrize("size", [2, 4])
def test_sums_are_those_of_one_process_but_for_rounding(tmp_path: Path, name: str, size: int):
    one, several = (files(number, "grams", tmp_path / str(number), name) for number in (1, size))
    summaries: list[dict[str, Any]] = [json.loads((folder / "statistics.json").read_text()) for folder in (one, several)]
    assert summaries[1]["block_influence"] == pytest.approx(summaries[0]["block_influence"], rel=1e-5)
    assert summaries[1] | {"block_influence": 0} == summaries[0] | {"block_influence": 0}, "last tokens and groups, too"
    layers = sorted(one.glob("*.safetensors"))
    assert sorted(path.name for path in several.iterdir()) == sorted(path.name for path in one.iterdir())
    for layer in layers:
        ours, theirs = load_file(layer), load_file(several / layer.name)
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            torch.testing.assert_close(theirs[key], value, rtol=1e-5, atol=1e-5 * float(value.abs().max()))


class Experts(nn.Module):
    """Two pairs of linear layers, each pair of one input; an input goes to one of the pairs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linears = nn.ModuleDict({name: nn.Linear(4, 4) for name in ("gate0", "up0", "gate1", "up1")})

    def forward(self, hidden: Tensor, expert: int) -> Tensor:
        return self.linears[f"gate{expert}"](hidden) * self.linears[f"up{expert}"](hidden)


def summed(parts: list[list[tuple[float, int]]], place: Path, rank: int, _: Send) -> None:
    """Each process sums over its part of the inputs."""
    layer, ranks = Experts(), this_rank()
    sums = InputSums(layer, grams=True)
    with sums:
        for value, expert in parts[rank]:
            layer(torch.full((2, 4), value), expert)
    sums.add_others(ranks)
    if rank == 0:
        torch.save((sums.tensors(6), sums.leaders, sums.sources), place)


def test_an_expert_that_one_part_of_the_text_never_asks_is_summed_over_the_others(tmp_path: Path):
    first, second = [(1.0, 0), (2.0, 0)], [(3.0, 1)]
    for name, parts in (("one", [[*first, *second]]), ("two", [first, second]), ("three", [second, [], first])):
        together(len(parts), partial(summed, parts, tmp_path / name), deaf, device="cpu", threads=len(parts), log=tmp_path / "log")
    one, *others = (torch.load(tmp_path / name) for name in ("one", "two", "three"))
    for tensors, leaders, sources in others:
        assert (leaders, sources) == one[1:]
        assert tensors.keys() == one[0].keys()
        assert all(torch.equal(tensors[name], value) for name, value in one[0].items())


def test_devices_of_the_recipe_make_gather_nodes_and_are_in_no_key(recipe: Path):
    stated = yaml.safe_load(recipe.read_text())

    def planned(devices: int) -> Plan:
        calibration = {**stated["text"]["calibration"], "samples": 16, "length": 256, "devices": devices}
        variants = {
            "shallow": [{"prune": {"keep": 2, "method": "depth", "by": "loss"}}],
            "rounded": [{"quantize": {"method": "gptq", "bits": 4, "group_size": 16}}],
            "healed": {"from": "shallow", "steps": [{"distill": {"tokens": 256, "top_k": 8, "teacher_devices": devices}}]},
        }
        told = {**stated, "text": {**stated["text"], "calibration": calibration}, "variants": variants}
        recipe.write_text(
            yaml.safe_dump({key: value for key, value in told.items() if key in ("study", "base", "text", "variants", "evaluate")})
        )
        return prepare(recipe)

    one, two = planned(1), planned(2)
    assert [node.key for node in one.nodes] == [node.key for node in two.nodes]
    gathering = [node for node in two.nodes if node.kind == "gather"]
    assert {node.gathers for node in gathering} == {"grams", "logits", "removals"}
    assert {node.devices for node in gathering} == {2}
    memory = [[estimate(node, plan).memory for node in plan.nodes if node.kind == "gather"] for plan in (one, two)]
    assert memory[1] == [2 * (value or 0.0) for value in memory[0]]


@pytest.mark.parametrize("order", [(8, 1), (1, 8)])
def test_of_equal_steps_the_one_that_asks_for_most_devices_counts(recipe: Path, order: tuple[int, int]):
    stated = yaml.safe_load(recipe.read_text())
    step = {"tokens": 256, "cross_entropy": 0.5, "top_k": 8}
    healed = [[{"distill": {**step, "teacher_devices": devices}}] for devices in order]
    recipe.write_text(yaml.safe_dump({**stated, "variants": {"one": healed[0], "two": healed[1]}, "density": {"measure": False}}))
    assert [node.devices for node in prepare(recipe).nodes if node.kind == "gather"] == [8]


def test_devices_that_would_read_nothing_are_refused():
    with pytest.raises(ValidationError, match="devices: the text has 2 batches of 2048 tokens, so 2 devices at most"):
        Calibration(samples=16, length=256, devices=3)
    with pytest.raises(ValidationError, match="teacher_devices: without top_k"):
        Distill(tokens=1000, teacher_devices=2)
