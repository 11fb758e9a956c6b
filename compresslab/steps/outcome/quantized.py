"""Whether a quantized model's files have the bits, the groups and the modules that the recipe asks for."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from compresslab.methods.format import Packing
from compresslab.methods.gptq import QuantizeGPTQ
from compresslab.models.counting.stored_model import Stored
from compresslab.models.formats.reader import quantization_of, reader_of
from compresslab.models.surgery.folding import NORMS
from compresslab.recipe.stored_weights import Location
from compresslab.steps.outcome.held import Held
from compresslab.steps.outcome.modules import Linear

# Bits of a word, by which a row of codes may be padded, and the share by which a layout may be larger than its codes.
WORD_BITS, LAYOUT = 32, 0.02
# Rows of a packed weight that are unpacked, and the share of its weights with the sign of the parent's, if there are enough of them.
# Rounding keeps signs, scales are positive, and GPTQ's corrections at 2 bits leave 0.85 of them at worst. Another matrix has half of them.
ROWS, SAME_SIGN, FEW_WEIGHTS = 64, 0.65, 1000
ZERO_MATRIX = "all its weights are zero"


class PackedLinear(NamedTuple):
    """A packed linear layer: its tensors but the bias, its codes (the largest of them), and its scales, if any are floats."""

    tensors: dict[str, Stored]
    codes: Stored
    scales: Stored | None


def packed_linear(tensors: dict[str, Stored]) -> PackedLinear | None:
    """The parts of a packed layer by their names after its own; `None` if there are none."""
    own = {name: stored for name, stored in tensors.items() if name != "bias"}
    if not own:
        return None
    codes = max(own.values(), key=lambda stored: (not stored.wide, stored.bytes))
    # A table of levels (bitsandbytes) is no scale.
    floats = [stored for name, stored in own.items() if stored.wide and stored is not codes and "quant_map" not in name]
    return PackedLinear(own, codes, max(floats, key=lambda stored: stored.elements, default=None))


def packed_linears(held: Held) -> dict[Location, PackedLinear]:
    """The packed linear layers inside the decoder layers."""
    candidates = {location: held.files.of_module(location) for location in held.modules.linears if held.plain(location) is None}
    found = {location: packed_linear(tensors) for location, tensors in candidates.items()}
    return {location: packed for location, packed in found.items() if packed is not None}


def check_packed(held: Held, packed: dict[Location, PackedLinear], packing: Packing) -> dict[Location, str]:
    """Every linear layer inside the decoder layers is packed as asked, and the output head is not.

    Returns:
        Layers whose codes or scales say nothing, since all their weights are zero, with this reason.
    """
    linears = held.modules.linears
    plain = [linears[at].name for at in linears if held.plain(at) is not None and not held.excuse(at)]
    asked = f"weights of {packing.bits} bits" + (f" in groups of {packing.group_size}" if packing.group_size else "")
    if plain:
        raise held.deviates(f"{asked} in every linear layer of the decoder layers", "plain weights", plain)
    if held.entry.ends_stay:
        _check_plain_ends(held)
    wrong: dict[str, str] = {}
    empty: dict[Location, str] = {}
    for location, found in packed.items():
        linear = linears[location]
        problem = _wrong_sizes(found, linear, packing)
        if not problem and (problem := _says_nothing(held, found)) and _zero_before(held, location):
            problem, empty[location] = "", ZERO_MATRIX
        if problem:
            wrong[linear.name] = problem
    if wrong:
        raise held.deviates(asked, next(iter(wrong.values())), list(wrong))
    return empty


def stored_bits(packed: PackedLinear, linear: Linear) -> float:
    """Stored bits of a packed weight, scales and zero points included."""
    return 8 * sum(stored.bytes for stored in packed.tensors.values()) / linear.weights


def _check_plain_ends(held: Held) -> None:
    packed = [
        name for location, name in held.modules.ends.items() if any(not stored.wide for stored in held.files.of_module(location).values())
    ]
    if packed:
        raise held.deviates("packed weights inside the decoder layers alone", "packed ones", packed)


def _wrong_sizes(found: PackedLinear, linear: Linear, packing: Packing) -> str:
    bits = 8 * found.codes.bytes / linear.weights
    if not packing.bits <= bits * (1 + LAYOUT) or not bits <= packing.bits * (1 + LAYOUT) + WORD_BITS / linear.inputs:
        return f"{bits:.3g} bits a weight"
    if packing.group_size is None:
        return ""
    groups = linear.weights / packing.group_size
    others = [stored.elements for stored in found.tensors.values() if stored is not found.codes]
    if not any(elements in (groups, 2 * groups) for elements in others):  # 2: scale and zero point in one tensor
        scales = found.scales.elements if found.scales is not None else max(others, default=0)
        return f"a scale for {linear.weights / scales:.4g} weights" if scales else "no scales"
    return ""


def _says_nothing(held: Held, found: PackedLinear) -> str:
    """Why the tensors of a layer cannot be those of its weights; empty if they can."""
    if not held.files.readable(found.codes):
        return ""
    if held.files.constant(found.codes) is not None:
        return "codes that are all the same"
    scales = found.scales
    ones = scales is not None and scales.elements > 1 and held.files.readable(scales) and held.files.constant(scales) == 1
    return "scales that are 1 everywhere" if ones else ""


def _zero_before(held: Held, location: Location) -> bool:
    weight = held.before(Location(location.layer, f"{location.name}.weight"))
    return weight is not None and held.parent is not None and held.parent.readable(weight) and held.parent.constant(weight) == 0


def check_unpacked(held: Held, folder: Path, packed: dict[Location, PackedLinear]) -> None:
    """Some rows of every packed layer are about those of the parent's layer, and GPTQ's zero points are all the same if they should be.

    Formats that are not read here by rows are left out.

    Raises:
        RunFailed: other weights are packed: those of another layer or of another model, or in another order; or zero points deviate.
    """
    quantization = quantization_of(folder)
    if quantization is None:
        return
    wrong: dict[str, str] = {}
    for location, found in packed.items():
        linear, theirs = held.linear(location), held.before(Location(location.layer, f"{location.name}.weight"))
        rows = min(ROWS, linear.outputs)
        if theirs is None or held.parent is None or theirs.shape != (linear.outputs, linear.inputs) or not held.parent.readable(theirs):
            continue
        if rows % 32 or not all(held.files.readable(stored) for stored in found.tensors.values()):
            continue
        tensors = {name: held.files.tensor(stored) for name, stored in found.tensors.items()}
        weight = reader_of(quantization).rows_of(tensors, quantization, rows)
        if weight is not None and (share := _same_signs(weight, held.parent.rows(theirs, rows))) < SAME_SIGN:
            wrong[linear.name] = f"weights of which {share:.0%} have the sign of the parent's"
    if wrong:
        raise held.deviates("the parent's weights to be rounded", next(iter(wrong.values())), list(wrong))


def _same_signs(weight: Tensor, theirs: Tensor) -> float:
    """The share of weights with the sign of the parent's, among those that are zero in neither; 1 if these are too few to say."""
    both = (weight != 0) & (theirs != 0)
    count = int(both.sum())
    return 1.0 if count < FEW_WEIGHTS else float(((weight > 0) == (theirs > 0))[both].float().mean())


def check_zero_points(held: Held, packed: dict[Location, PackedLinear], config: QuantizeGPTQ) -> None:
    """Zero points of GPTQ are all the same in a symmetric grid, and differ somewhere in an asymmetric one.

    Those of 3 bits, which begin at three places of a word, are compared three words apart.
    """
    uniform = {}
    for location, found in packed.items():
        stored = found.tensors.get("qzeros")
        if stored is not None and held.files.readable(stored):
            words = held.files.tensor(stored)
            words = words.view(len(words), -1, config.bits)
            uniform[held.linear(location).name] = bool((words == words[:1, :1]).all())
    wrong = [name for name, same in uniform.items() if not same] if config.symmetric else list(uniform)
    if wrong and (config.symmetric or all(uniform.values())):
        asked, made = ("a symmetric grid", "zero points that differ") if config.symmetric else ("zero points", "one zero point for all")
        raise held.deviates(asked, made, wrong)


def check_scaled(held: Held) -> None:
    """That AWQ has scaled what its search found. Without that, it is rounding to nearest under another name.

    A search may find that no scale has a smaller error, in every layer. An exponent of `None` is of inputs that nothing before can divide.
    Of the others, scales at norms are seen in the files; those between two packed layers are not.
    """
    chosen = [
        (Location(number, name), value) for number, layer in enumerate(held.details.get("exponents", ())) for name, value in layer.items()
    ]
    asked = "inputs to be scaled by their activations"
    if all(exponent is None for _, exponent in chosen):
        raise held.deviates(asked, "scales of 1 for all of them")
    norms = [norm for location, exponent in chosen if exponent and (norm := _norm_before(held, location)) is not None]
    if norms and all(held.same(norm) for norm in norms):
        raise held.deviates(asked, "the parent's norms, bit for bit,", [held.files.tensors[norm].name for norm in norms])


def _norm_before(held: Held, linear: Location) -> Location | None:
    """The weight of the norm that scales the input of a linear layer; `None` if another linear layer does."""
    names = (Location(linear.layer, f"{norm}.weight") for norm in NORMS.get(linear.name, ()))
    return next((name for name in names if name in held.files.tensors), None)
