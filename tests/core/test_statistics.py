"""Intervals and p-values of few values against scipy and by hand."""

import pytest
from scipy import stats

from mapnet_cli.core.statistics import bootstrap_interval, holm, permutation_test, t_interval, t_test

VALUES = (1.2, 0.4, 2.2, 1.9)


def test_student_matches_scipy() -> None:
    expected = stats.ttest_1samp(VALUES, 0)
    assert t_interval(VALUES) == pytest.approx(tuple(expected.confidence_interval()))
    assert t_test(VALUES) == pytest.approx(expected.pvalue)
    assert (t_test((2.0, 2.0, 2.0)), t_test((0.0, 0.0, 0.0))) == (0.0, 1.0)


def test_resampling_needs_no_normal_distribution() -> None:
    low, high = bootstrap_interval(VALUES) or (0.0, 0.0)
    assert 0.4 < low < sum(VALUES) / 4 < high < 2.2
    assert bootstrap_interval(VALUES) == (low, high), "repeatable"
    assert permutation_test(VALUES) == pytest.approx(2 / 2**4), "all signs alike"


@pytest.mark.parametrize("function", [t_interval, t_test, bootstrap_interval, permutation_test])
def test_two_values_are_too_few(function: object) -> None:
    assert callable(function) and function((1.0, 2.0)) is None


def test_holm_corrects_for_the_tests_that_were_made() -> None:
    assert holm([0.01, None, 0.04, 0.03]) == [pytest.approx(0.03), None, pytest.approx(0.06), pytest.approx(0.06)]
    assert holm([]) == []
