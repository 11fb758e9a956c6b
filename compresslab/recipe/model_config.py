"""A model's `config.json`: read within its limits, and refused if it states a dimension that no model has, or code that cannot be run."""

from __future__ import annotations

import ast
import codecs
import functools
from collections.abc import Callable, Mapping
from importlib import util
from pathlib import Path
from typing import Any, NamedTuple

from compresslab.errors import BadInput
from compresslab.inputs import LARGEST_CONFIG, parse_json, read_regular, reason
from compresslab.versions import version

# The fields of dimensions that are read here, each with its smallest and its largest value. Larger ones are a mistake, and planning would
# count up to them; the largest published models have about a tenth. A size of 0 means that a model has no such part.
DIMENSIONS = {
    "hidden_size": (1, 2**18),
    "num_hidden_layers": (1, 2**11),
    "vocab_size": (1, 2**24),
    "num_attention_heads": (1, 2**12),
    "num_key_value_heads": (1, 2**12),
    "head_dim": (0, 2**14),
    "intermediate_size": (0, 2**20),
    "moe_intermediate_size": (0, 2**20),
    "num_local_experts": (0, 2**12),
    "num_experts": (0, 2**12),
    "n_routed_experts": (0, 2**12),
}
# What other architectures call these fields: GPT-2, GPT-J and CodeGen n_*, MPT and DBRX n_*s, OPT and XGLM ffn_dim, Falcon num_kv_heads.
ALIASES = {
    "hidden_size": ("n_embd", "n_embed", "d_model"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads", "attention_heads"),
    "num_key_value_heads": ("num_kv_heads",),
    "head_dim": ("kv_channels",),
    "max_position_embeddings": ("n_positions", "max_seq_len", "n_ctx", "context_length"),
    "intermediate_size": ("ffn_dim", "n_inner", "ffn_hidden_size", "dff"),
}
# Each name of a dimension with the field that it stands for.
_NAMES = {name: field for field in DIMENSIONS for name in (*ALIASES.get(field, ()), field)}
# Where BLOOM, GPT-2, GPT-J, GPT-Neo, MPT and their kind state no width of the MLP, it is this many times the hidden size.
MLP_EXPANSION = 4
# Fields that `null` does not leave to the architecture.
STATED = ("hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads")
# Fields that some architectures state for each layer (Gemma 3n) or each kind of expert (ERNIE 4.5).
LISTED = ("intermediate_size", "moe_intermediate_size")
# More parameters than any format stores in a byte: those of one bit are 8. A factor of 8 is left for what architectures do differently.
PARAMETERS_A_BYTE = 64
# How torch's names of floating-point dtypes begin.
DTYPES = ("float", "bfloat16", "half", "double")
_AGAIN = "download or save the model again"
# Where transformers lists the `model_type`s of its configurations, in its package.
NATIVE_LIST = ("models", "auto", "auto_mappings.py")
NATIVE_NAME = "CONFIG_MAPPING_NAMES"
# Where it names its causal language models, by `model_type`.
CAUSAL_LIST, CAUSAL_NAME = ("models", "auto", "modeling_auto.py"), "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"
# Where it names its tokenizers.
NATIVE_TOKENIZERS = ("models", "auto", "tokenization_auto.py")
GENERAL_TOKENIZERS = frozenset(
    {"PreTrainedTokenizer", "TokenizersBackend", "PythonBackend", "SentencePieceBackend", "MistralCommonBackend"}
)
# The classes without which code makes no causal language model.
NEEDED = ("AutoConfig", "AutoModelForCausalLM")


def read_config(path: Path) -> dict[str, Any]:
    """The content of a `config.json`.

    Raises:
        BadInput: it cannot be read, is no JSON object, or states a dimension that is no whole number or outside of its limits.
    """
    try:
        content = read_regular(path, LARGEST_CONFIG)
        config = parse_json(content)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({reason(error)}); {_AGAIN}") from error
    # Python also reads UTF-16 and UTF-32, every one of which has a null byte in its first character.
    if content.startswith(codecs.BOM_UTF8) or b"\0" in content[:4]:
        raise BadInput(f"{path} is UTF-16 or begins with a byte order mark, and transformers reads neither; save it as plain UTF-8")
    if not isinstance(config, dict):
        raise BadInput(f"{path} is no JSON object; {_AGAIN}")
    if problem := dimension_problem(config) or _dtype_problem(config):
        raise BadInput(f"{path}: {problem}; {_AGAIN}")
    return config


def _dtype_problem(config: Mapping[str, Any]) -> str:
    """What is wrong with the dtype that a configuration states, without the end of the sentence; empty if nothing is."""
    name = "dtype" if "dtype" in config else "torch_dtype"
    stated = config.get(name)
    if stated is None or isinstance(stated, dict) or (isinstance(stated, str) and stated.startswith(DTYPES)):
        return ""
    return f"{name} is {_shown(stated)}, which torch does not have; it is float32, float16 or bfloat16"


def text_part(config: Mapping[str, Any]) -> Any:
    """The part of a configuration that describes the text model: the `text_config` of a larger model, else all of it."""
    nested = config.get("text_config")
    return config if nested is None else nested


class TextSizes(NamedTuple):
    """Dimensions that a configuration states of its text model, by whatever names.

    Attributes:
        heads, key_value_heads, head_dim: 0 for a model without attention.
        intermediate: the width of the MLP, 0 if it differs from layer to layer.
    """

    hidden: int
    layers: int
    vocabulary: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_dim: int


def text_sizes(get: Callable[[str], Any]) -> TextSizes | None:
    """The dimensions that a configuration of a text model states; `None` if it does not state all of them.

    Args:
        get: the value of a field, `None` if there is none.
    """
    hidden, layers, vocabulary = _stated(get, "hidden_size"), _stated(get, "num_hidden_layers"), get("vocab_size")
    # The heads of a state-space model are no heads of an attention.
    heads = get("num_attention_heads") if get("state_size") is not None else _stated(get, "num_attention_heads")
    recurrent = heads is None and any(get(name) is not None for name in ("state_size", "attention_hidden_size"))
    if not all(isinstance(value, int) for value in (hidden, layers, vocabulary, 0 if recurrent else heads)):
        return None
    head = 0 if recurrent else _stated(get, "head_dim") or hidden // heads
    groups = 0 if recurrent else _key_value_heads(get, heads)
    return TextSizes(hidden, layers, vocabulary, _mlp_width(get, hidden), 0 if recurrent else heads, groups, head)


def positions_of(config: Mapping[str, Any]) -> int | None:
    """The number of positions that a configuration states of its text model; `None` if it states none."""
    text = text_part(config)
    stated = _stated(text.get, "max_position_embeddings") if isinstance(text, Mapping) else None
    return stated if type(stated) is int and stated > 0 else None


def _stated(get: Callable[[str], Any], name: str) -> Any:
    return next((value for known in (name, *ALIASES[name]) if (value := get(known)) is not None), None)


def _key_value_heads(get: Callable[[str], Any], heads: int) -> int:
    stated = _stated(get, "num_key_value_heads")
    # Falcon and StarCoder; the former's new architecture has groups whatever this field says.
    if get("multi_query") and not get("new_decoder_architecture"):
        return 1
    return stated if isinstance(stated, int) and stated else heads


def _mlp_width(get: Callable[[str], Any], hidden: int) -> int:
    stated = _stated(get, "intermediate_size")
    if stated is None and (parts := get("ffn_config")) is not None:  # DBRX states it in a part of its own
        width = parts.get("ffn_hidden_size") if isinstance(parts, Mapping) else getattr(parts, "ffn_hidden_size", None)
        return width if isinstance(width, int) else 0
    if stated is None:
        expansion = next((value for name in ("expansion_ratio", "expand") if (value := get(name)) is not None), MLP_EXPANSION)
        return int(expansion * hidden)
    return stated if isinstance(stated, int) else 0


def dimension_problem(config: Mapping[str, Any]) -> str:
    """What is wrong with the dimensions that a configuration states, without the end of the sentence; empty if nothing is."""
    text = text_part(config)
    if not isinstance(text, Mapping):
        return f"text_config is {_shown(text)}, not a JSON object"
    for name, field in _NAMES.items():
        if name not in text or (text[name] is None and name not in STATED):
            continue
        value, (least, most) = text[name], DIMENSIONS[field]
        numbers = value if field in LISTED and isinstance(value, list) and value else [value]
        # True is an int, too.
        if not all(type(number) is int and least <= number <= most for number in numbers):
            where = name if text is config else f"text_config.{name}"
            return f"{where} is {_shown(value)}, not a whole number from {least} to {most:,}"
    return ""


def claim_problem(config: Mapping[str, Any], tensors: int, stored: int) -> str:
    """Why a model's weights are too few for the dimensions of its configuration; empty if they may suffice.

    transformers makes the whole model before it compares it with the files, so a wrong dimension would take all memory, or minutes. The
    comparison is rough, since architectures differ; sizes of single tensors are compared when the model is loaded.

    Args:
        tensors: the number of tensors in the files.
        stored: the bytes of the files.
    """
    text = text_part(config)
    sizes = {field: value for name, field in _NAMES.items() if isinstance(value := text.get(name), int)}
    hidden, layers, width = (sizes.get(name, 0) for name in ("hidden_size", "num_hidden_layers", "intermediate_size"))
    if layers > tensors:
        return f"num_hidden_layers is {layers:,}, and its weights have {tensors:,} tensors"
    experts = max(sizes.get(name, 0) for name in ("num_local_experts", "num_experts", "n_routed_experts"))
    parameters = {
        "hidden_size x vocab_size": hidden * sizes.get("vocab_size", 0),
        "num_hidden_layers x hidden_size x intermediate_size": layers * hidden * width,
        "num_hidden_layers x hidden_size x num_attention_heads x head_dim": layers
        * hidden
        * sizes.get("num_attention_heads", 0)
        * sizes.get("head_dim", 0),
        "hidden_size x moe_intermediate_size x experts": hidden * (sizes.get("moe_intermediate_size") or width) * experts,
    }
    name, largest = max(parameters.items(), key=lambda item: item[1])
    return f"{name} is {largest:,}, and its weights have {stored:,} bytes" if largest > PARAMETERS_A_BYTE * stored else ""


def _shown(value: object) -> str:
    words = "null" if value is None else repr(value)
    return words if len(words) <= 60 else f"{words[:59]}…"


def code_problem(name: str, config: Mapping[str, Any], tokenizer: Mapping[str, Any], trusted: bool) -> str:
    """Why a model with code of its own (`auto_map`) cannot be loaded; empty if it can.

    A model of an architecture that transformers has loads without its code. If it were run, all models of that architecture in the process
    would be made by it. Its tokenizer may have code of its own nevertheless.

    Args:
        name: the model's, for the message. config: its `config.json`. tokenizer: its `tokenizer_config.json`.
        trusted: whether the recipe trusts its code.
    """
    named, architecture = config.get("auto_map"), config.get("model_type")
    native, own_tokenizer = native_model_types(), own_tokenizers(tokenizer)
    foreign = isinstance(named, dict) and bool(native) and architecture not in native
    if not trusted:
        what = f"for the architecture {architecture!r}" if foreign else f"for its tokenizer {tokenizer.get('tokenizer_class')!r}"
        return (
            f"{name} brings its own code {what}, which transformers does not have; read that code, then set "
            "base.trust_remote_code: true if you trust it. A model to adopt cannot bring its own"
            if foreign or own_tokenizer
            else ""
        )
    if not foreign and own_tokenizer:
        kind = tokenizer["tokenizer_class"]
        same = any(reference.rpartition(".")[2].removesuffix("Fast") == kind.removesuffix("Fast") for reference in own_tokenizer)
        return (
            ""
            if same
            else f"{name}: tokenizer_config.json states the tokenizer_class {kind!r}, auto_map names {own_tokenizer[0]!r}; make them one"
        )
    if not isinstance(named, dict):
        return ""
    if architecture in native:
        return (
            f"{name} brings its own code for the architecture {architecture!r}, which transformers has itself; "
            "leave base.trust_remote_code out, and it loads without that code"
        )
    missing = [auto for auto in NEEDED if not isinstance(named.get(auto), str)]
    return f"{name} brings code, and auto_map in its config.json names no {missing[0]}; it is no causal language model" if missing else ""


def architecture_problem(name: str, config: Mapping[str, Any]) -> str:
    """Why transformers makes no causal language model of a configuration that names no code of its own; empty if it makes one.

    Args:
        name: the model's, for the message. config: its `config.json`.
    """
    native, causal, kind = native_model_types(), causal_model_types(), config.get("model_type")
    if not (native and causal) or isinstance(config.get("auto_map"), dict):
        return ""
    if not isinstance(kind, str) or not kind:
        return f"{name}: config.json has no model_type, so its architecture is not known; {_AGAIN}"
    if kind not in native:
        release = version("transformers")
        return f"{name} is of the architecture {kind[:60]!r}, which transformers {release} does not have; a later version may have it"
    if kind in causal:
        return ""
    text = text_part(config)
    inside = text.get("model_type") if text is not config and isinstance(text, Mapping) else None
    advice = f"save its text model ({inside}) alone, and give that" if inside in causal else "take a model that predicts the next token"
    return f"{name} is of the architecture {kind!r}, of which transformers loads no causal language model; {advice}"


def own_tokenizers(tokenizer: Mapping[str, Any]) -> list[str]:
    """The classes of its own code that a `tokenizer_config.json` names, if its `tokenizer_class` is none of transformers' own."""
    kind, known = tokenizer.get("tokenizer_class"), native_tokenizers()
    own = isinstance(kind, str) and known and kind.removesuffix("Fast") not in known
    return tokenizers_named(tokenizer.get("auto_map")) if own else []


def tokenizers_named(auto_map: Any) -> list[str]:
    """The tokenizer classes of an `auto_map`, which in older files is the list of them."""
    classes = auto_map.get("AutoTokenizer") if isinstance(auto_map, dict) else auto_map
    return [one for one in (classes if isinstance(classes, list | tuple) else [classes]) if isinstance(one, str)]


@functools.cache
def native_model_types() -> frozenset[str]:
    """The `model_type`s of transformers' own configurations; empty if this version lists them elsewhere.

    The list is read from its source, since importing transformers takes seconds.
    """
    return _names_of_pairs(NATIVE_LIST, NATIVE_NAME)


@functools.cache
def causal_model_types() -> frozenset[str]:
    """The `model_type`s of which transformers loads a causal language model; empty if this version lists them elsewhere."""
    return _names_of_pairs(CAUSAL_LIST, CAUSAL_NAME)


def _names_of_pairs(inside: tuple[str, ...], name: str) -> frozenset[str]:
    """The first parts of the pairs in the value of a name in a module of transformers; none if it cannot be read."""
    for node in _statements(*inside):
        if isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == name for target in node.targets):
            pairs = [pair for pair in ast.walk(node.value) if isinstance(pair, ast.Tuple)]
            return frozenset(str(pair.elts[0].value) for pair in pairs if pair.elts and isinstance(pair.elts[0], ast.Constant))
    return frozenset()


@functools.cache
def native_tokenizers() -> frozenset[str]:
    """The names of transformers' own tokenizers, without `Fast`; empty if this version lists them elsewhere."""
    nodes = [node for statement in _statements(*NATIVE_TOKENIZERS) for node in ast.walk(statement)]
    names = {node.value.removesuffix("Fast") for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return GENERAL_TOKENIZERS | names if names else frozenset()


def _statements(*inside: str) -> list[ast.stmt]:
    """The statements of a module of transformers; none if it cannot be read."""
    spec = util.find_spec("transformers")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else Path()
    try:
        return ast.parse(folder.joinpath(*inside).read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, ValueError):
        return []
