"""Reading a size off the loss law where the tokens grow with the size."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from compresslab.density import Reference
from compresslab.density.references.laws import D_UNIT, N_UNIT, NO_DATA_TERM, ln_n_along, ln_n_of_loss, loss_law

LADDER = Reference.load("olmo-ladder")
THETAS = st.tuples(
    st.floats(0, 2),
    st.floats(-4, 2),
    st.floats(np.log(0.05), np.log(2)),
    st.floats(-4, 2),
    st.floats(np.log(0.05), np.log(2)),
).map(np.array)
NO_OFFSET = np.array([0.0, np.log(0.5), np.log(0.2), np.log(0.3), np.log(0.25)])


def along(theta, n, per_parameter):
    """The loss of a model of n (1e9) parameters with so many tokens for each."""
    n = np.asarray(n, dtype=np.float64)
    return loss_law(theta, n, per_parameter * n * N_UNIT / D_UNIT)


@given(task=st.sampled_from(sorted(LADDER.tasks)), n=st.floats(1e-3, 1e3), per_parameter=st.floats(1, 1e4))
def test_the_size_whose_loss_a_ladder_predicts_is_read_again(task, n, per_parameter):
    theta = LADDER.tasks[task].loss[0]
    assert ln_n_along(theta, along(theta, n, per_parameter), per_parameter) == pytest.approx(np.log(n), abs=1e-6)


@given(theta=THETAS, n=st.floats(1e-4, 1e4), per_parameter=st.floats(1e-2, 1e5))
def test_at_the_size_that_is_read_the_law_has_the_loss(theta, n, per_parameter):
    loss = along(theta, n, per_parameter)
    assume(loss - theta[0] > 1e-9)
    read = ln_n_along(theta, loss, per_parameter)
    assert along(theta, np.exp(read), per_parameter) == pytest.approx(loss, rel=1e-10)


def test_every_fit_is_read_with_its_own_loss():
    thetas = LADDER.tasks["piqa"].loss[:5]
    losses = np.array([along(theta, n, 200.0) for theta, n in zip(thetas, (0.1, 0.3, 1.0, 3.0, 9.0), strict=True)])
    np.testing.assert_allclose(ln_n_along(thetas, losses, 200.0), np.log([0.1, 0.3, 1.0, 3.0, 9.0]), atol=1e-8)
    apart = [float(ln_n_along(theta, np.array(0.9), 200.0)) for theta in thetas]
    np.testing.assert_allclose(ln_n_along(thetas, np.array(0.9), 200.0), apart, atol=1e-12)


def test_a_loss_at_or_below_the_irreducible_one_is_reached_by_no_size():
    theta = np.array([0.4, np.log(0.2), np.log(0.4), np.log(0.1), np.log(0.3)])
    assert np.all(np.isposinf(ln_n_along(theta, np.array([0.4, 0.3, 0.0, -1.0, -np.inf]), 200.0)))
    assert np.isfinite(ln_n_along(theta, np.array(0.41), 200.0))


def test_an_endless_loss_is_that_of_no_size_at_all():
    """A score at or below chance has such a loss."""
    assert np.isneginf(ln_n_along(NO_OFFSET, np.array(np.inf), 200.0))
    mixed = ln_n_along(NO_OFFSET, np.array([np.inf, 0.8, -np.inf]), 200.0)
    assert np.isneginf(mixed[0])
    assert np.isfinite(mixed[1])
    assert np.isposinf(mixed[2])


def test_a_law_without_a_data_term_does_not_depend_on_the_tokens():
    theta = np.array([0.3, np.log(0.4), np.log(0.3), NO_DATA_TERM, np.log(0.3)])
    losses = np.array([0.31, 0.5, 0.9, 4.0])
    for per_parameter in (0.1, 200.0, 1e6):
        np.testing.assert_allclose(ln_n_along(theta, losses, per_parameter), ln_n_of_loss(theta, losses, 1.0), rtol=1e-12)


@pytest.mark.parametrize("exponents", [(0.2, 0.25), (0.02, 3.0), (3.0, 0.02)])
def test_without_an_offset_a_loss_near_nothing_is_read_or_reached_by_no_size(exponents):
    """Warnings are errors here: no power may leave the range of floating point."""
    theta = np.array([0.0, np.log(0.5), np.log(exponents[0]), np.log(0.3), np.log(exponents[1])])
    read = ln_n_along(theta, np.array([1e-3, 1e-8, 1e-11, 1e-13, 1e-300, 0.0]), 200.0)
    assert np.all(np.isfinite(read[:3]))
    assert np.all(np.diff(read[:3]) > 0)
    assert np.all(np.isposinf(read[3:]))


@given(theta=THETAS, losses=st.lists(st.floats(0, 50), min_size=2, max_size=6), per_parameter=st.floats(1, 1e4))
def test_a_higher_loss_never_reads_as_a_larger_size(theta, losses, per_parameter):
    read = ln_n_along(theta, np.array(sorted(losses)), per_parameter)
    assert not np.any(np.isnan(read))
    assert all(after <= before + 1e-9 for before, after in itertools.pairwise(read))


@given(theta=THETAS, n=st.floats(1e-2, 1e2))
def test_more_tokens_a_parameter_make_a_smaller_model_enough(theta, n):
    loss = along(theta, n, 20.0)
    assume(loss - theta[0] > 1e-6)
    assert ln_n_along(theta, loss, 200.0) <= ln_n_along(theta, loss, 20.0) + 1e-9
