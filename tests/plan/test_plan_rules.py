"""Recipes that cannot work are refused before anything runs, with all reasons and their places."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from plan_helpers import CONFIG, HEAD, MACHINE, FolderMaker, plan_of

from compresslab.errors import RecipeError
from compresslab.plan.build import build
from compresslab.recipe.load import loads, loads_located
from compresslab.recipe.places import Complaint


def problems(text: str, head: str = HEAD) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        plan_of(text, head=head)
    return caught.value.problems


def on(model: Path) -> str:
    """The head of a recipe with another base."""
    return HEAD.replace("offline:smollm2-135m-instruct", str(model))


@pytest.mark.parametrize("pack", ["bnb-nf4", "bnb-int8", "rtn"])
@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ("distill: {tokens: 10}", "training after PACK is not possible: packed weights take no gradient"),
        ("retrain: {method: full, tokens: 10}", "training after PACK is not possible"),
        ("retrain: {method: lora, tokens: 10}", "training after PACK is not possible"),
        ("prune: {method: depth, keep: 24}", "pruning after PACK is not possible: packed weights cannot be cut"),
        ("prune: {method: width, keep: 0.5}", "pruning after PACK is not possible"),
        ("quantize: {method: rtn}", "the weights are packed by PACK already; quantize once"),
    ],
)
def test_nothing_but_adopting_follows_packing(pack: str, step: str, reason: str) -> None:
    (problem,) = problems(f"variants:\n  v:\n    - quantize: {{method: {pack}}}\n    - {step}\n")
    assert problem.startswith(f"r.yaml:7:{9 + step.index(': ')}: variants.v[1].{step.split(':')[0]}: {reason.replace('PACK', pack)}")
    (problem,) = problems(f"variants:\n  p: [quantize: {{method: {pack}}}]\n  v: {{from: p, steps: [{step}]}}\n")
    assert reason.replace("PACK", pack) in problem


def test_every_order_that_can_work_is_let_pass(folder: FolderMaker) -> None:
    prune, train, pack = (
        "{prune: {method: depth, keep: 24}}",
        "{distill: {tokens: 10, cross_entropy: 0.5}}",
        "{quantize: {method: bnb-nf4}}",
    )
    adopt = f"{{adopt: {{model: {folder('m')}}}}}"
    for steps in ([prune, train, pack], [train, prune, train], [pack, adopt, "{quantize: {method: bnb-int8}}"], [adopt, train, pack]):
        plan_of(f"variants: {{v: [{', '.join(steps)}]}}")


@pytest.mark.parametrize(
    ("step", "place", "reason"),
    [
        ("prune: {method: depth, keep: 30}", "keep: ", "the model has 30 layers here; keep at least 1 and at most 29"),
        ("prune: {method: depth, keep: 0.99}", "keep: ", "0.99 leaves 30; the model has 30 layers here"),
        ("prune: {method: depth, keep: 0.01}", "keep: ", "0.01 leaves 0; the model has 30 layers here"),
        ("prune: {method: depth, parameters: 30000000}", "parameters: ", "with 1 of its 30 layers the model has 31,852,"),
        ("prune: {method: depth, parameters: 200000000}", "parameters: ", "the model has 134,515,008 parameters here, so "),
        ("prune: {method: depth, parameters: 0.2}", "parameters: ", "26,903,001 are too few: with 1 of its 30 layers"),
        ("prune: {method: width, keep: 1536}", "keep: ", "the model has 1536 neurons here; keep at least 1 and at most 1535"),
        ("prune: {method: width, keep: 0.001}", "keep: ", "0.001 leaves 0 (in steps of 32); the model has 1536 neurons here"),
        ("prune: {method: width, groups: 3}", "groups: ", "the model has 3 key/value heads here; keep at least 1 and at most 2"),
        ("prune: {method: width, groups: 0.9}", "groups: ", "0.9 leaves 3; the model has 3 key/value heads here"),
        ("prune: {method: width, hidden: 576}", "hidden: ", "the model has 576 hidden channels here; keep at least 1 and at most 575"),
        ("prune: {method: width, parameters: 0.2}", "parameters: ", "26,903,001 are too few: cutting neurons leaves 56,"),
        ("prune: {method: width, parameters: 134515008}", "parameters: ", "so 134,515,008 leaves nothing to drop; take fewer"),
        ("quantize: {method: rtn, group_size: 128}", "group_size: ", "128 does not divide the hidden size 576 and"),
        ("quantize: {method: rtn, group_size: 512}", "group_size: ", "these do: 16, 32, 64"),
    ],
)  # fmt: skip
def test_settings_that_the_model_cannot_take(step: str, place: str, reason: str) -> None:
    (problem,) = problems(f"variants:\n  v:\n    - {step}\n")
    kind, setting = step.split(":")[0], place.rstrip(": ")
    assert problem.startswith(f"r.yaml:6:{7 + step.index(place) + len(place)}: variants.v[0].{kind}.{setting}: ")
    assert reason in problem


def test_every_width_that_does_not_fit_is_named() -> None:
    found = problems("variants: {v: [prune: {method: width, keep: 2000, groups: 4, hidden: 600}]}")
    assert [problem.split(": ")[1] for problem in found] == [f"variants.v[0].prune.{field}" for field in ("keep", "groups", "hidden")]


def test_heads_that_transformers_would_not_load(folder: FolderMaker) -> None:
    llama = on(folder("llama", hidden_size=64, num_attention_heads=8, num_key_value_heads=4))
    (problem,) = problems("variants: {v: [prune: {method: width, groups: 3}]}", llama)
    assert "prune.groups: 3 leaves 6 query heads, which must divide the hidden size 64" in problem
    assert problem.endswith("these do: 1, 2")
    (problem,) = problems("variants: {v: [prune: {method: width, hidden: 50, groups: 2}]}", llama)
    assert "prune.hidden: 50 is no multiple of the 4 query heads, which transformers asks for here; take 48 or 52" in problem
    (problem,) = problems("variants: {v: [prune: {method: width, hidden: 0.95}]}", llama)
    assert "prune.hidden: 0.95 leaves 64 (in steps of 32); the model has 64 hidden channels here" in problem
    mistral = on(folder("mistral", model_type="mistral", hidden_size=64, num_attention_heads=8, num_key_value_heads=4))
    plan_of("variants: {v: [prune: {method: width, groups: 3}], w: [prune: {method: width, hidden: 50}]}", head=mistral)


def test_what_a_prune_step_leaves_is_known(folder: FolderMaker) -> None:
    base = on(folder("m", shapes={"all": [4 * (3 * 64 * 96 + 2 * 64 * 64 + 2 * 64 * 32 + 2 * 64) + 100 * 64 + 64]}, model_type="mistral"))
    settings = {
        "depth": "{method: depth, parameters: 0.7, by: loss}",
        "all": "{method: width, keep: 0.5, groups: 1, hidden: 40, multiple: 8}",
        "fits": "{method: width, parameters: 0.5, axes: [neurons, groups, hidden], multiple: 8}",
    }
    plan = plan_of("variants:\n" + "".join(f"  {name}: [prune: {step}]\n" for name, step in settings.items()), head=base)
    dimensions = {name: plan.node(plan.variant(name).model).dimensions for name in ("base", *settings)}
    whole, depth, narrow, fits = dimensions.values()
    assert whole is not None
    assert depth is not None
    assert narrow is not None
    assert fits is not None
    assert depth.parameters <= 0.7 * whole.parameters < depth.parameters + whole.layer_parameters
    assert narrow.widths == (48, 1, 40)
    assert narrow.attention == 2 * 16
    assert fits.parameters <= 0.5 * whole.parameters
    assert fits.widths < whole.widths


def test_after_a_step_that_is_refused_nothing_is_known() -> None:
    """The dimensions after an illegal step are not known, so later steps get no complaints."""
    found = problems("variants: {v: [prune: {method: width, hidden: 600}, prune: {method: depth, keep: 30}, quantize: {method: rtn}]}")
    assert len(found) == 1


def test_an_unknown_model_refuses_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    steps = ("keep: 9999", "groups: 9999", "hidden: 9999", "parameters: 99999999999")
    plan_of(
        "variants:\n" + "".join(f"  v{n}: [prune: {{method: width, {step}}}]\n" for n, step in enumerate(steps)), head=on(Path("o/m@01"))
    )


def test_settings_are_checked_against_what_the_steps_before_left() -> None:
    (problem,) = problems(
        "variants:\n  a: [prune: {method: depth, keep: 20}]\n  b: {from: a, steps: [prune: {method: depth, keep: 20}]}\n"
        "  c: [prune: {method: width, keep: 1000}, quantize: {method: rtn, group_size: 8}]\n"
    )
    assert "the model has 20 layers here" in problem


def test_no_usual_group_size_fits(folder: FolderMaker) -> None:
    (problem,) = problems("variants: {v: [quantize: {method: rtn}]}", on(folder("odd", intermediate_size=90)))
    assert "32 does not divide the MLP width 90; none of the usual sizes does; prune to a rounder width" in problem


def test_a_model_that_is_packed_already(folder: FolderMaker) -> None:
    packed = folder("packed", quantization_config={"quant_method": "gptq", "bits": 4})
    assert "pruning after gptq is not possible" in problems("variants: {v: [prune: {method: depth, keep: 2}]}", on(packed))[0]
    adopted = f"variants: {{v: [adopt: {{model: {packed}}}, retrain: {{method: full, tokens: 10}}]}}"
    assert "training after gptq is not possible" in problems(adopted)[0]


@pytest.mark.parametrize("name", ["hqq", "aqlm"])
@pytest.mark.parametrize("nested", [False, True])
def test_weights_that_nobody_here_unpacks_are_refused_as_base_and_as_adopted_model(folder: FolderMaker, name: str, *, nested: bool) -> None:
    quantization = {"quantization_config": {"quant_method": name}}
    packed = folder("packed", **({"text_config": CONFIG | quantization} if nested else quantization))
    reason = f"weights packed by {name} are not unpacked here; take a model of plain weights, or one packed by "
    (problem,) = problems("variants: {v: [prune: {method: depth, keep: 2}]}", on(packed))
    assert problem.startswith("r.yaml:2:15: base.model: ")
    assert reason in problem
    (problem,) = problems(f"variants: {{v: [adopt: {{model: {packed}}}, retrain: {{method: full, tokens: 10}}]}}")
    assert f"variants.v[0].adopt.model: {reason}" in problem


@pytest.mark.parametrize("name", ["fp8", "mxfp4", "a-new-one"])
def test_a_format_that_transformers_may_unpack_while_it_loads_is_left_to_the_worker(folder: FolderMaker, name: str) -> None:
    packed = folder("packed", quantization_config={"quant_method": name})
    plan = plan_of("variants: {v: [prune: {method: depth, keep: 2}]}", head=on(packed))
    assert [variant.name for variant in plan.variants] == ["base", "v"]


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"quantization_config": {"load_in_4bit": True}}, "bitsandbytes"),
        ({"text_config": CONFIG | {"quantization_config": {"quant_method": "awq", "w_bit": 4}}}, "awq"),
    ],
)
def test_packed_weights_are_known_by_older_and_by_nested_configurations(folder: FolderMaker, config: dict[str, object], name: str) -> None:
    (problem,) = problems("variants: {v: [prune: {method: depth, keep: 2}]}", on(folder("packed", **config)))
    assert f"pruning after {name} is not possible" in problem


def test_a_teacher_with_another_tokenizer(folder: FolderMaker) -> None:
    base, other = folder("base", "a b c"), folder("other", "a c b")
    text = f"variants:\n  t: [adopt: {{model: {other}}}]\n  v: [distill: {{teacher: t, tokens: 10}}]\n"
    (problem,) = problems(text, on(base))
    assert problem == (
        f"r.yaml:6:26: variants.v[0].distill.teacher: the teacher 't' comes from {other}, which has another tokenizer than {base}, "
        "so its logits mean other tokens; choose a teacher of the same tokenizer"
    )


def test_the_same_tokenizer_in_another_file_is_no_other_tokenizer(folder: FolderMaker) -> None:
    base, other = folder("base"), folder("other")
    path = other / "tokenizer.json"
    path.write_text(json.dumps({"truncation": None} | json.loads(path.read_text()), indent=2))
    text = f"variants:\n  t: [adopt: {{model: {other}}}]\n  v: [distill: {{teacher: t, tokens: 10}}]\n"
    plan_of(text, head=on(base))
    path.rename(other / "tokenizer.model")  # of which a plan reads nothing
    plan_of(text, head=on(base))


def test_added_tokens_count(folder: FolderMaker) -> None:
    base, other = folder("base"), folder("other")
    path = other / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"added_tokens": [{"id": 3, "content": "<pad>"}]}))
    text = f"variants:\n  t: [adopt: {{model: {other}}}]\n  v: [distill: {{teacher: t, tokens: 10}}]\n"
    assert "another tokenizer" in problems(text, on(base))[0]


def test_models_and_texts_that_do_not_exist() -> None:
    head = "study: s\nbase: {model: ./nowhere}\ntext: {training: {source: no.txt}}\nevaluate: {tasks: [arc_easy]}\n"
    found = problems("variants: {v: [adopt: {model: ./gone.gguf}, prune: {method: depth, keep: 2}]}", head)
    assert [problem.split(":")[1] for problem in found] == ["2", "3", "5"]
    assert "base.model: no model folder at ./nowhere" in found[0]
    where = f" (looked for in {Path.cwd()}, where the command runs)"
    assert f"text.training.source: no text file at no.txt{where}; a text source is installed-docs, a .txt or .jsonl file" in found[1]
    assert "variants.v[0].adopt.model: no GGUF file at ./gone.gguf" in found[2]


def test_everything_at_once_in_the_order_of_the_file() -> None:
    text = """
density: {reference: olmo}
variants:
  a:
    - quantize: {method: rtn, group_size: 100}
    - prune: {method: depth, keep: 31}
    - distill: {teacher: b, tokens: 10}
  b: [prune: {method: depth, keep: 40}]
  c: {from: b, steps: [quantize: {method: bnb-nf4}, retrain: {method: full, tokens: 10}]}
sweeps:
  d-{k}: {grid: {k: [31, 29, 32]}, steps: [prune: {method: depth, keep: "{k}"}]}
"""
    recipe, places, _ = loads_located(HEAD.replace("csqa", "no_such_task") + text, "r.yaml")

    with pytest.raises(RecipeError) as caught:
        build(recipe, MACHINE, places, [Complaint(("density", "reference"), "there is no reference 'olmo'")])
    lines = (HEAD.replace("csqa", "no_such_task") + text).splitlines()
    found = []
    for problem in caught.value.problems:
        _, line, column, path, _ = problem.split(":", 4)
        found.append((path.strip(), lines[int(line) - 1][int(column) - 1 :].split(",")[0]))
    assert found == [
        ("evaluate.tasks[1]", "no_such_task]"),
        ("density.reference", "olmo}"),
        ("variants.a[0].quantize.group_size", "100}"),
        ("variants.a[1].prune", "{method: depth"),
        ("variants.a[1].prune.keep", "31}"),
        ("variants.a[2].distill", "{teacher: b"),
        ("variants.b[0].prune.keep", "40}]"),
        ("variants.c.steps[1].retrain", "{method: full"),
        ("sweeps.d-{k}.steps[0].prune.keep", '"{k}"}]}'),
        ("sweeps.d-{k}.steps[0].prune.keep", '"{k}"}]}'),
    ]
    assert [name in problem for name, problem in zip(("d-31", "d-32"), caught.value.problems[-2:], strict=True)] == [True, True]


def test_a_refused_teacher_is_told_once() -> None:
    found = problems("variants:\n  t: [prune: {method: depth, keep: 99}]\n  v: [distill: {teacher: t, tokens: 10}]\n")
    assert len(found) == 1


def test_a_student_that_is_its_own_teacher_is_refused_by_the_plan() -> None:
    shorter = "prune: {method: depth, keep: 24}"
    found = problems(
        f"variants:\n  a: [{shorter}]\n  b: [{shorter}, distill: {{teacher: a, tokens: 10}}]\n  c: [distill: {{tokens: 10}}]\n"
        f"  d: [distill: {{tokens: 10, cross_entropy: 0.5}}]\n  e: [{shorter}, distill: {{tokens: 10}}]\n"
    )
    assert ["b[1].distill.teacher: the teacher 'a' is the student itself" in found[0], "c[0].distill" in found[1], len(found)] == [
        True,
        True,
        2,
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("A few words.", "has 12 bytes, which are fewer tokens than one sequence of 512; give a longer text, or lower length"),
        ("A few words. " * 900, "is one document, and until holds out documents that are not trained on; give a text of several"),
        (("A few words. " * 90 + "\n\n\n") * 9, ""),
    ],
)
def test_a_text_that_is_too_short_or_one_document_is_told(words: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text(words)
    steps = "prune: {method: depth, keep: 24}, retrain: {method: full, tokens: 512, until: parent}"
    recipe = f"text: {{training: {{source: {tmp_path}/words.txt, length: 512}}}}\nvariants:\n  v: [{steps}]\n"
    if not said:
        build(loads(HEAD + recipe, "r.yaml"), MACHINE)
        return
    [found] = problems(recipe)
    assert said in found


def test_a_recipe_built_in_code_has_paths_without_places() -> None:
    recipe = loads(HEAD + "variants:\n  v: [prune: {method: depth, keep: 99}]\n", "r.yaml")
    with pytest.raises(RecipeError, match=r"variants\.v\.steps\[0\]\.prune\.keep: the model has 30 layers"):
        build(recipe, MACHINE)


def test_a_package_that_is_not_installed_is_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from compresslab.plan import packages

    monkeypatch.setattr(packages, "version", lambda package: "absent" if package == "gptqmodel" else "1.0")
    variants = "variants: {v: [quantize: {method: gptq}], w: [quantize: {method: torchao-int8}]}"
    (problem,) = problems(variants)
    assert "variants.v[0].quantize.method" in problem
    assert "gptq needs gptqmodel, which is not installed: pip install 'compresslab[gptq]'" in problem


def test_a_backend_that_is_not_installed_is_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from compresslab.plan import packages

    head = HEAD.replace("tasks:", "backend: vllm, tasks:")
    monkeypatch.setattr(packages, "version", lambda _: "absent")
    (problem,) = problems("", head=head)
    assert "evaluate.backend: vllm is not installed: pip install vllm" in problem
    monkeypatch.setattr(packages, "version", lambda _: "0.12")
    assert plan_of("", head=head).of_kind("evaluate")


def test_groups_that_do_not_divide_are_told_of_every_method_that_has_groups() -> None:
    found = problems(
        "variants: {g: [quantize: {method: gptq, group_size: 128}], a: [quantize: {method: awq, group_size: 128}], "
        "r: [quantize: {method: rtn, group_size: 128}]}"
    )
    assert len(found) == 3
    assert all(
        "group_size: 128 does not divide the hidden size 576 and the attention width 576; these do: 16, 32, 64" in line for line in found
    )


def test_widths_that_do_not_fill_the_words_of_a_checkpoint_are_told() -> None:
    (found,) = problems("variants: {v: [prune: {method: width, keep: 1000}, quantize: {method: gptq, group_size: 8}]}")
    assert "the checkpoint format needs multiples of 32, and the MLP width 1000 is none" in found
