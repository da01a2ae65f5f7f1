"""The verdict's table: every row with numbers on both sides of its bound."""

from __future__ import annotations

from typing import Any

import pytest

from pymixunlearn.evaluation.intervals import wilson
from pymixunlearn.reporting import verdict
from pymixunlearn.reporting.evidence import Difference, Evidence, Measured, combined, evidence
from pymixunlearn.reporting.verdict import ENOUGH_SAMPLES, MARGIN, ROWS, judge

Spans = dict[str, Measured]
PAPER_DATA = ("train_r", "train_f", "test", "asr", "mia_loss")


def span(value: float, below: float = 0.0, above: float = 0.0, samples: int | None = 1000) -> Measured:
    """A measurement whose interval reaches so far below its value and above it."""
    return Measured(value, value - below, value + above, samples)


def exact(**values: float) -> Spans:
    return {key: span(value) for key, value in values.items()}


def counted(samples: int = 10_000, **values: float) -> Spans:
    return {key: Measured(value, *wilson(value, samples), samples) for key, value in values.items()}


RETRAIN = exact(test_r=97.0, test_f=0.0, asr=30.0, mia_loss=55.0)
INITIAL = exact(test_r=97.5, test_f=98.0, asr=60.0, mia_loss=75.0)


def found(unlearned: Spans | None = None, /, **changes: Any) -> Evidence:
    """Evidence of a run that made a class forget; by default the unlearned model is Retrain."""
    values: dict[str, Any] = {
        "seed": 0,
        "unchanged": False,
        "forgotten": 500,
        "initial": INITIAL,
        "unlearned": RETRAIN if unlearned is None else {**RETRAIN, **unlearned},
        "retrain": RETRAIN,
        **changes,
    }
    return Evidence(**values)


def decision(evidence: Evidence) -> str:
    return judge(evidence).decision


def headline(evidence: Evidence) -> str:
    return judge(evidence).sentences[0]


# The statistics below the table.


def test_a_difference_takes_of_each_interval_the_side_that_can_move_it() -> None:
    difference = combined((1, Measured(80, 77, 84)), (-1, Measured(70, 68, 75)))
    assert difference == pytest.approx((10, 10 - (3**2 + 5**2) ** 0.5, 10 + (4**2 + 2**2) ** 0.5))
    assert combined((2, Measured(10, 9, 13))) == (20, 18, 26)


@pytest.mark.parametrize(
    ("difference", "measurable", "within", "beyond"),
    [
        (Difference(1, 0.1, 5.0), True, True, False),
        (Difference(1, 0.0, 5.1), False, False, False),
        (Difference(-1, -5.0, -0.1), True, True, False),
        (Difference(-1, -5.1, 0.0), False, False, False),
        (Difference(0, -5.0, 5.0), False, True, False),
        (Difference(6, 5.0, 7.0), True, False, False),
        (Difference(6, 5.1, 7.0), True, False, True),
        (Difference(-6, -7.0, -5.0), True, False, False),
        (Difference(-6, -7.0, -5.1), True, False, True),
    ],
)
def test_what_an_interval_shows(difference: Difference, measurable: bool, within: bool, beyond: bool) -> None:
    assert (difference.measurable, difference.within(5), difference.beyond(5)) == (measurable, within, beyond)


def test_so_many_samples_can_just_show_that_a_metric_is_within_the_margin() -> None:
    def apart(samples: int) -> Difference:
        none = Measured(0.0, *wilson(0.0, samples), samples)
        return combined((1, none), (-1, none))

    assert apart(ENOUGH_SAMPLES).within(MARGIN) and not apart(ENOUGH_SAMPLES - 1).within(MARGIN)


@pytest.mark.parametrize(
    ("initial", "unlearned", "retrain", "change"),
    [
        # Both on one side of Retrain: its own error cancels.
        (span(90, 1, 2), span(60, 3, 4), span(50, 9, 9), (-30, -30 - (3**2 + 2**2) ** 0.5, -30 + (4**2 + 1**2) ** 0.5)),
        (span(10, 1, 2), span(40, 3, 4), span(50, 9, 9), (-30, -30 - (4**2 + 1**2) ** 0.5, -30 + (3**2 + 2**2) ** 0.5)),
        # On two sides, it counts twice.
        (
            span(90, 1, 2),
            span(40, 3, 4),
            span(50, 5, 6),
            (-30, -30 - (4**2 + 2**2 + 10**2) ** 0.5, -30 + (9 + 1 + 144) ** 0.5),
        ),
        (
            span(10, 1, 2),
            span(60, 3, 4),
            span(50, 5, 6),
            (-30, -30 - (3**2 + 1**2 + 12**2) ** 0.5, -30 + (16 + 4 + 100) ** 0.5),
        ),
        (span(90, 1, 2), span(50, 3, 4), span(50, 9, 9), (-40, -40 - (3**2 + 2**2) ** 0.5, -40 + (4**2 + 1**2) ** 0.5)),
        (span(50, 1, 2), span(50, 3, 4), span(50, 9, 9), (0, -((3**2 + 2**2) ** 0.5), (4**2 + 1**2) ** 0.5)),
    ],
)
def test_the_change_of_a_gap_has_an_interval_of_its_own(
    initial: Measured, unlearned: Measured, retrain: Measured, change: tuple[float, float, float]
) -> None:
    run = found(initial={"asr": initial}, unlearned={"asr": unlearned}, retrain={"asr": retrain})
    assert run.changes_of_gap() == {"asr": pytest.approx(change)}


def test_gaps_change_only_where_all_three_models_were_measured() -> None:
    assert found(retrain=None).changes_of_gap() == {}
    assert list(found(initial=exact(asr=50.0)).changes_of_gap()) == ["asr"]


# The rows.


def test_unchanged_weights_have_forgotten_nothing() -> None:
    run = found(INITIAL, unchanged=True)
    assert decision(run) == "unchanged" and "Nothing was unlearned" in headline(run)
    assert len(judge(run).sentences) == 2 and not any("closer" in text for text in judge(run).sentences)
    assert decision(found(INITIAL, unchanged=False)) != "unchanged"
    # Whatever else there is to say: no Retrain, few samples.
    assert decision(found(unchanged=True, retrain=None, forgotten=1)) == "unchanged"


def test_without_retrain_nothing_is_judged() -> None:
    run = found(exact(test_f=3.0), retrain=None)
    assert decision(run) == "without Retrain"
    assert "Test_f went from 98.0 to 3.0 %" in headline(run) and "MIA" not in headline(run)
    assert "guessing gives 50 % but a retrained model need not" in judge(run).sentences[1]
    assert decision(found(retrain=RETRAIN)) != "without Retrain"


@pytest.mark.parametrize(
    ("test_r", "lost"),
    [
        (span(34.0, 5, 5), True),
        (span(90.0, 3, 1.9), True),
        (span(90.0, 3, 2.0), False),  # 5 points less are possible
        (span(104.0, 1, 1), False),  # more is no loss, though it is not like Retrain
    ],
)
def test_utility_lost(test_r: Measured, lost: bool) -> None:
    run = found({"test_r": test_r})
    assert (decision(run) == "utility lost") is lost
    if lost:
        assert f"Test_r is {test_r.value:.1f} % and Retrain's 97.0 %" in headline(run)


def test_a_destroyed_model_is_not_told_that_it_came_closer() -> None:
    run = found(counted(test_r=34.0, test_f=0.0, asr=31.0, mia_loss=54.0))
    assert decision(run) == "utility lost"
    assert "lost what it should keep: Test_r is 34.0 % and Retrain's 97.0 %" in headline(run)
    assert "farther in Test_r" in judge(run).sentences[1]
    # However few samples were forgotten, this can be seen.
    assert decision(found(counted(test_r=34.0), forgotten=1)) == "utility lost"
    assert decision(found(counted(test=34.0), retrain=counted(test=97.0), initial=counted(test=97.0))) == "utility lost"


@pytest.mark.parametrize(
    ("acceptance", "decided", "told"),
    [
        (None, "equivalent", None),
        ({"decision": "refused", "reason": "Distance 0.250."}, "refused", "test refuses it. Distance 0.250."),
        ({"decision": "accepted", "reason": "Distance 0.050."}, "equivalent", "test accepts it. Distance 0.050."),
        ({"decision": "cannot tell", "reason": "Too few."}, "equivalent", "test cannot tell. Too few."),
    ],
)
def test_the_acceptance_test_has_a_row(acceptance: dict[str, Any] | None, decided: str, told: str | None) -> None:
    given = judge(found(acceptance=acceptance))
    assert given.decision == decided
    assert sum("acceptance test" in sentence for sentence in given.sentences) == (told is not None)
    assert told is None or any(told in sentence for sentence in given.sentences)


@pytest.mark.parametrize("change", [{"retrain": None}, {}], ids=["without Retrain", "decides itself"])
def test_a_refusal_is_said_once_also_where_another_finding_comes_first(change: dict[str, Any]) -> None:
    sentences = judge(found(acceptance={"decision": "refused", "reason": "It is seen."}, **change)).sentences
    assert sum("The acceptance test refuses it. It is seen." in sentence for sentence in sentences) == 1


@pytest.mark.parametrize(("forgotten", "few"), [(1, True), (9, True), (10, False), (None, False)])
def test_too_few_forgotten_samples(forgotten: int | None, few: bool) -> None:
    run = found(forgotten=forgotten)
    assert (decision(run) == "too few") is few
    if few:
        assert f"only {forgotten} of the samples" in headline(run) and "At least 10 are needed" in headline(run)
        assert f"at least {ENOUGH_SAMPLES} to show" in headline(run)


@pytest.mark.parametrize(
    ("metric", "value", "refuted"),
    [
        ("asr", span(40.0, 4.9, 5), True),
        ("asr", span(40.0, 5.0, 5), False),
        ("asr", span(20.0, 5, 4.9), True),
        ("asr", span(20.0, 5, 5.0), False),
        ("test_f", span(7.0, 1.9, 5), True),
        ("mia_loss", span(45.0, 5, 4.9), True),
        ("test_r", span(103.0, 0.9, 1), True),
    ],
)
def test_refuted(metric: str, value: Measured, refuted: bool) -> None:
    run = found({metric: value})
    assert decision(run) == ("refuted" if refuted else "not shown")
    assert {"asr": "ASR", "test_f": "Test_f", "mia_loss": "MIA loss", "test_r": "Test_r"}[metric] in headline(run)
    assert "95 % interval" in headline(run)


def samples_task(mine: dict[int, Measured], theirs: dict[int, Measured], **changes: Any) -> Evidence:
    retrain = exact(**dict.fromkeys(PAPER_DATA, 80.0))
    initial = exact(**{**dict.fromkeys(PAPER_DATA, 80.0), "train_f": 99.0})
    return found(initial=initial, unlearned=retrain, retrain=retrain, unlearned_classes=mine, retrain_classes=theirs)


@pytest.mark.parametrize(
    ("mine", "decided"),
    [
        (span(83.0, 3, 3), "refuted"),
        (span(30.1, 0, 0), "refuted"),
        (span(30.0, 0, 0), "not shown"),
        (span(25.1, 0, 0), "not shown"),  # measurable, which equivalence must not be claimed beside
        (span(25.1, 0.1, 0), "equivalent"),
        (span(19.9, 0, 0), "refuted"),
        (span(50.0, 40, 40), "equivalent"),
    ],
)
def test_single_classes_are_part_of_the_decision(mine: Measured, decided: str) -> None:
    run = samples_task({0: span(70.0), 3: mine}, {0: span(70.0), 3: span(25.0)})
    assert decision(run) == decided
    text = f"the test accuracy of class 3 is {mine.value:.1f} % and Retrain's 25.0 %"
    assert (text in headline(run)) is (decided != "equivalent") and "class 0" not in headline(run)


def test_of_many_classes_the_worst_are_named() -> None:
    mine, theirs = ({index: span(value) for index in range(6)} for value in (50.0, 90.0))
    run = samples_task({**mine, 4: span(10.0)}, {**theirs, 9: span(0.0)})
    assert headline(run).count("the test accuracy of class") == 3 and "likewise 3 more classes" in headline(run)
    assert headline(run).index("class 4") < headline(run).index("class 0")
    assert "likewise" not in headline(samples_task(dict(list(mine.items())[:3]), theirs))
    assert headline(samples_task(dict(list(mine.items())[:4]), theirs)).count("likewise 1 more classes") == 1


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({}, True),  # nothing differs at all
        ({"asr": span(31.0, 1.0, 2)}, True),  # explained by the draw
        ({"asr": span(31.0, 0.9, 2)}, True),  # measurable, but within the margin like everything else
        ({"asr": span(35.0, 0.9, 0)}, True),
        ({"asr": span(35.1, 0.9, 0)}, False),  # measurable, and it would not pass
        ({"mia_loss": span(49.0, 2, 5.9)}, False),
        ({"mia_loss": span(49.0, 2, 6.0)}, True),
        ({"asr": span(31.0, 0.9, 2), "test_r": span(92.0, 0.1, 0)}, False),
    ],
)
def test_nothing_is_shown_where_the_model_that_forgot_nothing_passes_too(change: Spans, shown: bool) -> None:
    run = found(initial={**RETRAIN, **change})
    assert decision(run) == ("nothing can be shown" if shown else "equivalent")
    if shown:
        assert "the model that forgot nothing passes too" in headline(run) and "95 % interval" in headline(run)


def test_a_good_test_accuracy_of_the_initial_model_does_not_tell_it_from_retrain() -> None:
    run = found(initial={**RETRAIN, "test_r": span(60.0)})
    assert decision(run) == "nothing can be shown" and "Test_r" not in headline(run)


@pytest.mark.parametrize(
    ("value", "equivalent"),
    [(span(32.0, 7, 3.0), True), (span(32.0, 7, 3.1), False), (span(32.0, 7.1, 3.0), False)],
)
def test_equivalence_takes_the_whole_interval(value: Measured, equivalent: bool) -> None:
    run = found({"asr": value})
    assert decision(run) == ("equivalent" if equivalent else "not shown")
    assert "ASR (+2.0 points, 95 % interval" in headline(run)
    # Metrics that are alike are named only where that is the claim.
    assert ("Test_f (+0.0 points" in headline(run)) is equivalent


def test_equivalence_needs_a_metric_of_the_forgotten_samples() -> None:
    only = exact(test_r=97.0)
    run = found(initial=only, unlearned=only, retrain=only)
    assert decision(run) == "not shown" and "no metric of the forgotten samples" in headline(run)


@pytest.mark.parametrize(
    ("value", "needed"),
    [
        (span(30.0, 10, 10, 36), "So many samples would do, if the difference stayed: ASR 150 (there are 36)."),
        (span(32.0, 9, 6, 100), "ASR 900 (there are 100)"),  # (9 / (5 - 2))^2 = 9 times as many
        (span(28.0, 6, 9, 100), "ASR 900 (there are 100)"),
        (span(30.0, 10, 10, 30), "ASR 120 (there are 30)"),
        (span(34.5, 1, 1, 10), "ASR 40 (there are 10)"),
        (span(30.0, 5.5, 5.5, 10), "ASR 13 (there are 10)"),
        (span(30.0, 6, 6, 850), "ASR 1300 (there are 850)"),
    ],
)
def test_how_many_samples_would_do(value: Measured, needed: str) -> None:
    assert needed in headline(found({"asr": value}))


@pytest.mark.parametrize("value", [span(35.0, 7, 7), span(34.52, 7, 7), span(34.0, 7, 7, None)])
def test_no_number_of_samples_is_named_where_none_would_do_or_none_is_known(value: Measured) -> None:
    assert "would do" not in headline(found({"asr": value}))


# What is said besides.


@pytest.mark.parametrize(
    ("asr", "told"),
    [
        (span(50.0, 2, 9.9), "ASR (-10.0 points, 95 % interval -12.0 to -0.1)"),
        (span(50.0, 2, 10.0), "the change in ASR is no larger than its interval"),
        (span(70.0, 9.9, 2), "farther in ASR (+10.0 points, 95 % interval +0.1 to +12.0)"),
        (span(70.0, 10.0, 2), "the change in ASR is no larger than its interval"),
    ],
)
def test_closer_or_farther_only_beyond_the_change_s_own_interval(asr: Measured, told: str) -> None:
    sentence = judge(found({"asr": asr})).sentences[1]
    assert "closer in Test_r" in sentence and "Test_f (-98.0 points, 95 % interval -98.0 to -98.0)" in sentence
    assert told in sentence


def test_where_nothing_changed_neither_is_said() -> None:
    given = judge(found(INITIAL)).sentences[1]
    assert "neither closer to Retrain than the untouched model nor farther" in given and "95 % interval" in given


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (span(60.0, 5.0, 5), "a difference is not shown"),
        (span(60.0, 4.9, 5), "the samples show that difference"),
        (span(50.0, 5, 5.0), "a difference is not shown"),
        (span(50.0, 5, 4.9), "the samples show that difference"),
    ],
)
def test_an_attack_is_told_with_its_interval(value: Measured, told: str) -> None:
    sentence = judge(found({"mia_loss": value})).sentences[-2]
    assert f"in {value.value:.0f} % of the cases (95 % interval {value.low:.0f} to {value.high:.0f} %)" in sentence
    assert f"{value.value - 55:+.1f} points, 95 % interval" in sentence and told in sentence


def test_without_an_attack_membership_is_unknown() -> None:
    run = found(unlearned={key: value for key, value in RETRAIN.items() if key != "mia_loss"})
    assert "nothing is known of membership" in judge(run).sentences[-2]


def test_the_last_sentence_says_what_one_run_cannot_show() -> None:
    for run in (found(), found(unchanged=True), found(retrain=None), found(seed=7)):
        assert f"This is one run (seed {run.seed})" in judge(run).sentences[-1]


def test_no_metric_is_good_news_without_its_interval() -> None:
    """Whatever is decided, every metric that a sentence counts as alike stands there with its interval."""
    for run in (found(), found(initial=RETRAIN), found({"asr": span(31.0, 9, 9)})):
        for sentence in judge(run).sentences:
            assert "no measurable difference" not in sentence
            assert "within 5 points" not in sentence or "95 % interval" in sentence


def test_every_row_can_decide() -> None:
    assert len({row.decision for row in ROWS}) == len(ROWS) == 9


# The sentences as a reader sees them.

THE_END = (
    "This is one run (seed 0): another training is not in the intervals, and no metric proves that nothing is left."
)
ACCEPTED = {"decision": "accepted", "reason": "Distance 0.050, bound 0.100."}
UNDECIDED = {"decision": "cannot tell", "reason": "Too few samples."}
REFUSED = {"decision": "refused", "reason": "Distance 0.250, bound 0.100."}


@pytest.mark.parametrize(
    ("run", "sentences"),
    [
        (
            found(unchanged=True),
            """
            Nothing was unlearned: the unlearned model has exactly the weights of the initial model (their
            hashes are equal), so it knows whatever that knew.
            """,
        ),
        (
            found({"asr": span(32.0, 7, 7), "mia_loss": span(55.0, 9, 9)}, acceptance=ACCEPTED),
            """
            It is not shown to behave like a model retrained without the data: more than 5 points to Retrain's
            are possible in ASR (+2.0 points, 95 % interval -5.0 to +9.0) and MIA loss (+0.0 points, 95 %
            interval -9.0 to +9.0). So many samples would do, if the difference stayed: ASR 5500 (there are
            1000), MIA loss 3300 (there are 1000).

            Its gap to Retrain beside that of the untouched model: closer in Test_r (-0.5 points, 95 % interval
            -0.5 to -0.5), Test_f (-98.0 points, 95 % interval -98.0 to -98.0), ASR (-28.0 points, 95 % interval
            -35.0 to -21.0) and MIA loss (-20.0 points, 95 % interval -29.0 to -11.0).

            The acceptance test accepts it. Distance 0.050, bound 0.100.

            An attack on the loss tells forgotten samples from unseen ones in 55 % of the cases (95 % interval
            46 to 64 %), +0.0 points, 95 % interval -9.0 to +9.0 beside Retrain: a difference is not shown.
            """,
        ),
        (
            found(exact(mia_loss=60.0), initial=exact(mia_loss=61.0), acceptance=UNDECIDED),
            """
            It behaves like a model retrained without the data, within 5 points in every metric: Test_r (+0.0
            points, 95 % interval +0.0 to +0.0), Test_f (+0.0 points, 95 % interval +0.0 to +0.0), ASR (+0.0
            points, 95 % interval +0.0 to +0.0) and MIA loss (+5.0 points, 95 % interval +5.0 to +5.0).

            Its gap to Retrain beside that of the untouched model: closer in MIA loss (-1.0 points, 95 %
            interval -1.0 to -1.0).

            The acceptance test cannot tell. Too few samples.

            An attack on the loss tells forgotten samples from unseen ones in 60 % of the cases (95 % interval
            60 to 60 %), +5.0 points, 95 % interval +5.0 to +5.0 beside Retrain: the samples show that
            difference.
            """,
        ),
        (
            found(acceptance=REFUSED, initial={}, unlearned=exact(test_r=97.0)),
            """
            The acceptance test refuses it. Distance 0.250, bound 0.100.

            There are too few samples for an attack on the loss, so nothing is known of membership.
            """,
        ),
        (
            found(unlearned={}, initial={}, retrain=None),
            """
            Whether it behaves like a retrained model cannot be known, since the run was made without Retrain.

            There are too few samples for an attack on the loss, so nothing is known of membership.
            """,
        ),
        (
            found(initial=RETRAIN),
            """
            Nothing can be shown here: the model that forgot nothing passes too. The draw of the samples alone
            explains its difference to Retrain in Test_f (+0.0 points, 95 % interval +0.0 to +0.0), ASR (+0.0
            points, 95 % interval +0.0 to +0.0) and MIA loss (+0.0 points, 95 % interval +0.0 to +0.0).
            """,
        ),
        (
            found(initial=exact(test_r=97.0), unlearned=exact(test_r=97.0), retrain=exact(test_r=97.0)),
            """
            It is not shown to behave like a model retrained without the data: no metric of the forgotten
            samples could be compared.
            """,
        ),
    ],
)
def test_sentences(run: Evidence, sentences: str) -> None:
    expected = [" ".join(paragraph.split()) for paragraph in sentences.split("\n\n")]
    given = judge(run).sentences
    assert list(given[: len(expected)]) == expected and given[-1] == THE_END


# From a file.


def record(**changes: Any) -> dict[str, Any]:
    def details(values: dict[str, float], samples: int) -> dict[str, Any]:
        return {
            "samples": {"train_f": 142, **dict.fromkeys(values, samples)},
            "per_class": [50.0, None, 83.0],
            "class_samples": [100, 0, 100],
        }

    models = {
        "initial": {"test_r": 97.0, "test_f": 99.0, "tow": 0.0},
        "unlearned": {"test_r": 96.0, "test_f": 1.0, "tow": None},
        "retrain": {"test_r": 97.0, "test_f": 0.0, "relearn_steps": 5.0},
    }
    measured = {name: {key: v for key, v in values.items() if v is not None} for name, values in models.items()}
    return {
        "task": "class",
        "seed": 3,
        "hashes": {"initial": "a", "unlearned": "b", "retrain": "c"},
        "metrics": models,
        "intervals": {
            name: {key: list(wilson(value, 1000)) for key, value in values.items()} for name, values in measured.items()
        },
        "details": {name: details(values, 1000) for name, values in measured.items()},
        **changes,
    }


def test_a_record_is_read() -> None:
    read = evidence(record())
    assert (read.seed, read.unchanged, read.forgotten, read.acceptance) == (3, False, 142, None)
    assert read.unlearned == counted(1000, test_r=96.0, test_f=1.0)
    assert read.retrain == counted(1000, test_r=97.0, test_f=0.0)
    assert read.initial == counted(1000, test_r=97.0, test_f=99.0)
    assert read.unlearned_classes == {} and read.retrain_classes == {}
    assert verdict(record())[0].startswith(
        "It behaves like a model retrained without the data, within 5 points in every"
    )
    assert evidence(record(hashes={"initial": "a", "unlearned": "a"})).unchanged
    assert evidence(record(metrics={**record()["metrics"], "retrain": None})).retrain is None
    refused = {"decision": "refused", "ks": 0.2, "bound": 0.1}
    assert evidence(record(acceptance={"unlearned": refused, "initial": None})).acceptance == refused
    assert evidence(record(acceptance=None)).acceptance is None


def test_classes_are_compared_at_once_where_samples_were_forgotten() -> None:
    read = evidence(record(task="data"))
    # Two classes have samples: each interval is one of 97.5 %.
    expected = {index: Measured(value, *wilson(value, 100, 2.241403), 100) for index, value in ((0, 50.0), (2, 83.0))}
    assert list(read.unlearned_classes) == list(read.retrain_classes) == [0, 2]
    for index, measured in read.unlearned_classes.items():
        assert measured == pytest.approx(expected[index])
    assert evidence(record(task="data", metrics={**record()["metrics"], "retrain": None})).unlearned_classes == {}


def test_records_without_counts_are_read_too() -> None:
    old = record(task="data")
    for details in old["details"].values():
        del details["samples"], details["class_samples"]
    read = evidence(old)
    assert read.forgotten is None and read.unlearned["test_f"].samples is None and read.unlearned_classes == {}
    assert len(verdict(old)) >= 2
