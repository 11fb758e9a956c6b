"""Counts what a step wrote, and refuses a result that is not what its settings ask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedModel

from compresslab.errors import RunFailed
from compresslab.inputs import reason
from compresslab.methods.awq import QuantizeAWQ
from compresslab.methods.depth import PruneDepth
from compresslab.methods.gptq import QuantizeGPTQ
from compresslab.methods.method import Method
from compresslab.methods.settings import StepConfig
from compresslab.methods.width import PruneWidth
from compresslab.models.anatomy import parameters_of
from compresslab.models.counting.size import plain_skeleton
from compresslab.models.counting.stored_model import StoredModel
from compresslab.recipe.stored_weights import Location
from compresslab.records import Counted, LeftAlone
from compresslab.steps.outcome import pruned, quantized, trained
from compresslab.steps.outcome.held import NEIGHBOURS, Held
from compresslab.steps.outcome.modules import modules_of

# Share of zeros below which they are no pruning.
FEW_ZEROS = 1 / 8


class Said(NamedTuple):
    """What a method says of its result: tokens that it trained on, details for the record, and the modules that it leaves alone."""

    tokens_seen: int
    details: Mapping[str, Any]
    left_alone: Mapping[str, str]


def counted(entry: Method[Any], config: StepConfig, folder: Path, parent: Path | None, said: Said) -> Counted:
    """Count the files of a step and hold them against its settings.

    Args:
        parent: the folder of the model before the step. Without it, what only a comparison shows is not checked.

    Raises:
        RunFailed: the files are not what the settings ask; the message names what, and the first module.
    """
    held = _held(entry, config, folder, parent, said)
    if entry.ends_stay and held.parent is not None:
        _check_ends(held)
    if not entry.cuts and (entry.kind != "prune" or entry.zeros is not None):
        _check_parameters(held)
    if entry.linears_alone and held.parent is not None:
        _check_between(held)
    groups: dict[str, list[str]] = {}
    packed = quantized.packed_linears(held)
    if entry.packing is not None:
        for location, why in quantized.check_packed(held, packed, entry.packing(config)).items():
            groups.setdefault(why, []).append(held.linear(location).name)
        if entry.ends_stay:  # others may rotate or reorder weights
            quantized.check_unpacked(held, folder, packed)
        if isinstance(config, QuantizeGPTQ):
            quantized.check_zero_points(held, packed, config)
        if isinstance(config, QuantizeAWQ):
            quantized.check_scaled(held)
    elif entry.kind == "prune":
        _check_pruned(held, parent)
    elif entry.trains:
        for location in trained.check_trained(held):
            groups.setdefault(trained.NOT_REACHED, []).append(held.linear(location).name)
    elif entry.kind == "quantize":
        trained.check_changed(held)
    for why, names in _checked_left_alone(held).items():
        groups.setdefault(why, []).extend(names)
    return _record(held, packed, groups)


def _held(entry: Method[Any], config: StepConfig, folder: Path, parent: Path | None, said: Said) -> Held:
    skeleton = plain_skeleton(folder)
    modules = modules_of(skeleton)
    try:
        files = StoredModel(folder, modules.inside)
        before = StoredModel(parent, modules.inside) if parent is not None else None
    except (OSError, ValueError) as error:
        raise RunFailed(f"{folder}: its files cannot be counted ({reason(error)})") from error
    return Held(
        entry=entry,
        config=config,
        skeleton=skeleton,
        modules=modules,
        files=files,
        parent_skeleton=plain_skeleton(parent) if parent is not None else None,
        parent=before,
        tokens_seen=said.tokens_seen,
        details=said.details,
        left_alone=said.left_alone,
        layer_before=pruned.layers_before(files, before) if before is not None and len(files.layers) < len(before.layers) else {},
    )


def _check_pruned(held: Held, parent: Path | None) -> None:
    if isinstance(held.config, PruneDepth):
        pruned.check_depth(held, held.config)
    elif isinstance(held.config, PruneWidth):
        pruned.check_width(held, held.config)
    elif held.entry.cuts and parent is not None:
        pruned.check_planned(held, parent)
    elif held.entry.zeros is None and not held.entry.cuts:
        pruned.check_something_went(held)
    if held.entry.zeros is not None:
        pruned.check_zeros(held, held.entry.zeros(held.config))


def _check_ends(held: Held) -> None:
    """Embeddings, norms, output head and all else outside the decoder layers are the parent's.

    Linear layers there may be packed, and may have been trained by adapters.
    """
    changed = []
    for location, stored in held.files.tensors.items():
        owner = Location(None, location.name.rpartition(".")[0])
        linear = location.layer is None and owner in held.modules.outside
        if location.layer is None and not (linear and (held.entry.trains or held.plain(owner) is None)) and held.same(location) is False:
            changed.append(stored.name)
    if changed:
        raise held.deviates("embeddings and output head to stay as they are", "other values than the parent", changed)
    if not held.entry.cuts or held.parent_skeleton is None:
        return  # all parameters are counted
    before, after = (_elements_outside(model, held.modules.inside) for model in (held.parent_skeleton, held.skeleton))
    if before != after:
        raise held.deviates(f"{before:,} parameters outside the decoder layers as before", f"{after:,}")


def _elements_outside(model: PreTrainedModel, inside: str) -> int:
    """The parameters that are in no decoder layer, tied ones counted once."""
    return sum(parameter.numel() for name, parameter in model.named_parameters() if not inside or not name.startswith(inside))


def _checked_left_alone(held: Held) -> dict[str, list[str]]:
    """The modules that a step leaves alone, by reason, each of them the parent's.

    Methods of other packages may rotate what they do not pack. That is not told then.

    Raises:
        RunFailed: a module is not the parent's, and the method changes linear layers alone.
    """
    groups: dict[str, list[str]] = {}
    changed = []
    for why, left, module in _left_alone(held):
        # Its own tensors: Mamba's mixer and RWKV's attention have some beside the linear layers inside them, which change.
        own = [name for name, stored in held.files.of_module(module).items() if stored.wide and "." not in name]
        tensors = [Location(module.layer, f"{module.name}.{name}") for name in own]
        if any(held.same(tensor) is False for tensor in tensors):
            changed.append(left)
        else:
            groups.setdefault(why, []).append(left)
    if changed and held.entry.ends_stay:
        raise held.deviates("what it leaves alone to stay as it is", "other values than the parent", changed)
    return groups


def _check_parameters(held: Held) -> None:
    """A step that announces no other dimensions leaves the number of parameters, tied ones counted once."""
    if held.parent_skeleton is not None:
        before, after = parameters_of(held.parent_skeleton), parameters_of(held.skeleton)
        if before != after:
            raise held.deviates(f"a model of {before:,} parameters as before", f"{after:,}")


def _check_between(held: Held) -> None:
    """What is inside the decoder layers and is no weight of a linear layer is the parent's: norms, biases, routers.

    Adapters may also be on matrices of other modules, such as GPT-2's.
    """
    changed = []
    for location, stored in held.files.tensors.items():
        owner, _, own = location.name.rpartition(".")
        linear = Location(location.layer, owner) in held.modules.linears or Location(location.layer, owner) in held.modules.outside
        may_change = (linear and own == "weight") or (held.entry.trains and len(stored.shape) > 1)
        if location.layer is not None and not may_change and held.same(location) is False:
            changed.append(stored.name)
    if changed:
        raise held.deviates("weights of linear layers and nothing else to change", "other values", changed)


def _left_alone(held: Held) -> Iterator[tuple[str, str, Location]]:
    """Modules that a step which changes linear layers leaves alone: a reason, a name, and where they are."""
    if held.entry.packing is None and held.entry.zeros is None:
        return
    inner = {location: linear.name for location, linear in held.modules.linears.items()}
    for location, name in inner.items():
        if held.plain(location) is not None and (why := held.excuse(location)):
            yield why, name, location
        elif held.plain(location) is None and not held.files.of_module(location):
            yield "the files name it otherwise", name, location
    for location, linear in held.modules.outside.items():
        if held.plain(location) is not None:
            why = "it is outside the decoder layers" if location.layer is None else "it is no plain linear layer"
            yield why, linear.name, location
    owners = {}
    for location, stored in held.files.tensors.items():
        owner = Location(location.layer, location.name.rpartition(".")[0])
        beside = [Location(location.layer, location.name[:place]) for place, sign in enumerate(location.name) if sign == "."]
        known = any(at in held.modules.linears or at in held.modules.outside for at in beside)
        if location.layer is not None and len(stored.shape) > 1 and not known:
            owners[owner] = stored.name.rpartition(".")[0]
    for owner, name in owners.items():
        yield "it is no linear layer", name, owner
    for location, name in held.modules.ends.items():
        if held.skeleton.get_submodule(name) is held.skeleton.get_output_embeddings():
            tensors = held.files.of_module(location).values()
            if all(stored.wide for stored in tensors):
                yield "it is the output head", name, location


def _record(held: Held, packed: dict[Location, quantized.PackedLinear], groups: dict[str, list[str]]) -> Counted:
    matrices, linears = held.matrices, held.modules.linears
    weights = sum(found.stored.elements for found in matrices.values())
    zeros = sum(found.zeros for found in matrices.values())
    bits = sum(quantized.stored_bits(found, linears[at]) * linears[at].weights for at, found in packed.items())
    bits += 8 * sum(found.stored.bytes for found in matrices.values())
    total = weights + sum(linears[at].weights for at in packed)
    return Counted(
        matrices=len(linears),
        packed=len(packed),
        bits=round(bits / total, 4) if total else 0.0,
        sparsity=round(zeros / weights, 6) if weights else None,
        pattern=_pattern(held) if weights and zeros > FEW_ZEROS * weights else "",
        unchanged=sum(found.equal is True for found in matrices.values()) if held.parent is not None else None,
        left_alone=tuple(LeftAlone(reason=why, modules=len(names), first=names[0]) for why, names in sorted(groups.items())),
    )


def _pattern(held: Held) -> str:
    """The pattern that all matrices have, over as few neighbours as possible."""
    asked = held.entry.zeros(held.config).pattern if held.entry.zeros is not None else None
    for of in dict.fromkeys([*NEIGHBOURS, *([asked[1]] if asked else [])]):
        most = max(found.most.get(of, of) for found in held.matrices.values())
        if most < of:
            return f"{most}:{of}"
    return ""
