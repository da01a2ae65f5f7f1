"""Sentences on what an audit can and cannot show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymixunlearn.evaluation.audit.lira import OWN_VARIANCE_FROM
from pymixunlearn.evaluation.audit.measure import ATTACKS


def findings(result: Mapping[str, Any], when: str = "") -> list[str]:
    """Return one sentence per attack on what its AUC says.

    Args:
        result: What :func:`pymixunlearn.evaluation.audit.measure` returned.
        when: What each sentence begins with.
    """
    sentences = []
    for name, attack in result["attacks"].items():
        asked = f"{attack['asks']} {ATTACKS[name].things}"
        low, high = attack["auc"]["low"], attack["auc"]["high"]
        if low > 0.5:
            verdict = f"can tell {asked}: the interval of the AUC is above 0.5"
        elif high < 0.5:
            verdict = (
                f"tells {asked} with the sign reversed: the interval of the AUC is below 0.5, "
                "so the shadow models do not stand for what is audited"
            )
        else:
            verdict = f"cannot tell {asked}: the interval of the AUC includes 0.5"
        sentences.append(f"{when}{attack['label']} {verdict}.")
    if result["klom"] is not None:
        forgotten, floor = (result["klom"][kind]["median"] for kind in ("forget", "floor"))
        sentences.append(
            f"KLoM of forgotten samples is {forgotten:.2f} in the median; models that differ by chance alone give "
            f"{floor:.2f}."
        )
    return sentences


def limits(result: Mapping[str, Any], shadows: int, *, mismatch: str | None = None) -> list[str]:
    """Return what the number of samples and of shadow models keeps the audit from showing.

    Args:
        result: What :func:`pymixunlearn.evaluation.audit.measure` returned.
        shadows: The number of shadow models N.
        mismatch: In what the shadow models are known to differ from the model under audit.
    """
    attacks, unseen = result["attacks"], result["samples"]["unseen"]
    sentences = []
    if "lira" in attacks or "rmia" in attacks:
        sentences.append(_resolution(unseen))
    if "lira" in attacks or "u-lira" in attacks:
        sentences.append(
            _gaussians("LiRA" if "lira" in attacks else "U-LiRA", shadows // (2 if "lira" in attacks else 4))
        )
    if "rmia" in attacks:
        references, a = attacks["rmia"]["references"], attacks["rmia"]["a"]
        sentences.append(
            f"RMIA compares with {references} reference models per sample; its a ({a:g}) and its threshold were chosen "
            "on the shadow models."
        )
    if "u-lira" in attacks:
        sentences.append(
            f"U-LiRA judges the method with these settings over {shadows} unlearned and {shadows} retrained models, "
            "not this model alone; one half is attacked with Gaussians of the other, and its intervals are over models."
        )
    if result["klom"] is not None:
        sentences.append(
            f"KLoM compares {shadows // 2} with {shadows // 2} models in 20 bins, which leaves most bins empty; its "
            "authors use about 100 models. Only what exceeds the value between retrained models means anything."
        )
    if mismatch is not None:
        sentences.append(mismatch)
    sentences.append(
        "No trace found means that none was found by these attacks with so many models and samples, not that there is "
        "none."
    )
    return sentences


def _resolution(unseen: int) -> str:
    """Say which false positive rates so many unseen samples can tell from zero."""
    text = f"With {unseen} unseen samples the smallest false positive rate above zero is {100 / unseen:.2g} %"
    coarse = [rate for rate, needed in (("1 %", 100), ("0.1 %", 1000)) if unseen < needed]
    if not coarse:
        return f"{text}."
    return f"{text}: TPR at {' and at '.join(coarse)} FPR is what is found without any false alarm."


def _gaussians(attack: str, models: int) -> str:
    """Say what the Gaussians of an attack rest on."""
    text = f"Each Gaussian of {attack} rests on about {models} models"
    if models >= OWN_VARIANCE_FROM:
        return f"{text} and has a variance of its own."
    return (
        f"{text}: too few for a variance of each sample's own, so all samples share one, and single samples that are "
        f"remembered better than most are missed; {OWN_VARIANCE_FROM} or more mend that."
    )
