"""Conditions: intervals and margins, Holm's correction against published examples, verdicts."""

import numpy as np
import pytest
from scipy import stats

from experiments.claims.conditions import Condition, above, close, exact, holm, judge, verdict, within

EFFECT = np.array([0.8, 1.3, 0.9, 1.4, 1.1])


def result(condition: Condition) -> str:
    return judge([condition])[0].result


def with_p(p: float, freedom: int = 10) -> Condition:
    """Return a condition whose uncorrected two-sided p-value is `p`."""
    effect = float(stats.t.isf(p / 2, freedom))
    return Condition("paper", "", effect, 1.0, freedom, least=0.0, margin=effect)


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # Wikipedia, Holm-Bonferroni method
        ([0.01, 0.02, 0.03, 0.04], [0.04, 0.06, 0.06, 0.06]),  # R: p.adjust(c(.01, .02, .03, .04), "holm")
        ([0.4, 0.9], [0.8, 0.9]),
        ([0.6, 0.9], [1.0, 1.0]),
        ([], []),
    ],
)
def test_holm_of_known_examples(p, adjusted):
    np.testing.assert_allclose(holm(p), adjusted)


def test_the_example_that_is_adjusted_is_judged_so():
    judged = judge([with_p(p) for p in (0.01, 0.04, 0.03, 0.005)])
    assert [j.result for j in judged] == ["holds", "undecided", "undecided", "holds"]
    np.testing.assert_allclose([j.p for j in judged], [0.03, 0.06, 0.06, 0.02])


def test_interval_is_students_at_the_level_of_the_family():
    ours = judge([above("", EFFECT, margin=0.5), with_p(0.9)])[0]
    half = stats.t.ppf(1 - 0.025 / 2, 4) * stats.sem(EFFECT)
    np.testing.assert_allclose((ours.condition.estimate, ours.half), (EFFECT.mean(), half))
    np.testing.assert_allclose(ours.p, 2 * stats.ttest_1samp(EFFECT, 0).pvalue)


def test_p_is_that_of_the_result_and_not_of_an_effect_less_than_is_of_interest():
    # 8 standard errors below the effect of interest, 3 above 0: "holds" has p = .017, not p < .001.
    small = Condition("paper", "", 0.3, 0.1, 8, least=0.0, margin=1.1)
    judged = judge([small])[0]
    assert judged.result == "holds"
    np.testing.assert_allclose(judged.p, 2 * stats.t.sf(3, 8))
    beside = judge([small, with_p(0.9), with_p(0.9)])[0]  # does not hold at a third of the level
    assert beside.result == "does not hold"
    np.testing.assert_allclose(beside.p, 6 * stats.t.sf(8, 8))


def test_two_met_conditions_of_four_do_not_survive():
    # p = .014 and .019 among four, the case of a scheduled radius.
    assert verdict([with_p(p) for p in (0.014, 0.019, 0.5, 0.9)]) == "undecided here"


@pytest.mark.parametrize(
    ("shift", "margin", "expected"),
    [
        (0.0, 0.5, "holds"),
        (-1.1, 1.0, "does not hold"),  # the interval contains 0 and lies below the margin
        (-0.9, 0.3, "undecided"),  # the interval contains 0 and the margin
        (-2.0, 0.3, "does not hold"),
    ],
)
def test_result_by_interval_and_margin(shift, margin, expected):
    assert result(above("", EFFECT + shift, margin=margin)) == expected


def test_no_loss_is_shown_and_not_assumed():
    assert result(within("", EFFECT - 1.1, 0.0, margin=1.0)) == "holds"
    assert result(within("", 3 * (EFFECT - 1.1), 0.0, margin=0.5)) == "undecided"
    assert result(within("", EFFECT - 4, 0.0, margin=1.0)) == "does not hold"


def test_close_is_shown_on_either_side():
    assert [result(close("", EFFECT, at, tolerance=0.5)) for at in (1.1, 1.2, 1.6, 3.0)] == [
        *("holds", "holds", "undecided", "does not hold")
    ]


def test_exact_value_has_no_width_and_costs_the_others_nothing():
    assert [result(exact("", value)) for value in (1.0, 0.0, -1.0)] == ["holds", "does not hold", "does not hold"]
    alone, beside = judge([with_p(0.04)])[0], judge([exact("", 1.0), with_p(0.04)])[1]
    assert alone == beside
    assert "exact" in judge([exact("", 1.0)])[0].numbers


@pytest.mark.parametrize(
    ("effect", "said"), [([1.0], "no interval"), ([1.0, float("nan"), 2.0], "1 of 3 seeds diverged")]
)
def test_one_seed_or_a_diverged_one_of_three_decides_nothing(effect, said):
    judged = judge([above("", effect, margin=0.5)])[0]
    assert judged.result == "undecided"
    assert said in judged.numbers


def test_verdict_follows_from_the_papers_conditions_alone():
    yes, no, unknown = exact("", 1.0), exact("", -1.0), with_p(0.9)
    besides = exact("", -1.0, kind="extra")
    cases = {
        "holds here": [yes, yes, besides],
        "holds partly": [yes, no],
        "does not hold here": [no, no, besides._replace(estimate=1.0)],
        "undecided here": [no, unknown],
    }
    assert {name: verdict(conditions) for name, conditions in cases.items()} == {name: name for name in cases}
    assert verdict([yes, unknown]) == "holds partly"
    assert verdict([]) == verdict([besides]) == "undecided here"


def test_numbers_say_what_was_asked():
    numbers = judge([above("", EFFECT, margin=2.0, unit="points")])[0].numbers
    assert numbers == "1.1 ± 0.32 points, less than is of interest; asked: above 0, of interest from 2; p < 0.001"


def test_seeds_at_which_a_run_diverged_are_left_out_while_they_are_few():
    values = [1.0, 1.1, 0.9, 1.2, 1.0, 0.8, 1.1, 0.9, 1.0, np.nan]
    (few,) = judge([above("x", values, margin=0.5)])
    (without,) = judge([above("x", values[:-1], margin=0.5)])
    assert (few.result, few.p) == (without.result, without.p) == ("holds", few.p)
    assert few.numbers.endswith("1 of 10 seeds diverged")
    (many,) = judge([above("x", [*values[:8], np.inf, np.nan], margin=0.5)])
    assert many.result == "undecided"
    assert many.numbers == "2 of 10 seeds diverged; asked: above 0, of interest from 0.5"


def test_an_exact_value_that_is_not_known_decides_nothing():
    judged = judge([exact("operations", float("nan"), 1.25)])[0]
    assert (judged.result, judged.numbers) == ("undecided", "asked: above 1.25")


def test_numbers_say_what_a_loss_is_and_what_is_exact():
    lost = within("", EFFECT - 1.5, 0.0, margin=1.0)
    assert judge([lost])[0].numbers == "-0.4 ± 0.32, a loss; asked: above -1, 0 is no loss; p = 0.0062"
    same = above("", [0.05, 0.05], margin=0.0)
    assert judge([same])[0].numbers == "0.05; asked: above 0; the same at every seed"
    assert judge([exact("", 1.2464, 1.25)])[0].numbers == "1.246; asked: above 1.25; exact"
