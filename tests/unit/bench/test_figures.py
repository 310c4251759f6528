"""The figures that stand for a list of samples."""

from __future__ import annotations

import pytest

from capsule_bench.figures import median, milliseconds, p99, per_second, times_better


def test_the_median_of_an_even_number_of_samples_lies_between_the_middle_two() -> None:
    assert median([4, 1, 3, 2]) == 2.5


@pytest.mark.parametrize(("count", "wanted"), [(1, 1), (99, 99), (100, 99), (200, 198), (201, 199), (1000, 990)])
def test_p99_is_the_nearest_rank(count: int, wanted: float) -> None:
    assert p99(range(count, 0, -1)) == wanted


def test_p99_is_at_the_bad_end_also_where_higher_is_better() -> None:
    assert p99(range(1, 101), higher_is_better=True) == 2


@pytest.mark.parametrize("figure", [median, p99])
def test_no_samples_have_no_figure(figure: object) -> None:
    assert callable(figure)
    with pytest.raises(ValueError, match="no values"):
        figure([])


def test_the_ratio_is_above_one_for_the_better_of_the_two() -> None:
    assert times_better(0.5, 2.0, higher_is_better=False) == 4.0
    assert times_better(3000, 300, higher_is_better=True) == 10.0
    assert times_better(2.0, 0.5, higher_is_better=False) == 0.25


def test_samples_are_made_of_seconds() -> None:
    assert milliseconds(0.25) == 250
    assert per_second(100)(0.5) == 200
