"""Whether a pruned model's files have the layers, the widths or the zeros that the recipe asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from compresslab.methods.amounts import Misfit, number_to_keep, parameter_target
from compresslab.methods.depth import PruneDepth
from compresslab.methods.method import Zeros
from compresslab.methods.width import PruneWidth
from compresslab.models.anatomy import parameters_of
from compresslab.models.counting.size import saved_elements
from compresslab.models.counting.stored_model import Stored, StoredModel
from compresslab.models.surgery.width import asked_widths, cut_axes, parameter_axes, widths_of
from compresslab.plan.model_files import dimensions_of
from compresslab.recipe.source import Source
from compresslab.recipe.stored_weights import location_of
from compresslab.steps.outcome.held import Held
from compresslab.steps.outcome.matrices import BLOCK, Matrix

# A weight that a method corrects may become zero by rounding.
ROUNDED_TO_ZERO = 1e-3
# Dimensions of a plan do not know all biases and norms of an architecture.
PLANNED = 0.05


def layers_before(files: StoredModel, parent: StoredModel) -> dict[int, int]:
    """The parent's number of each decoder layer of a model that has fewer of them, in the order of both.

    It is that of the next layer with the same tensors. If there is none, it is that of the one with the most of them, and a layer that has
    none of any is left out. One matrix does not tell layers apart: some models have copies of layers that were tuned in part.
    """
    found: dict[int, int] = {}
    rest = parent.layers
    for layer in files.layers:
        tensors = files.of_layer(layer)
        place = next((place for place, number in enumerate(rest) if all(_shared(tensors, files, parent, number))), None)
        if place is None:
            shared = [sum(_shared(tensors, files, parent, number)) for number in rest]
            place = shared.index(max(shared)) if any(shared) else None
        if place is not None:
            found[layer], rest = rest[place], rest[place + 1 :]
    return found


def _shared(tensors: Mapping[str, Stored], files: StoredModel, parent: StoredModel, number: int) -> Iterator[bool]:
    """Whether a layer of the parent has each of these tensors, bit for bit; the largest first."""
    layer = parent.of_layer(number)
    for name, stored in sorted(tensors.items(), key=lambda item: -item[1].bytes):
        yield name in layer and files.equal(stored, parent, layer[name])


def check_depth(held: Held, config: PruneDepth) -> None:
    """Layers by their number, or by the parameters that they leave, each of them one of the parent's."""
    found, total = len(held.files.layers), len(held.parent.layers) if held.parent is not None else None
    if isinstance(config.keep, int) or (config.keep is not None and total is not None):
        asked = number_to_keep("keep", config.keep, total or found + 1, "layers", 1, [])
        if found != asked:
            raise held.deviates(f"{asked} layers", f"{found}")
    if held.parent is None or held.parent_skeleton is None:
        return
    if config.parameters is not None:
        target = parameter_target(config.parameters, parameters_of(held.parent_skeleton))
        parameters = held.files.elements - (saved_elements(held.skeleton) - parameters_of(held.skeleton))
        largest = max(sum(stored.elements for stored in held.parent.of_layer(layer).values()) for layer in held.parent.layers)
        if not target - largest < parameters <= target:
            raise held.deviates(f"as many layers as fit into {target:,} parameters", f"{found} layers, {parameters:,} parameters")
    changed = [
        stored.name
        for location, stored in held.files.tensors.items()
        if location.layer is not None and (location.layer not in held.layer_before or held.same(location) is False)
    ]
    if changed:
        raise held.deviates("whole layers to be dropped and the others to stay as they are", "other weights than the parent", changed)


def check_width(held: Held, config: PruneWidth) -> None:
    """The shape of every parameter that belongs to an axis."""
    if held.parent is None or held.parent_skeleton is None:
        return
    model = held.parent_skeleton
    axes_of = parameter_axes(model, cut_axes(config), try_norms=False)
    before, after = widths_of(model.config.get_text_config()), asked_widths(model, config, axes_of)
    wrong: dict[str, str] = {}
    for name, axes in axes_of.items():
        location = location_of(name, held.modules.inside)
        theirs, stored = held.parent.tensors.get(location), held.files.tensors.get(location)
        if theirs is None or stored is None:
            continue
        expected = tuple(
            size if axis is None else size * getattr(after, axis) // getattr(before, axis)
            for size, axis in zip(theirs.shape, axes, strict=True)
        )
        if stored.shape != expected:
            wrong[stored.name] = f"{' x '.join(map(str, stored.shape))} in place of {' x '.join(map(str, expected))}"
    if wrong:
        asked = ", ".join(
            f"{getattr(after, axis)} {words}"
            for axis, words in (("neurons", "neurons"), ("groups", "key/value heads"), ("hidden", "hidden channels"))
            if axis in cut_axes(config)
        )
        raise held.deviates(asked, next(iter(wrong.values())), list(wrong))


def check_planned(held: Held, parent: Path) -> None:
    """The layers, the hidden channels and about the parameters that another package's method announces to the plan."""
    before = dimensions_of(Source("folder", str(parent)))
    if before is None or held.parent is None or held.parent_skeleton is None:
        return
    try:
        expected = held.entry.leaves(held.config, before)
    except Misfit as misfit:
        raise held.deviates("what this model has", str(misfit)) from misfit
    layers, parameters = len(held.files.layers), held.files.elements
    if layers != expected.layers:
        raise held.deviates(f"{expected.layers} layers", f"{layers}")
    embedding = held.files.tensors.get(location_of(f"{_name_of_embedding(held)}.weight", held.modules.inside))
    if embedding is not None and expected.hidden not in embedding.shape:
        raise held.deviates(f"{expected.hidden} hidden channels", f"{embedding.shape[-1]}", [embedding.name])
    unchanged = parameters >= held.parent.elements and expected.parameters < before.parameters
    if unchanged or abs(parameters - expected.parameters) > PLANNED * expected.parameters:
        raise held.deviates(f"about {expected.parameters:,} parameters", f"{parameters:,}")


def _name_of_embedding(held: Held) -> str:
    embedding = held.skeleton.get_input_embeddings()
    return next(str(name) for name, module in held.skeleton.named_modules() if module is embedding)


def check_zeros(held: Held, asked: Zeros) -> None:
    """The zeros of each linear layer inside the decoder layers: the pattern, and the share within each row or matrix."""
    wrong: dict[str, str] = {}
    for location in held.modules.linears:
        if held.excuse(location):
            continue
        found = held.matrices.get(location)
        if found is not None and (problem := _wrong_zeros(found, asked)):
            wrong[held.linear(location).name] = problem
    if wrong:
        where = f"a share of {asked.share:.4g} of zeros in each {asked.within}" if asked.pattern is None else f"{_pattern(asked)} weights"
        raise held.deviates(f"{where} of the decoder layers' linear layers", next(iter(wrong.values())), list(wrong))


def _pattern(asked: Zeros) -> str:
    assert asked.pattern is not None
    return f"{asked.pattern[0]}:{asked.pattern[1]}"


def _wrong_zeros(found: Matrix, asked: Zeros) -> str:
    """What is wrong with the zeros of a matrix; empty if they are as asked.

    More zeros than asked are right where the parent had more, or if an input is always zero, for which SparseGPT drops all weights. Zeros
    of the parent count for what is asked: a method drops them first.
    """
    rows, columns = found.stored.shape
    if asked.masks and found.altered:
        return f"other values than the parent's in {found.altered:,} weights that are not zero"
    share = f"a share of {found.zeros / max(1, found.stored.elements):.4g}"
    if asked.pattern is not None:
        keep, of = asked.pattern
        if found.most.get(of, of) > keep:
            return f"up to {found.most.get(of, of)} of {of} that are not zero"
    elif asked.within == "row":
        if found.lowest < int(asked.share * columns):
            return f"{found.lowest} zeros in a row of {columns}"
    elif found.zeros < int(asked.share * found.stored.elements) - columns // BLOCK - 1:
        return share
    if found.due is None:
        return ""
    allowed = found.due + rows + (0 if asked.masks else found.idle + ROUNDED_TO_ZERO * found.stored.elements)
    return share if found.zeros > allowed else ""


def check_something_went(held: Held) -> None:
    """That a method which announces neither dimensions nor zeros has dropped or changed a weight."""
    if held.parent is None or held.files.elements != held.parent.elements:
        return
    locations = [location for location, stored in held.files.tensors.items() if location.layer is not None and len(stored.shape) > 1]
    if locations and all(held.same(location) for location in locations):
        raise held.deviates("weights to be dropped", "the parent's weights, bit for bit,", [held.files.tensors[locations[0]].name])
