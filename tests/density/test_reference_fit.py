"""The fits of the references that ship: each reproduces its file, explains its models, and predicts what it never saw."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from compresslab.density import Budget, Reference
from compresslab.density.references.build import choose_form
from compresslab.density.references.family import build_family, fitted
from compresslab.density.references.family_reach import error as family_error
from compresslab.density.references.family_reach import left_out_errors, sizes
from compresslab.density.references.family_scores import MIN_MODELS
from compresslab.density.references.fitting import fit_link, fit_losses
from compresslab.density.references.laws import ln_n_of_loss, loss_law, score_link
from compresslab.density.references.left_out import left_out, reach_of
from tools.references import fit
from tools.references.family_scores import FAMILIES, read_family
from tools.references.ladder import build_ladder, read_ladder
from tools.references.pythia import build_pythia, read_pythia

NAMES = ("olmo-ladder", "pythia", "qwen2.5", "llama-1-2")


@pytest.mark.parametrize(
    ("name", "build"),
    [
        pytest.param("olmo-ladder", build_ladder, marks=pytest.mark.slow),
        ("pythia", build_pythia),
        ("qwen2.5", lambda resamples: build_family(read_family(FAMILIES["qwen2.5"]), resamples)),
        pytest.param("llama-1-2", lambda resamples: build_family(read_family(FAMILIES["llama-1-2"]), resamples), marks=pytest.mark.slow),
    ],
)
def test_the_shipped_file_is_what_the_code_gives(name, build):
    shipped, built = Reference.load(name), build(resamples=3)
    assert list(shipped.tasks) == list(built["tasks"])
    assert shipped.form == built["form"]
    assert shipped.reach == pytest.approx(built["reach"])
    assert list(shipped.reach_tested) == built["reach_tested"]
    for task, entry in built["tasks"].items():
        ours = shipped.tasks[task]
        np.testing.assert_allclose(ours.loss[:4], [entry["loss"], *entry["loss_resamples"]], rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(ours.score[:4], [entry["score"], *entry["score_resamples"]], rtol=5e-3, atol=3e-3)
        assert ours.r2_loss == pytest.approx(entry["r2_loss"], abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_two_hundred_resamples_ship_and_the_source_is_named(name):
    reference = Reference.load(name)
    assert reference.resamples == 200
    assert "http" in reference.source or "github" in reference.source or "arXiv" in reference.source
    assert reference.form["chosen"]


def test_the_ladder_explains_the_loss_of_all_seven_tasks():
    reference = Reference.load("olmo-ladder")
    assert len(reference.tasks) == 7
    assert {task: f.r2_loss for task, f in reference.tasks.items() if f.r2_loss < 0.98} == {}
    assert {task: f.r2_score for task, f in reference.tasks.items() if f.r2_score < 0.95} == {}


def test_the_ladder_predicts_the_losses_of_the_long_runs_that_stayed_out():
    held = [run for f in Reference.load("olmo-ladder").tasks.values() for run in f.held_out.values()]
    losses = np.abs([run["loss_error"] for run in held])
    assert len(losses) == 21
    assert np.median(losses) <= 0.035
    assert losses.max() <= 0.12


@pytest.mark.parametrize(("run", "most"), [("peteish7", 0.038), ("peteish13", 0.042)])
def test_the_ladder_predicts_the_scores_of_the_long_runs_as_well_as_its_own_paper(run, most):
    """Through both steps, from parameters and tokens alone: the paper's average misses are 3.8% and 4.2% (over eight tasks)."""
    errors = [abs(f.held_out[run]["score_error"]) for f in Reference.load("olmo-ladder").tasks.values()]
    assert np.mean(errors) <= most


def test_the_long_runs_do_not_enter_the_fit():
    reference = Reference.load("olmo-ladder")
    assert reference.parameters_range == pytest.approx((190354176, 3169537280))
    assert reference.tokens_range[1] == pytest.approx(633939689472)


def test_a_size_that_is_left_out_of_the_ladder_is_found_again():
    """N_hat of each left-out run, over the seven tasks, against its true N: within a factor 1.25 in the median."""
    table = read_ladder()
    table = table[~table["long"]]
    by_task = {task: table[table["task"] == task] for task in Reference.load("olmo-ladder").tasks}
    errors: list[float] = []
    for left, laws in left_out(list(by_task), by_task, irreducible=True).values():
        logs = [ln_n_of_loss(theta, loss, d) - np.log(n) for theta, (n, d, loss) in zip(laws.thetas, left, strict=True)]
        errors += np.mean(logs, axis=0).tolist()
    assert len(errors) == 30
    assert np.exp(np.median(np.abs(errors))) <= 1.25


def test_pythia_reaches_down_to_70m_and_explains_lambada():
    reference = Reference.load("pythia")
    assert reference.parameters_range[0] == pytest.approx(44.67e6, rel=1e-3)
    assert reference.tasks["lambada_openai"].r2_loss >= 0.97
    assert [task for task, f in reference.tasks.items() if f.reads_loss] == ["lambada_openai"]
    # By hand, with the input embedding counted on both sides, SmolLM2-135M (perplexity 56) has 0.68. Pythia's is not tied: without it
    # the 160M model has 124M and not 162M, and SmolLM2 keeps its 134.5M.
    base = reference.effective_params(task="lambada_openai", bpb=float(np.log2(56)), budget=Budget(tokens=1e12))
    assert base.value / 134.5e6 == pytest.approx(0.43, abs=0.06)
    assert base.extrapolated, "its runs end at 300B tokens"
    assert not reference.effective_params(task="lambada_openai", bpb=float(np.log2(56))).extrapolated


def test_pythias_output_embedding_counts_and_its_input_embedding_does_not():
    table = read_pythia()
    assert table.loc[table["size"] == "70m", "n"].iloc[0] * 1e9 == pytest.approx(18_915_328 + 50304 * 512, rel=1e-3)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_family_predicts_its_left_out_models_better_than_straight_lines_do(name):
    form = Reference.load(name).form
    assert form["curve"] < form["interpolated"]


OUTLIERS = {"qwen2.5": set(), "llama-1-2": {("Llama-1-33B", "GSM8K 5-shot")}}
"""15% in the table of Observational Scaling, beside 8% of the 7B and 37% of the 65B; with 8 examples Meta has 36% (Llama2-paper)."""


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_familys_own_models_lie_near_its_curves(name):
    reference = Reference.load(name)
    read = read_family(FAMILIES[name])
    assert read.tasks == tuple(reference.tasks)
    far = set()
    for task, row in zip(read.tasks, read.scores, strict=True):
        assert np.sum(~np.isnan(row)) >= MIN_MODELS, task
        for (model, _), size, tokens, score in zip(FAMILIES[name].models, read.n, read.d, row, strict=True):
            if abs(reference.predict(task, size * 1e9, tokens * 1e11)[1] - score) >= 0.1:
                far.add((model, task))
    assert far == OUTLIERS[name]


@pytest.mark.slow
@pytest.mark.parametrize(("irreducible", "name"), [(0.8, "E > 0"), (0.0, "E = 0")])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_form_that_the_losses_have_is_chosen(irreducible, name, seed):
    sizes, budgets = (0.2, 0.4, 0.8, 1.6, 3.2), (0.1, 0.3, 1.0, 3.0)
    table = pd.DataFrame([{"run": f"{n}-{d}", "size": str(n), "n": n, "d": d} for n in sizes for d in budgets])
    law = irreducible + 0.3 * table["n"] ** -0.5 + 0.2 * table["d"] ** -0.4
    table["loss"] = law * np.exp(np.random.default_rng(seed).normal(0, 0.002, len(table)))
    record, laws = choose_form(["t"], {"t": table})
    assert record["chosen"] == name
    assert (record["weight of E = 0"] > 0.5) == (name == "E = 0")
    assert {form: fitted.irreducible for form, fitted in laws.items()} == {"E > 0": True, "E = 0": False}
    assert laws["E > 0"].thetas[0, 0] >= laws["E = 0"].thetas[0, 0] == 0


def test_the_jacobians_are_right():
    """A fit from another start ends at the same coefficients, which a wrong Jacobian would not do."""
    rng = np.random.default_rng(0)
    shared = [np.log(0.4), np.log(0.2), np.log(0.3)]
    truth = np.array([[0.5, np.log(0.15), *shared], [0.9, np.log(0.1), *shared]])
    n, d = np.repeat([0.2, 0.4, 0.8, 1.6, 3.2], 6), 10 ** rng.uniform(-1.5, 1, 30)
    data = [(n, d, loss_law(theta, n, d)) for theta in truth]
    start = truth + rng.normal(0, 0.1, truth.shape)
    found = fit_losses(data, [np.ones(30)] * 2, np.full(2, 0.01), [start])
    np.testing.assert_allclose(found, truth, atol=1e-3)
    phi, loss = np.array([1.0, 5.0, 0.8, 0.25]), np.linspace(0.4, 1.6, 40)
    link = fit_link(loss, score_link(phi, loss), np.ones(40), [np.array([1.0, 3.0, 1.0, 0.2])])
    np.testing.assert_allclose(score_link(link, loss), score_link(phi, loss), atol=2e-3)


def test_a_law_without_different_budgets_has_no_data_term():
    n, d = np.array([0.2, 0.4, 0.8, 1.6, 3.2]), np.full(5, 3.0)
    found = fit_losses([(n, d, 0.5 + 0.3 * n**-0.4)], [np.ones(5)], np.array([0.01]), [np.array([[0.3, -1.0, -1.0, -2.0, -1.0]])])
    assert np.exp(found[0, 3]) < 1e-300
    np.testing.assert_allclose(loss_law(found[0], n, d), 0.5 + 0.3 * n**-0.4, rtol=1e-3)


def test_a_familys_largest_model_left_out_is_read_as_studies_read_it_and_ends_its_reach():
    """Qwen2.5-72B is worse than the other six make of it: it reads at 0.57, so the family is read up to 1.4 above its sizes, not 2.2."""
    read = read_family(FAMILIES["qwen2.5"])
    groups = sizes(read.n)
    assert [len(group) for group in groups] == [1] * 7
    distance, errors = next(left_out_errors(read, groups[::-1], fitted))
    assert distance == pytest.approx(71.46 / 31.99, rel=0.01)
    assert np.exp(errors) == pytest.approx([0.57], abs=0.02)
    assert Reference.load("qwen2.5").reach[1] == reach_of([(distance, errors)]).factor


def test_a_left_out_model_that_the_curves_cannot_read_misses_by_infinity():
    """Curves for models far larger give bounds for the measured and for the predicted scores of the smallest: no error of 0, and no NaN."""
    read = read_family(FAMILIES["qwen2.5"])
    reference = replace(Reference.load("qwen2.5"), parameters_range=(1e15, 1e16))
    assert family_error(read, 0, reference) == np.inf


def test_models_of_one_size_are_left_out_together():
    read = read_family(FAMILIES["llama-1-2"])
    assert [len(group) for group in sizes(read.n)] == [2, 2, 2, 2]


def test_every_shipped_reference_has_a_builder():
    assert set(fit.BUILDERS) == set(Reference.names()) == set(NAMES)
