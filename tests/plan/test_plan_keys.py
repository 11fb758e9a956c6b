"""Content keys change if and only if something changes that decides the result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from plan_helpers import HEAD, MACHINE, FolderMaker, plan_of

from compresslab.plan import keys, node_keys
from compresslab.plan.graph import Plan
from compresslab.records.compute import Compute
from compresslab.versions import version

STUDY = """
variants:
  nf4: [{quantize: {method: bnb-nf4}}]
  depth: [{prune: {method: depth, keep: 24}}]
  healed: {from: depth, steps: [{distill: {tokens: 1000}}]}
  taught: {from: depth, steps: [{distill: {teacher: healed, tokens: 1000}}]}
  adapted: {from: depth, steps: [{retrain: {method: lora, tokens: 1000}}]}
  packed: {from: healed, steps: [{quantize: {method: rtn, group_size: 64}}]}
"""
MODELS = {"base", "nf4", "depth", "healed", "taught", "adapted", "packed"}


def keys_of(plan: Plan, kind: str) -> dict[str, str | None]:
    """The key of each variant's model, times, or scores on one task."""
    if kind == "model":
        return {variant.name: variant.model for variant in plan.variants}
    if kind == "measure":
        return {variant.name: variant.measure for variant in plan.variants}
    return {variant.name: plan.node(variant.evaluate).tasks.get(kind) for variant in plan.variants}


def changed(one: Plan, other: Plan, kind: str = "model") -> set[str]:
    before, after = keys_of(one, kind), keys_of(other, kind)
    return {name for name in before if before[name] != after.get(name)}


def edited(old: str, new: str, kind: str = "model", *, head: tuple[str, str] = ("", "")) -> set[str]:
    """The variants whose keys an edit of the recipe changes."""
    assert old in STUDY
    assert head[0] in HEAD
    return changed(plan_of(STUDY), plan_of(STUDY.replace(old, new), head=HEAD.replace(*head) if head[0] else HEAD), kind)


def test_the_same_recipe_has_the_same_keys() -> None:
    one, other = plan_of(STUDY), plan_of(STUDY)
    assert [node.key for node in one.nodes] == [node.key for node in other.nodes]
    assert len({node.key for node in one.nodes}) == len(one.nodes) == 3 * len(MODELS) + 2


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("keep: 24", "keep: 20", MODELS - {"base", "nf4"}),
        ("method: bnb-nf4", "method: bnb-nf4, double_quantization: true", {"nf4"}),
        ("{distill: {tokens: 1000}", "{distill: {tokens: 1001}", {"healed", "taught", "packed"}),
        ("{teacher: healed, tokens: 1000}", "{teacher: base, tokens: 1000}", {"taught"}),
        ("lora, tokens: 1000", "lora, tokens: 1000, seed: 1", {"adapted"}),
        ("packed: {from: healed", "packed: {from: depth", {"packed"}),
        ("\nvariants", "\ntext: {training: {seed: 1}}\nvariants", {"healed", "taught", "adapted", "packed"}),
        ("\nvariants", "\ntext: {calibration: {seed: 1}}\nvariants", MODELS - {"base", "nf4"}),
        ("\nvariants", "\ntext: {training: {tokens: 999}}\nvariants", {"healed", "taught", "adapted", "packed"}),
        ("\nvariants", "\ntext: {training: {tokens: 1000}}\nvariants", set()),
        ("\nvariants", "\nquestion: Another one?\nvariants", set()),
        ("\nvariants", "\ndensity: {tokens: 2e12, seed: 3, hardware: [h100-sxm]}\nvariants", set()),
        ("group_size: 64", "group_size: 64, bits: 4", set()),
    ],
)  # fmt: skip
def test_what_changes_model_keys(old: str, new: str, expected: set[str]) -> None:
    assert edited(old, new) == expected
    assert edited(old, new, "csqa") == expected


def test_the_dtype_of_the_base_changes_all_models() -> None:
    assert edited("", "", head=("instruct}", "instruct, dtype: float32}")) == MODELS


@pytest.mark.parametrize("other", [Compute("bfloat16"), Compute("float32", "cuda:0", "cuda"), Compute("float32", "cuda:0", "rocm")])
def test_what_multiplies_decides_all_but_what_the_weights_alone_decide(other: Compute) -> None:
    one, two = plan_of(STUDY), plan_of(STUDY, compute=other)
    assert changed(one, two) == MODELS - {"base", "nf4"}
    for kind in ("csqa", "measure"):
        assert changed(one, two, kind) == MODELS
    weights_alone = plan_of("variants: {a: [{prune: {method: magnitude, sparsity: 0.5}}, {quantize: {method: rtn}}]}\n")
    again = plan_of("variants: {a: [{prune: {method: magnitude, sparsity: 0.5}}, {quantize: {method: rtn}}]}\n", compute=other)
    assert changed(weights_alone, again) == set()
    assert {node.key for node in one.of_kind("gather")}.isdisjoint(node.key for node in two.of_kind("gather"))


def test_two_devices_of_one_kind_share_their_keys() -> None:
    assert (
        changed(plan_of(STUDY, compute=Compute("float32", "cuda:0", "cuda")), plan_of(STUDY, compute=Compute("float32", "cuda:1", "cuda")))
        == set()
    )


def test_evaluation_settings_change_scores_alone() -> None:
    for new in ("items: 11", "items: 10, seed: 1"):
        assert edited("", "", "arc_easy", head=("items: 10", new)) == MODELS
        assert edited("", "", head=("items: 10", new)) == set()
        assert edited("", "", "measure", head=("items: 10", new)) == set()


def test_a_new_task_leaves_the_scores_of_the_others() -> None:
    more = ("arc_easy, csqa", "piqa, csqa, arc_easy")
    assert edited("", "", "csqa", head=more) == edited("", "", "arc_easy", head=more) == set()


def test_the_workload_changes_times_alone() -> None:
    workload = "\ndensity: {workload: {batch: 2}}\nvariants"
    assert edited("\nvariants", workload, "measure") == MODELS
    assert edited("\nvariants", workload) == edited("\nvariants", workload, "csqa") == set()


def test_another_machine_changes_times_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = plan_of(STUDY)
    monkeypatch.setattr("plan_helpers.MACHINE", MACHINE._replace(facts={"processor": "another"}))
    after = plan_of(STUDY)
    assert changed(before, after, "measure") == MODELS
    assert changed(before, after) == changed(before, after, "csqa") == set()
    assert next(before.of_kind("machine")).key != next(after.of_kind("machine")).key


def test_names_and_order_do_not_matter() -> None:
    renamed = STUDY.replace("healed", "mended")
    assert set(keys_of(plan_of(renamed), "model").values()) == set(keys_of(plan_of(STUDY), "model").values())
    head, *variants = STUDY.strip().splitlines()
    assert changed(plan_of(STUDY), plan_of("\n".join([head, *reversed(variants)]))) == set()


@pytest.mark.parametrize(
    ("library", "models", "scores"),
    [
        ("torch", MODELS, MODELS),
        ("transformers", MODELS, MODELS),
        ("gguf", MODELS, MODELS),
        ("bitsandbytes", {"nf4"}, {"nf4"}),
        ("compressed-tensors", {"packed"}, {"packed"}),
        ("peft", {"adapted"}, {"adapted"}),
        ("lm_eval", set(), MODELS),
        ("rich", set(), set()),
    ],
)
def test_library_versions(library: str, models: set[str], scores: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = plan_of(STUDY)
    monkeypatch.setattr(node_keys, "version", lambda name: "another" if name == library else version(name))
    after = plan_of(STUDY)
    assert changed(before, after) == models
    assert changed(before, after, "csqa") == scores


def test_a_text_file_counts_by_its_content(tmp_path: Path) -> None:
    def keys_with(name: str, content: str) -> dict[str, str | None]:
        (tmp_path / name).write_text(100 * content)
        return keys_of(plan_of(f"text: {{training: {{source: {tmp_path / name}}}}}{STUDY}"), "model")

    one = keys_with("one.txt", "Some text.")
    assert keys_with("moved.txt", "Some text.") == one
    assert keys_with("one.rst", "Some text.")["healed"] != one["healed"]
    other = keys_with("one.txt", "Other text.")
    assert {name for name in one if one[name] != other[name]} == {"healed", "taught", "adapted", "packed"}


def test_a_model_folder_counts_by_its_content(folder: FolderMaker) -> None:
    def key(path: Path) -> str:
        return plan_of("", head=HEAD.replace("offline:smollm2-135m-instruct", str(path))).variants[0].model

    one, copy, other = folder("one"), folder("copy"), folder("other", shapes={"w": [10, 11]})
    assert key(one) == key(copy)
    assert key(one) != key(other)
    (copy / "README.md").write_text("Of no effect.")
    assert key(one) == key(copy)
    (copy / "merges.txt").write_text("a b")
    assert key(one) != key(copy)


def test_an_adopted_model_counts_by_itself(folder: FolderMaker) -> None:
    adopted = f"variants: {{a: [{{prune: {{method: depth, keep: 24}}}}, {{adopt: {{model: {folder('one')}}}}}]}}"
    one, other = plan_of(adopted), plan_of(adopted.replace("keep: 24", "keep: 20"))
    assert changed(one, other) == {"a/1"}
    assert one.node(one.variant("a").model).needs == ()


# Code


ONE = """\
\"\"\"What it does.\"\"\"
from __future__ import annotations
from typing import TYPE_CHECKING, Any
from compresslab.algorithms.two import f
from compresslab.records import Size
from compresslab.methods.registry import method
if TYPE_CHECKING:
    from compresslab.models.four import i
else:
    from compresslab.models.five import j

LIMIT = 3
\"\"\"How many at most.\"\"\"


class G:
    rate: float = 0.5
    \"\"\"A share.\"\"\"


def g():
    \"\"\"Explains.\"\"\"
    try:
        return f(1)
    finally:
        "Explains, too."
"""


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Modules that replace those of the package."""
    modules = {
        "compresslab": "from compresslab.cli import main\n",
        "compresslab.cli": "",
        "compresslab.steps": "",
        "compresslab.steps.one": ONE,
        "compresslab.algorithms": "SCALE = 1\n",
        "compresslab.algorithms.two": "def f(x):\n    from compresslab.models import three\n    return three.h(x) + 1\n",
        "compresslab.attic": "from compresslab.attic.inner import K\n",
        "compresslab.attic.inner": "K = 1\n",
        "compresslab.models": "",
        "compresslab.models.three": "from compresslab.attic import K\n\ndef h(x):\n    return x\n",
        "compresslab.models.four": "def i(x):\n    return x\n",
        "compresslab.models.five": "def j(x):\n    return x\n",
        "compresslab.records": "from compresslab.records.models import Size\n",
        "compresslab.records.models": "from compresslab.models.four import i\nSize = 1\n",
        "compresslab.methods": "",
        "compresslab.methods.registry": "METHODS = ()\n",
    }  # fmt: skip
    monkeypatch.setattr(keys, "_modules", lambda: modules)
    monkeypatch.setattr(keys, "_source", modules.get)
    forget()
    yield modules
    forget()


def forget() -> None:
    for cached in (keys._code, keys.code_version, keys._imported_modules):
        cached.cache_clear()


def version_after(modules: dict[str, str], name: str, old: str, new: str) -> str:
    assert old in modules[name]
    modules[name] = modules[name].replace(old, new)
    forget()
    return keys.code_version("compresslab.steps.one")


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("compresslab.steps.one", "Explains.", "Explains better."),
        ("compresslab.steps.one", "Explains, too.", "Explains better."),
        ("compresslab.steps.one", "What it does.", "What this does."),
        ("compresslab.steps.one", "How many at most.", "As many as go."),
        ("compresslab.steps.one", "A share.", "A share in [0, 1]."),
        ("compresslab.steps.one", "\n\ndef g", "\n\n\n# A comment.\ndef g"),
        ("compresslab.steps.one", "f(1)", "f( 1 )  # one"),
        ("compresslab.steps.one", "four import i", "four import i, more"),
        ("compresslab.steps.one", "    from compresslab.models.four import i", "    import compresslab.models.four"),
        ("compresslab.steps.one", "import TYPE_CHECKING, Any", "import Any"),
        ("compresslab.models.four", "return x", "return x * 2"),
        ("compresslab.records.models", "Size = 1", "Size = 2"),
        ("compresslab.methods.registry", "()", "(1,)"),
        ("compresslab", "main", "listing"),
        ("compresslab.cli", "", "x = 1\n"),
    ],
)  # fmt: skip
def test_words_about_code_and_code_that_arranges_do_not_count(made_up: dict[str, str], name: str, old: str, new: str) -> None:
    before = keys.code_version("compresslab.steps.one")
    assert version_after(made_up, name, old, new) == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("compresslab.steps.one", "LIMIT = 3", "LIMIT = 4"),
        ("compresslab.steps.one", "rate: float = 0.5", "rate: float = 0.6"),
        ("compresslab.steps.one", "f(1)", "f(2)"),
        ("compresslab.steps.one", ", Any", ", Any, cast"),
        ("compresslab.algorithms.two", "+ 1", "- 1"),
        ("compresslab.models.three", "return x", "return x * 2"),
        ("compresslab.models.five", "return x", "return x * 2"),
        ("compresslab.algorithms", "SCALE = 1", "SCALE = 2"),
        ("compresslab.attic", "inner import K", "inner import K as K"),
        ("compresslab.attic.inner", "K = 1", "K = 2"),
    ],
)
def test_code_counts_wherever_it_stands(made_up: dict[str, str], name: str, old: str, new: str) -> None:
    """This includes values of constants, packages, and folders that are not listed."""
    before = keys.code_version("compresslab.steps.one")
    assert version_after(made_up, name, old, new) != before


def test_what_only_arranges_is_there_and_reached() -> None:
    """A listed name that no node's code imports would exclude a later module of that name."""
    reached = {
        name
        for module in keys._modules()
        for line in keys._read_code(keys._source(module) or "").splitlines()[1:]
        for name in keys._imported_modules(line)
    }
    assert set(keys.ARRANGING) <= reached | {"compresslab"}


@pytest.mark.parametrize("left", ["", "0\n", "0" * 64 + "\nabc\ncompresslab.models.load", "\udcff"])
def test_a_damaged_memory_of_digests_is_made_again(left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESSLAB_CACHE", str(tmp_path))
    forget()
    before = keys.code_version("compresslab.steps.distill")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10
    whole = {path: path.read_bytes() for path in files}
    for path in files:
        path.write_bytes(left.encode(errors="surrogateescape"))
    forget()
    assert keys.code_version("compresslab.steps.distill") == before
    assert {path: path.read_bytes() for path in files} == whole
    forget()


def test_code_reaches_what_decides_a_result() -> None:
    """A module that a worker uses for a result and that is not in its key would leave stale results in the store."""
    for entry, needed in {
        ("compresslab.steps.distill", "compresslab.steps.contract"): {
            "compresslab.algorithms.forward_kl", "compresslab.steps.training.trainer", "compresslab.models.text", "compresslab.models.load",
            "compresslab.models.save",
        },
        ("compresslab.evaluation.harness", "compresslab.models.formats.dequantize"): {
            "compresslab.catalog.olmes", "compresslab.evaluation",
            "compresslab.evaluation.tree_lm", "compresslab.evaluation.engines.trie", "compresslab.evaluation.olmes_requests",
            "compresslab.evaluation.scores", "compresslab.models.load",
        },
    }.items():  # fmt: skip
        found: set[str] = set()
        waiting = list(entry)
        while waiting:
            if (name := waiting.pop()) not in found:
                found.add(name)
                waiting += keys._code(name).imports
        assert needed <= found


def test_a_module_that_is_not_there_has_no_version() -> None:
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        keys.code_version("compresslab.steps.nowhere")


def test_a_relative_import_is_refused(made_up: dict[str, str]) -> None:
    made_up["compresslab.steps.one"] = "from . import contract"
    with pytest.raises(ValueError, match=r"compresslab\.steps\.one has a relative import"):
        keys.code_version("compresslab.steps.one")
