"""What the plan knows of documents that are kept apart, and of texts that share documents."""

from __future__ import annotations

import pytest
from plan_helpers import HEAD, FolderMaker, plan_of

from compresslab.recipe.places import RecipeError

BOUNDED = "text: {calibration: {documents: bounded}, training: {documents: bounded}}\n"
HEALED = "variants:\n  healed: [{distill: {cross_entropy: 0.5, tokens: 1000}}]\n"


def test_a_model_with_a_state_is_refused_where_a_step_keeps_documents_apart(folder: FolderMaker):
    head = HEAD.replace("offline:smollm2-135m-instruct", str(folder("base", model_type="mamba2")))
    plan_of(HEALED, head=head)
    with pytest.raises(RecipeError, match=r"text\.training\.documents: mamba2 carries a state .*; take packed"):
        plan_of(BOUNDED + HEALED, head=head)


def test_layers_that_are_no_attention_are_refused(folder: FolderMaker):
    base = folder("base", layer_types=["full_attention", "linear_attention", "full_attention", "full_attention"])
    head = HEAD.replace("offline:smollm2-135m-instruct", str(base))
    with pytest.raises(RecipeError, match=r"text\.training\.documents: .*base has layers of kind linear_attention"):
        plan_of(BOUNDED + HEALED, head=head)


def test_text_that_a_student_writes_has_no_documents():
    healed = "variants:\n  healed: [{distill: {cross_entropy: 0.5, tokens: 1000, on_policy: 0.5}}]\n"
    plan_of(healed)
    with pytest.raises(RecipeError, match=r"text\.training\.documents: what a student writes \(on_policy\)"):
        plan_of(BOUNDED + healed)


def test_packing_is_in_the_keys_of_the_steps_that_read_the_text():
    keys = [plan_of(text + HEALED).variant("healed").model for text in ("", BOUNDED, "text: {calibration: {bos: never}}\n")]
    assert keys[0] != keys[1]
    assert keys[0] == keys[2]


def test_a_part_that_does_not_exist_is_told_with_its_place():
    with pytest.raises(RecipeError, match=r"text\.training\.source: installed-docs has no part 'seed-1'"):
        plan_of("text: {training: {source: 'installed-docs#seed-1'}}\n" + HEALED)
