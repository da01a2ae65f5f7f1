"""The result of a run in a few sentences: did it forget, what did that cost, and how sure is it?

The first sentence is that of the first row of :data:`ROWS` that holds. Every row decides by intervals, never by values
alone, and names the metric that decided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from pymixunlearn.evaluation.catalogue import metric_info
from pymixunlearn.evaluation.score_attacks import MIN_SAMPLES
from pymixunlearn.reporting.evidence import ATTACK, COMPARED, FORGETTING, UTILITY, Difference, Evidence, evidence

MARGIN = 5.0
"""So many points from Retrain still count as alike: about what two trainings of one network can differ by."""

ENOUGH_SAMPLES = 73
"""The fewest samples that can show a metric to be within :data:`MARGIN`, which take two models without any error."""

_LIKE_RETRAIN = "behave like a model retrained without the data"


_ACCEPTANCE = {"accepted": "The acceptance test accepts it.", "cannot tell": "The acceptance test cannot tell."}


class Row(NamedTuple):
    """A row of the table: what it decides, and its sentence where it holds, otherwise None."""

    decision: str
    holds: Callable[[Evidence], str | None]


class Verdict(NamedTuple):
    """What is decided, one of the decisions of :data:`ROWS`, and the sentences that say so and why."""

    decision: str
    sentences: tuple[str, ...]


def verdict(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return two or more sentences about the content of a ``metrics.json``; the first is the decision."""
    return judge(evidence(record)).sentences


def judge(found: Evidence) -> Verdict:
    """Return the decision of the first row of :data:`ROWS` that holds, and what else is to be said.

    Args:
        found: What was measured.

    Returns:
        The decision and its sentences: the row's own, whether the model came closer to Retrain than the initial model
        was, what an attack on the loss sees, and what stays unknown.
    """
    for row in ROWS:
        sentence = row.holds(found)
        if sentence is not None:
            break
    assert sentence is not None  # the last row always holds
    tested = _accepted(found) or (_refused(found) if row.decision != "refused" else None)
    further = [] if found.unchanged else [_closer(found), tested, _attack(found)]
    return Verdict(row.decision, (sentence, *(text for text in further if text), _limits(found)))


def _unchanged(found: Evidence) -> str | None:
    if not found.unchanged:
        return None
    return (
        "Nothing was unlearned: the unlearned model has exactly the weights of the initial model (their hashes are "
        "equal), so it knows whatever that knew."
    )


def _without_retrain(found: Evidence) -> str | None:
    if found.retrain is not None:
        return None
    changes = [
        f"{_name(key)} went from {found.initial[key].value:.1f} to {mine.value:.1f} %"
        for key, mine in found.unlearned.items()
        if key in found.initial and key != ATTACK
    ]
    measured = f": {_listed(changes)}, but what they should be is not known" if changes else ""
    return (
        f"Whether it behaves like a retrained model cannot be known, since the run was made without Retrain{measured}."
    )


def _utility_lost(found: Evidence) -> str | None:
    apart = found.beside_retrain(found.unlearned, UTILITY)
    lost = [_against(found, key, difference) for key, difference in apart.items() if difference.high < -MARGIN]
    if not lost:
        return None
    return f"It lost what it should keep: {_listed(lost)}; a loss of {MARGIN:g} points would count as none."


def _refused(found: Evidence) -> str | None:
    test = found.acceptance
    if test is None or test["decision"] != "refused":
        return None
    return f"The acceptance test refuses it. {test['reason']}"


def _too_few(found: Evidence) -> str | None:
    if found.forgotten is None or found.forgotten >= MIN_SAMPLES:
        return None
    return (
        f"Nothing can be said about forgetting: only {found.forgotten} of the samples were to be forgotten. At least "
        f"{MIN_SAMPLES} are needed for any statement, and at least {ENOUGH_SAMPLES} to show that a metric is within "
        f"{MARGIN:g} points of Retrain's."
    )


def _refuted(found: Evidence) -> str | None:
    apart = [
        _against(found, key, difference)
        for key, difference in found.beside_retrain(found.unlearned).items()
        if difference.beyond(MARGIN)
    ]
    apart += _classes(found, lambda difference: difference.beyond(MARGIN))
    if not apart:
        return None
    return f"It does not {_LIKE_RETRAIN}: {_listed(apart)}; {MARGIN:g} points would count as alike."


def _indistinguishable(found: Evidence) -> str | None:
    before = found.beside_retrain(found.initial)
    known = {key: difference for key, difference in before.items() if key in FORGETTING}
    if not known:
        return None
    useless = "Nothing can be shown here: the model that forgot nothing passes too"
    if not any(difference.measurable for difference in known.values()):
        return f"{useless}. The draw of the samples alone explains its difference to Retrain in {_differences(known)}."
    if all(difference.within(MARGIN) for difference in before.values()):
        return f"{useless}. It is within {MARGIN:g} points of Retrain in {_differences(before)}."
    return None


def _equivalent(found: Evidence) -> str | None:
    apart = found.beside_retrain(found.unlearned)
    if not any(key in FORGETTING for key in apart):
        return None
    if not all(difference.within(MARGIN) for difference in apart.values()):
        return None
    if _classes(found, lambda difference: difference.measurable):
        return None
    alike = _LIKE_RETRAIN.replace("behave", "behaves", 1)
    return f"It {alike}, within {MARGIN:g} points in every metric: {_differences(apart)}."


def _not_shown(found: Evidence) -> str:
    apart = found.beside_retrain(found.unlearned)
    wide = {key: difference for key, difference in apart.items() if not difference.within(MARGIN)}
    reasons = []
    if not any(key in FORGETTING for key in apart):
        reasons.append("no metric of the forgotten samples could be compared")
    if wide:
        reasons.append(f"more than {MARGIN:g} points to Retrain's are possible in {_differences(wide)}")
    reasons += _classes(found, lambda difference: difference.measurable)
    return f"It is not shown to {_LIKE_RETRAIN}: {'; '.join(reasons)}.{_would_do(found, wide)}"


ROWS = (
    Row("unchanged", _unchanged),
    Row("without Retrain", _without_retrain),
    Row("utility lost", _utility_lost),
    Row("refused", _refused),
    Row("too few", _too_few),
    Row("refuted", _refuted),
    Row("nothing can be shown", _indistinguishable),
    Row("equivalent", _equivalent),
    Row("not shown", _not_shown),
)
"""The decisions, the first that holds wins: what is shown to be wrong comes before what cannot be shown."""


def _closer(found: Evidence) -> str | None:
    """Say in which metrics unlearning moved the model towards Retrain or away, by more than the interval of that."""
    changes = found.changes_of_gap()
    if not changes:
        return None
    closer = {key: change for key, change in changes.items() if change.high < 0}
    farther = {key: change for key, change in changes.items() if change.low > 0}
    if not closer and not farther:
        measured = f"the gap changed by {_differences(changes)}"
        return f"It is neither closer to Retrain than the untouched model nor farther: {measured}."
    parts = []
    if closer:
        parts.append(f"closer in {_differences(closer)}")
    if farther:
        parts.append(f"farther in {_differences(farther)}")
    same = [_name(key) for key in changes if key not in closer and key not in farther]
    rest = f"; the change in {_listed(same)} is no larger than its interval" if same else ""
    return f"Its gap to Retrain beside that of the untouched model: {', '.join(parts)}{rest}."


def _accepted(found: Evidence) -> str | None:
    test = found.acceptance
    if test is None or test["decision"] == "refused":
        return None
    return f"{_ACCEPTANCE[test['decision']]} {test['reason']}"


def _attack(found: Evidence) -> str:
    mine = found.unlearned.get(ATTACK)
    if mine is None:
        return "There are too few samples for an attack on the loss, so nothing is known of membership."
    told = (
        f"An attack on the loss tells forgotten samples from unseen ones in {mine.value:.0f} % of the cases (95 % "
        f"interval {mine.low:.0f} to {mine.high:.0f} %)"
    )
    difference = found.beside_retrain(found.unlearned, (ATTACK,)).get(ATTACK)
    if difference is None:
        return f"{told}, where guessing gives 50 % but a retrained model need not."
    shown = "the samples show that difference" if difference.measurable else "a difference is not shown"
    return f"{told}, {_points(difference)} beside Retrain: {shown}."


def _limits(found: Evidence) -> str:
    return (
        f"This is one run (seed {found.seed}): another training is not in the intervals, and no metric proves that "
        "nothing is left."
    )


def _classes(found: Evidence, concern: Callable[[Difference], bool]) -> list[str]:
    """Return a clause for each of the three worst classes whose test accuracy differs from Retrain's as stated."""
    apart = {index: value for index, value in found.classes_beside_retrain().items() if concern(value)}
    worst = sorted(apart, key=lambda index: -abs(apart[index].value))
    clauses = [
        f"the test accuracy of class {index} is {found.unlearned_classes[index].value:.1f} % and Retrain's "
        f"{found.retrain_classes[index].value:.1f} % ({_points(apart[index])})"
        for index in worst[:3]
    ]
    return [*clauses, f"likewise {len(worst) - 3} more classes"] if len(worst) > 3 else clauses


def _would_do(found: Evidence, wide: Mapping[str, Difference]) -> str:
    """Say how many samples would show a metric to be within the margin, if it stayed where it is."""
    needed = []
    for key, difference in wide.items():
        room = MARGIN - abs(difference.value)
        count = found.unlearned[key].samples
        if count is None or room < MARGIN / 10:  # so near the margin it would take samples without end
            continue
        half = max(difference.value - difference.low, difference.high - difference.value)
        # An interval narrows with the root of the samples.
        needed.append(f"{_name(key)} {_rounded_up(count * (half / room) ** 2)} (there are {count})")
    return f" So many samples would do, if the difference stayed: {', '.join(needed)}." if needed else ""


def _rounded_up(count: float) -> int:
    """Return the next number of two digits and zeros."""
    scale: int = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return math.ceil(count / scale) * scale


def _against(found: Evidence, key: str, difference: Difference) -> str:
    assert found.retrain is not None
    mine, theirs = found.unlearned[key].value, found.retrain[key].value
    return f"{_name(key)} is {mine:.1f} % and Retrain's {theirs:.1f} % ({_points(difference)})"


def _differences(differences: Mapping[str, Difference]) -> str:
    ordered = [key for key in COMPARED if key in differences]
    return _listed(f"{_name(key)} ({_points(differences[key])})" for key in ordered)


def _points(difference: Difference) -> str:
    return f"{difference.value:+.1f} points, 95 % interval {difference.low:+.1f} to {difference.high:+.1f}"


def _name(key: str) -> str:
    return metric_info(key).label


def _listed(parts: Iterable[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last
