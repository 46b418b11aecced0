from __future__ import annotations

import numpy as np
import pytest

from scdrugmap.errors import InvalidInput
from scdrugmap.prediction.reference.novelty import NOVELTY_THRESHOLD, Novelty, fit_novelty
from scdrugmap.prediction.reference.sampling import balanced_sample, share_equally


def cloud(n: int, dim: int = 16, centre: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(centre, 1.0, (n, dim)).astype(np.float32)


@pytest.fixture(scope="module")
def fitted() -> Novelty:
    samples = np.arange(900) % 6
    return fit_novelty(cloud(900), samples, np.zeros(900), seed=0, points=300)


def test_cells_like_the_reference_are_rarely_flagged(fitted):
    novelty = fitted.score(cloud(2000, seed=1))
    assert novelty.dtype == np.float32
    assert 0.4 < novelty.mean() < 0.6
    assert fitted.flag(novelty).mean() == pytest.approx(1 - NOVELTY_THRESHOLD, abs=0.025)


def test_cells_far_away_are_flagged(fitted):
    novelty = fitted.score(cloud(100, centre=6.0))
    np.testing.assert_array_equal(novelty, 1.0)
    assert fitted.flag(novelty).all()


def test_distance_grows_with_the_shift_and_ignores_row_order(fitted):
    cells = cloud(50, seed=2)
    shifts = [fitted.distance(cells + shift).mean() for shift in (0.0, 1.0, 2.0, 4.0)]
    assert shifts == sorted(shifts)
    order = np.random.default_rng(0).permutation(50)
    np.testing.assert_allclose(fitted.distance(cells)[order], fitted.distance(cells[order]), rtol=1e-5)


def test_a_new_sample_that_was_held_out_is_the_yardstick():
    # Three tight samples far apart: by cell nothing would be novel, by sample every one of them is.
    centres = np.repeat([0.0, 20.0, 40.0], 100)
    cells = cloud(300) * 0.1 + centres[:, None].astype(np.float32)
    by_sample = fit_novelty(cells, centres, np.zeros(300), seed=0)
    by_cell = fit_novelty(cells, np.arange(300), np.zeros(300), seed=0)
    assert by_sample.quantiles[0] > by_cell.quantiles[-1]


def test_one_large_study_does_not_set_the_scale():
    cells = np.concatenate([cloud(2000) * 0.1, cloud(100, seed=3) * 3])
    studies = np.repeat(["large", "small"], [2000, 100])
    fitted = fit_novelty(cells, np.arange(2100) % 20, studies, seed=0, points=200)
    assert 0.45 < fitted.score(cells[:2000]).max() < 0.6  # half of the weight is the small study's
    assert len(fitted.points) == 200


def test_stored_state_gives_the_same_scores(fitted):
    again = Novelty.from_state(fitted.state(), fitted.neighbours, fitted.threshold)
    cells = cloud(40, seed=4)
    np.testing.assert_array_equal(again.score(cells), fitted.score(cells))


def test_a_constant_dimension_does_no_harm():
    cells = cloud(60)
    cells[:, 3] = 2.5
    assert np.isfinite(fit_novelty(cells, np.arange(60) % 3, np.zeros(60), seed=0).score(cells)).all()


@pytest.mark.parametrize("n", [2, 3, 11])
def test_a_tiny_reference_works(n):
    cells = cloud(n)
    novelty = fit_novelty(cells, np.zeros(n), np.zeros(n), seed=0).score(cloud(5, seed=5))
    assert np.all((novelty >= 0) & (novelty <= 1))


def test_what_cannot_be_used_is_refused(fitted):
    with pytest.raises(InvalidInput, match="two cells or more"):
        fit_novelty(cloud(1), np.zeros(1), np.zeros(1), seed=0)
    with pytest.raises(InvalidInput, match="16 dimensions"):
        fitted.distance(cloud(3, dim=5))
    with pytest.raises(InvalidInput, match="not usable"):
        Novelty.from_state({**fitted.state(), "centre": np.zeros(3, np.float32)}, 10, NOVELTY_THRESHOLD)


def test_no_cells_give_no_scores(fitted):
    assert fitted.score(np.empty((0, 16), np.float32)).shape == (0,)


def test_shares_are_equal_and_what_is_left_goes_to_others():
    groups = np.repeat(["a", "b", "c"], [5, 100, 100])
    drawn = share_equally(groups, 65, np.random.default_rng(0))
    assert len(set(drawn)) == 65
    assert {name: int((groups[drawn] == name).sum()) for name in "abc"} == {"a": 5, "b": 30, "c": 30}
    assert len(share_equally(groups, 10_000, np.random.default_rng(0))) == 205


def test_a_balanced_sample_has_both_classes_equally():
    resistant = np.array([True] * 1000 + [True] * 50 + [False] * 60)
    studies = np.repeat(["one-class", "two-class"], [1000, 110])
    chosen = balanced_sample(resistant, studies, seed=0)
    assert resistant[chosen].sum() == 60
    assert (~resistant[chosen]).sum() == 60
    assert (studies[chosen[resistant[chosen]]] == "one-class").sum() == 30
    np.testing.assert_array_equal(chosen, balanced_sample(resistant, studies, seed=0))
    assert len(balanced_sample(resistant, studies, seed=0, max_per_class=7)) == 14
