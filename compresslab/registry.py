"""Every method of every step, with what the plan must know about it. Adding a method is one file and one line here."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["prune", "distill", "quantize", "retrain", "adopt"]


class Method(NamedTuple):
    """A method of a step.

    Attributes:
        module: where its `apply` is; imported by the worker only, so that planning needs no torch.
        text: which of the recipe's texts it reads.
        trains: it updates weights by gradients, so it needs them unpacked.
        packs: its result stores the weights packed, so that no later step can change them.
        libraries: packages beyond torch and transformers whose version decides the result.
    """

    kind: Kind
    name: str
    module: str
    text: Literal["calibration", "training"] | None = None
    trains: bool = False
    packs: bool = False
    libraries: tuple[str, ...] = ()


METHODS = (
    Method("prune", "depth", "compresslab.steps.prune_depth", text="calibration"),
    Method("prune", "width", "compresslab.steps.prune_width", text="calibration"),
    Method("prune", "magnitude", "compresslab.steps.prune_sparse"),
    Method("prune", "wanda", "compresslab.steps.prune_sparse", text="calibration"),
    Method("prune", "sparsegpt", "compresslab.steps.prune_sparse", text="calibration"),
    Method("distill", "forward-kl", "compresslab.steps.distill", text="training", trains=True),
    Method("quantize", "bnb-nf4", "compresslab.steps.quantize_bnb", packs=True, libraries=("bitsandbytes",)),
    Method("quantize", "bnb-int8", "compresslab.steps.quantize_bnb", packs=True, libraries=("bitsandbytes",)),
    Method("quantize", "rtn", "compresslab.steps.quantize_rtn", packs=True, libraries=("compressed-tensors",)),
    Method("retrain", "full", "compresslab.steps.retrain", text="training", trains=True),
    Method("retrain", "lora", "compresslab.steps.retrain", text="training", trains=True, libraries=("peft",)),
    Method("adopt", "model", "compresslab.steps.adopt"),
)


def method(kind: str, name: str) -> Method:
    """The method `name` of `kind`. The recipe's schema lets no unknown one through."""
    return next(entry for entry in METHODS if entry.kind == kind and entry.name == name)
