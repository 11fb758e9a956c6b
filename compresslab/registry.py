"""Every method of every step, with what the plan must know about it. Adding a method is one file and one line here."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["prune", "distill", "quantize", "retrain", "adopt"]


class Method(NamedTuple):
    """A method of a step.

    Attributes:
        module: where its `apply` is; imported by the worker only, so that planning needs no torch.
        text: which of the recipe's texts it reads.
        statistics: what it wants to know of the model on the calibration text: "activations" (norms of inputs, how much each layer
            changes), or "grams" (second moments of inputs, too). Gathered once for all that ask.
        trains: it updates weights by gradients, so it needs them unpacked.
        packs: its result stores the weights packed, so that no later step can change them.
        libraries: packages beyond torch and transformers whose version decides the result.
    """

    kind: Kind
    name: str
    module: str
    text: Literal["calibration", "training"] | None = None
    statistics: Literal["activations", "grams"] | None = None
    trains: bool = False
    packs: bool = False
    libraries: tuple[str, ...] = ()

    @property
    def computes(self) -> bool:
        """Whether forward or backward passes decide its result; else the weights alone do, and every machine gives the same."""
        return self.text is not None


METHODS = (
    Method("prune", "depth", "compresslab.steps.prune_depth", text="calibration", statistics="activations"),
    Method("prune", "width", "compresslab.steps.prune_width", text="calibration", statistics="activations"),
    Method("prune", "magnitude", "compresslab.steps.prune_sparse"),
    Method("prune", "wanda", "compresslab.steps.prune_sparse", text="calibration", statistics="activations"),
    Method("prune", "sparsegpt", "compresslab.steps.prune_sparse", text="calibration", statistics="grams"),
    *(
        Method("distill", name, "compresslab.steps.distill", text="training", trains=True)
        for name in ("forward-kl", "reverse-kl", "jsd", "skewed-kl")
    ),
    Method("quantize", "rtn", "compresslab.steps.quantize_rtn", packs=True, libraries=("compressed-tensors",)),
    Method("quantize", "gptq", "compresslab.steps.quantize_gptq", "calibration", "grams", packs=True, libraries=("gptqmodel", "optimum")),
    Method("quantize", "awq", "compresslab.steps.quantize_awq", "calibration", "grams", packs=True, libraries=("gptqmodel",)),
    *(
        Method("quantize", name, "compresslab.steps.quantize_bnb", packs=True, libraries=("bitsandbytes",))
        for name in ("bnb-nf4", "bnb-fp4", "bnb-int8")
    ),
    *(
        Method("quantize", name, "compresslab.steps.quantize_torchao", packs=True, libraries=("torchao",))
        for name in ("torchao-int8", "torchao-int4")
    ),
    Method("retrain", "full", "compresslab.steps.retrain", text="training", trains=True),
    Method("retrain", "lora", "compresslab.steps.retrain", text="training", trains=True, libraries=("peft",)),
    Method("retrain", "qlora", "compresslab.steps.retrain", text="training", trains=True, libraries=("peft", "bitsandbytes")),
    Method("adopt", "model", "compresslab.steps.adopt"),
)


def method(kind: str, name: str) -> Method:
    """The method `name` of `kind`. The recipe's schema lets no unknown one through."""
    return next(entry for entry in METHODS if entry.kind == kind and entry.name == name)
