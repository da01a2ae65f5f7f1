"""Training set of labelled images and, for semi-supervised training, images without labels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pymixunlearn.data.image_set import ImageSet, UnlabelledImages


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Images to train on.

    Attributes:
        labelled: The images with labels.
        unlabelled: Further images whose labels the training must not know; None where all images have labels.

    Example:
        >>> from pymixunlearn import data
        >>> digits = data.load("digits")
        >>> few = data.TrainingSet(digits.train, unlabelled=digits.test.unlabelled())
        >>> few.fingerprint() != data.TrainingSet(digits.train).fingerprint()
        True
    """

    labelled: ImageSet
    unlabelled: UnlabelledImages | None = None

    def fingerprint(self) -> str:
        """Return a sha256 (hex) over all that is in the set; without unlabelled images, that of ``labelled``."""
        labelled = self.labelled.fingerprint()
        if self.unlabelled is None:
            return labelled
        return hashlib.sha256(f"{labelled} {self.unlabelled.fingerprint()}".encode()).hexdigest()
