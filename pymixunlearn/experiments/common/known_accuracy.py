"""The question that finds the commonest mistake: is this the accuracy that the model's owner knows?"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pymixunlearn.data import Dataset
from pymixunlearn.evaluation import accuracy, predict_logits
from pymixunlearn.experiments.common.bad_request import AnswerIsNo
from pymixunlearn.experiments.common.progress import Observer
from pymixunlearn.models.adapter import adapted

TOLERANCE = 0.5
"""How many points a model's accuracy may differ from what is expected."""


def known_accuracy(
    model: nn.Module, dataset: Dataset, expected: float | None, *, device: torch.device, observer: Observer
) -> dict[str, Any]:
    """Measure a model's accuracy on all test images, and ask about it or compare it with what is expected.

    Args:
        model: The model as it was given, put on ``device``.
        dataset: The data.
        expected: The accuracy that its owner knows, in percent; None asks.
        device: Where to compute.
        observer: Receives the note.

    Returns:
        "test" (percent), "count" (of images) and "expected".

    Raises:
        AnswerIsNo: The accuracy differs by more than :data:`TOLERANCE`.
    """
    first = dataset.preprocess.evaluation(dataset.test.gather(torch.arange(min(4, len(dataset.test)))).to(device))
    with adapted(model.to(device), first, dataset.num_classes):
        logits = predict_logits(model, dataset.test, dataset.preprocess, device=device)
    found = accuracy(logits, dataset.test.targets)
    assert found is not None  # a test set has images
    if expected is None:
        observer.note(question(found, len(dataset.test)))
    elif abs(found - expected) > TOLERANCE:
        raise AnswerIsNo(
            f"the model's accuracy on the {len(dataset.test)} test images is {found:.2f} %; expected {expected:g} % "
            f"within {TOLERANCE}: most likely its images are prepared in another way, which 'preprocessing' in "
            "--model-config can say, or its classes have another order ('classes' there)"
        )
    else:
        observer.note(f"Accuracy on the {len(dataset.test)} test images: {found:.2f} %, {expected:g} % was expected.")
    return {"test": found, "count": len(dataset.test), "expected": expected}


def question(found: float, count: int) -> str:
    """Return the question of whether this accuracy, in percent, is the one that is known."""
    return (
        f"The given model has {found:.2f} % of the {count} test images right. Is this the accuracy that you know of "
        "it? If not, its images are most likely prepared in another way: say how in --model-config (preprocessing)."
    )
