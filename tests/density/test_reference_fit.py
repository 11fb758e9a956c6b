"""The fit of the default reference: it reproduces its file, explains the ladder, and predicts runs that it never saw."""

import numpy as np
import pytest

from compresslab.density import Reference, fit


@pytest.fixture(scope="module")
def built():
    return fit.build(resamples=3)


def test_the_shipped_file_is_what_the_code_gives(built):
    shipped = Reference.load("olmo-ladder")
    assert list(shipped.tasks) == list(built["tasks"])
    for task, entry in built["tasks"].items():
        np.testing.assert_allclose(shipped.tasks[task].loss[:4], [entry["loss"], *entry["loss_resamples"]], rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(shipped.tasks[task].score[:4], [entry["score"], *entry["score_resamples"]], rtol=5e-3, atol=2e-3)
        assert shipped.tasks[task].r2_bpb == pytest.approx(entry["r2_bpb"], abs=1e-4)
        assert shipped.tasks[task].held_out.keys() == {"peteish1", "peteish7", "peteish13"}


def test_two_hundred_resamples_ship():
    assert Reference.load("olmo-ladder").resamples == 200


def test_it_explains_the_loss_of_all_seven_tasks():
    reference = Reference.load("olmo-ladder")
    assert len(reference.tasks) == 7
    assert {task: f.r2_bpb for task, f in reference.tasks.items() if f.r2_bpb < 0.98} == {}
    assert {task: f.r2_score for task, f in reference.tasks.items() if f.r2_score < 0.95} == {}


def test_it_predicts_the_long_runs_that_stayed_out():
    held = [run for f in Reference.load("olmo-ladder").tasks.values() for run in f.held_out.values()]
    losses = np.abs([run["bpb_error"] for run in held])
    assert len(losses) == 21
    assert np.median(losses) <= 0.035
    assert losses.max() <= 0.12


def test_the_long_runs_do_not_enter_the_fit():
    reference = Reference.load("olmo-ladder")
    assert reference.parameters_range == pytest.approx((190354176, 3169537280))
    assert reference.tokens_range[1] == pytest.approx(633939689472)


def test_its_own_models_come_out_near_density_one():
    reference, table = Reference.load("olmo-ladder"), fit.read_ladder()
    finals = table[table["final"] & ~table["long"]]
    logs: dict[str, list[float]] = {}
    for row in finals.itertuples():
        n_hat = reference.effective_params(task=row.task, bpb=row.bpb, tokens=row.d * 1e11)
        logs.setdefault(row.run, []).append(np.log(n_hat.value / (row.n * 1e9)))
    densities = np.exp([np.mean(of_run) for of_run in logs.values()])
    assert np.median(densities) == pytest.approx(1, abs=0.07)
    assert np.all((densities > 0.6) & (densities < 1.7))


def test_the_jacobians_are_right():
    """A fit from another start ends at the same coefficients, which a wrong Jacobian would not do."""
    rng = np.random.default_rng(0)
    shared = [np.log(0.4), np.log(0.2), np.log(0.3)]
    truth = np.array([[0.5, np.log(0.15), *shared], [0.9, np.log(0.1), *shared]])
    n, d = np.repeat([0.2, 0.4, 0.8, 1.6, 3.2], 6), 10 ** rng.uniform(-1.5, 1, 30)
    data = [(n, d, fit.loss_law(theta, n, d)) for theta in truth]
    start = truth + rng.normal(0, 0.1, truth.shape)
    found = fit.fit_losses(data, [np.ones(30)] * 2, np.full(2, 0.01), [start])
    np.testing.assert_allclose(found, truth, atol=1e-3)
    phi, bpb = np.array([0.9, 5.0, 0.8, 0.25]), np.linspace(0.4, 1.6, 40)
    link = fit.fit_link(bpb, fit.score_link(phi, bpb), np.ones(40), [np.array([1.0, 3.0, 1.0, 0.2])])
    np.testing.assert_allclose(fit.score_link(link, bpb), fit.score_link(phi, bpb), atol=2e-3)
