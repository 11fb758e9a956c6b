"""The commented recipe that `compresslab init` writes, from the user's answers and the dimensions of the model."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

from compresslab.catalog.recipes import SCHEMA_LINE
from compresslab.methods.dimensions import Dimensions
from compresslab.methods.registry import method
from compresslab.plan.rules import Chain, after, objections
from compresslab.recipe.locate import resolve
from compresslab.recipe.schema import Recipe
from compresslab.recipe.steps import Step

Config = dict[str, Any]

CHOICES = {
    "depth": "drop a fifth of the layers",
    "width": "drop a quarter of the MLP neurons",
    "sparse": "set half of the weights to zero",
    "distill": "drop half of the layers, and let the rest learn from the base",
    "nf4": "4-bit weights, bitsandbytes NormalFloat",
    "int8": "8-bit weights and activations, bitsandbytes",
    "rtn": "4-bit weights, rounded to the nearest: the baseline",
    "gptq": "4-bit weights that make good for one another's rounding (needs gptqmodel)",
    "awq": "4-bit weights, scaled by their activations (needs gptqmodel)",
}
PRUNED = ("depth", "width", "sparse")
QUANTIZED: dict[str, tuple[Config, str]] = {
    "nf4": (
        {"method": "bnb-nf4"},
        "4 bits, a scale for each 64 weights; embeddings and output head stay as they are. bnb-fp4 is its sister.",
    ),
    "int8": (
        {"method": "bnb-int8"},
        "8 bits, inputs too, but for outliers above `threshold: 6.0`. torchao-int8 leaves all inputs as they are.",
    ),
    "rtn": (
        {"method": "rtn", "bits": 4, "group_size": 32},
        "Rounded to the nearest of 16 levels (`bits: 8`: of 256), which every cleverer method must beat.",
    ),
    "gptq": (
        {"method": "gptq", "bits": 4, "group_size": 32},
        "4 bits (or 2, 3, 8): what a column loses by rounding, the columns after it make good for. vLLM loads it.",
    ),
    "awq": (
        {"method": "awq", "group_size": 32},
        "4 bits; weights that meet large inputs are scaled up before they are rounded. vLLM loads it.",
    ),
}
TRAINING_TOKENS = 24_576  # a minute or two for SmolLM2-135M on two cores
DISTILL_COMMENT = (
    f"`- retrain: {{method: full, tokens: {TRAINING_TOKENS:_}}}`, or method lora, does without the teacher; reverse-kl, jsd and skewed-kl "
    "follow it in other ways. More tokens help most."
)
GROUPS = (128, 64, 32, 16)
UNITS = (128, 32, 8, 1)  # preferred divisors of the number of neurons, best first: kernels and groups need round numbers
LINE_WIDTH = 118


class Answers(NamedTuple):
    """The user's answers.

    Attributes:
        compress: names from `CHOICES`, each once.
        heal: whether pruned variants are trained afterwards.
        items: number of items of each task.
    """

    study: str
    model: str
    compress: tuple[str, ...]
    heal: bool
    items: int


class _Variant(NamedTuple):
    """A variant of the recipe: its steps after the variant `start`, and the comments above it. A repeated comment is written once."""

    name: str
    comments: list[str]
    steps: list[dict[str, Config]]
    start: str = "base"

    @property
    def checked(self) -> list[Step]:
        """The steps as validated settings."""
        return [Step.model_validate(step) for step in self.steps]


def starter(answers: Answers, base: Chain, path: str) -> str:
    """The text of a recipe, with a comment for each setting.

    Args:
        base: the chain of the model. If its dimensions are not known, amounts are shares and groups are small.
        path: path of the file, for the commands above the recipe.
    """
    variants = _variants(answers, base)
    return "\n".join(
        [
            SCHEMA_LINE,
            "# Written by `compresslab init`. Everything may be changed; docs/recipe.md has all settings.",
            "#",
            f"#   compresslab validate {path}     is the recipe sound?",
            f"#   compresslab plan     {path}     what would run, and at what cost?",
            f"#   compresslab run      {path}     run it; what is done already is taken from the store",
            "",
            "# The study's name: the folder under reports/ and the title of the page. The question stands above the results.",
            f"study: {_scalar(answers.study)}",
            f"question: {Recipe.model_fields['question'].default}",
            "",
            *_base(answers.model, base),
            *_text(variants),
            *_comment("Each variant is a chain of steps from the base, or with `from` from another variant. What chains share runs once."),
            "variants:",
            *_variant_lines(variants),
            *_comment("What the base and every variant answer."),
            "evaluate:",
            *_comment("Also arc_challenge, hellaswag, piqa, socialiqa, and any task of lm-eval by its name.", 2),
            "  tasks: [arc_easy, csqa, openbookqa]",
            *_comment("The first ones of each task; `all` takes every one. Fewer are faster and leave more verdicts inconclusive.", 2),
            f"  items: {answers.items}",
            "",
            *_comment("The ruler. Density = the size at which the reference models would do as well, divided by the model's own size."),
            "density:",
            "  reference: olmo-ladder   # `compresslab reference ls` lists the others",
            *_comment("Inference time is measured on `this-machine`; it is modelled for others, such as rtx-4090 and h100-sxm.", 2),
            "  hardware: [this-machine]",
            "  workload: {batch: 1, prompt: 512, decode: 128}   # requests at a time, tokens read, tokens written",
            "",
        ]
    )


def _base(model: str, base: Chain) -> Iterator[str]:
    yield from _comment(
        "The model that every variant starts from: offline:smollm2-135m-instruct, a Hub id with a pinned revision "
        "(owner/name@<commit>), a folder, or a .gguf file."
    )
    if (dimensions := base.dimensions) is not None:
        yield from _comment(
            f"It has {dimensions.parameters / 1e6:,.1f} M parameters: {dimensions.layers} layers, hidden size {dimensions.hidden}, "
            f"MLP width {dimensions.intermediate}, {dimensions.groups} key/value heads."
        )
    else:
        yield from _comment("Its dimensions are not known here yet, so amounts below are shares, and groups are small.")
    yield "base:"
    yield f"  model: {_scalar(model)}"
    yield "  dtype: bfloat16   # or float32, float16"
    yield ""


def _text(variants: list[_Variant]) -> Iterator[str]:
    """The lines of the texts that the steps read, if any."""
    methods = [method(kind, config["method"]) for variant in variants for step in variant.steps for kind, config in step.items()]
    roles = {entry.text for entry in methods}
    if roles == {None}:
        return
    yield from _comment(
        "Text that the steps read: `installed-docs` (the documentation that comes with Python and its packages), a .txt or .jsonl "
        "file, or hub:<dataset>."
    )
    yield "text:"
    if "calibration" in roles:
        samples, length = (128, 512) if any(entry.statistics == "grams" for entry in methods) else (32, 256)
        yield from _comment("To see which weights matter: `samples` sequences of `length` tokens.", 2)
        yield f"  calibration: {{source: installed-docs, samples: {samples}, length: {length}}}"
    if "training" in roles:
        yield from _comment("For distill and retrain; a step that asks for more tokens goes over them again.", 2)
        yield f"  training: {{source: installed-docs, tokens: {TRAINING_TOKENS:_}}}"
    yield ""


def _variants(answers: Answers, base: Chain) -> list[_Variant]:
    """One variant for each choice, one more for each healed one, and a chain of the first pruned variant and the first quantizer."""
    found: list[_Variant] = []
    smaller: list[tuple[_Variant, Chain]] = []  # the last variant of each chain that prunes, and its chain
    for choice in answers.compress:
        if choice in QUANTIZED:
            found.append(_quantized(choice, base))
            continue
        found.append(_pruned(choice, base.dimensions))
        chain = base
        for step in found[-1].checked:
            chain = after(chain, step)
        if choice != "distill" and answers.heal:
            found.append(_healed(choice))
        smaller.append((found[-1], chain))
    quantizer = next((choice for choice in answers.compress if choice in QUANTIZED), None)
    if smaller and quantizer is not None:
        pruned, chain = smaller[0]
        comment = f"And {quantizer} after that. Quantization stands last, because packed weights can be neither cut nor trained."
        found.append(_quantized(quantizer, chain)._replace(name=f"{pruned.name}-{quantizer}", comments=[comment], start=pruned.name))
    return found


def _pruned(choice: str, dimensions: Dimensions | None) -> _Variant:
    if choice == "sparse":
        return _Variant(
            choice,
            [
                "Half of the weights become zero: the smallest, counted with the inputs that they meet. sparsegpt also corrects those that "
                'stay, magnitude is the baseline; `pattern: "2:4"` in place of `sparsity` is what GPUs run faster.'
            ],
            [{"prune": {"method": "wanda", "sparsity": 0.5}}],
        )
    if choice == "width":
        keep = 0.75 if dimensions is None else _round(0.75, dimensions.intermediate)
        return _Variant(
            choice,
            [
                f"Keep {_amount(keep, dimensions and dimensions.intermediate)} neurons of every MLP: the saved matrices are really "
                "smaller. `groups` (key/value heads) and `hidden` cut the other axes; `parameters: 0.8` in place of them finds the widths "
                "for a size."
            ],
            [{"prune": {"method": "width", "keep": keep}}],
        )
    share = 0.5 if choice == "distill" else 0.8
    keep = share if dimensions is None else max(1, min(dimensions.layers - 1, round(share * dimensions.layers)))
    layers = _amount(keep, dimensions and dimensions.layers)
    steps = [{"prune": {"method": "depth", "keep": keep}}]
    if choice == "distill":
        return _Variant(
            choice,
            [f"A student: {layers} layers, taught by the base, two steps in one variant.", DISTILL_COMMENT],
            [*steps, _distill_step()],
        )
    return _Variant(
        choice,
        [
            f"Keep {layers} layers, those that change the hidden states most. `by: angular-distance` and `by: loss` (slow) choose "
            "otherwise; `parameters: 0.8` in place of `keep` says how large the model may be."
        ],
        steps,
    )


def _amount(keep: float, total: int | None) -> str:
    return f"{keep:.0%} of the" if total is None else f"{keep} of the {total}"


def _round(share: float, total: int) -> int:
    """The share of `total`, rounded down to a multiple of the largest of `UNITS` that keeps more than half of it."""
    maximum = max(1, int(share * total))
    return next(size for unit in UNITS if 2 * (size := maximum // unit * unit) > maximum)


def _healed(choice: str) -> _Variant:
    return _Variant(f"{choice}-healed", ["Then let it learn from the base again.", DISTILL_COMMENT], [_distill_step()], choice)


def _distill_step() -> dict[str, Config]:
    return {"distill": {"method": "forward-kl", "teacher": "base", "tokens": TRAINING_TOKENS}}


def _quantized(choice: str, chain: Chain) -> _Variant:
    config, comment = QUANTIZED[choice]
    if "group_size" not in config:
        return _Variant(choice, [comment], [{"quantize": config}])
    sizes = [size for size in GROUPS if not objections(chain, Step.model_validate({"quantize": {**config, "group_size": size}}), {})]
    # If no size is legal, the check of the whole recipe reports the reason.
    group = sizes[0] if sizes and chain.dimensions is not None else config["group_size"]
    why = "divides nearly every model" if chain.dimensions is None else "is the largest usual one that divides this model's dimensions"
    grouping = f"`group_size` weights share a scale: {group} {why}; smaller ones are more exact and take more room."
    return _Variant(choice, [comment, grouping], [{"quantize": {**config, "group_size": group}}])


def _variant_lines(variants: list[_Variant]) -> Iterator[str]:
    written: set[str] = set()
    for variant in variants:
        for comment in variant.comments:
            if comment not in written:
                yield from _comment(comment, 2)
        written.update(variant.comments)
        yield f"  {variant.name}:"
        if variant.start != "base":
            yield f"    from: {variant.start}"
            yield "    steps:"
        for step in variant.steps:
            for kind, config in step.items():
                settings = ", ".join(f"{key}: {_number(value)}" for key, value in config.items())
                yield f"{'    ' if variant.start == 'base' else '      '}- {kind}: {{{settings}}}"
        yield ""


def _number(value: object) -> str:
    return f"{value:_}" if isinstance(value, int) and value >= 10_000 else str(value)


def _comment(text: str, indent: int = 0) -> list[str]:
    start = f"{' ' * indent}# "
    return textwrap.wrap(text, LINE_WIDTH, initial_indent=start, subsequent_indent=start, break_long_words=False, break_on_hyphens=False)


def _scalar(text: str) -> str:
    """Text as a YAML scalar, in quotes if YAML would read it as another type."""
    plain = re.fullmatch(r"[A-Za-z./~][\w./@+-]*(:[\w./@+-]+)*", text, re.ASCII)
    return text if plain and resolve(text) == text else json.dumps(text, ensure_ascii=False)
