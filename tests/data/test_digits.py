from __future__ import annotations

import subprocess
import sys

import torch
from sklearn.datasets import load_digits

from pymixunlearn import data


def test_images_and_labels_are_scikit_learn_s() -> None:
    ours, theirs = data.load("digits"), load_digits()
    pixels = torch.from_numpy(theirs.images).mul(255 / 16).round().to(torch.uint8)
    for label in range(10):
        mine = torch.cat([part.images[part.targets == label] for part in (ours.train, ours.test)]).squeeze(1)
        expected = pixels[torch.from_numpy(theirs.target) == label]
        assert sorted(map(bytes, mine.flatten(1).numpy())) == sorted(map(bytes, expected.flatten(1).numpy()))


def test_scikit_learn_is_not_imported_for_them() -> None:
    program = "import sys; from pymixunlearn import data; data.load('digits'); sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
