"""The digits data set that comes inside scikit-learn: 1797 images of 8 x 8, nothing to download."""

from __future__ import annotations

import gzip
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from pymixunlearn.data.dataset import Dataset, hold_out
from pymixunlearn.data.image_set import ImageSet
from pymixunlearn.data.preprocess import Preprocess
from pymixunlearn.data.registry import Request, register
from pymixunlearn.errors import UserError

_SIDE = 8


@register("digits")
def load_digits(request: Request) -> Dataset:
    """Load scikit-learn's digits; a fixed fifth of every class is the test set."""
    if request.data_dir is not None:
        raise UserError(
            f"data_dir has no meaning for the dataset 'digits', which comes with scikit-learn; got '{request.data_dir}'"
        )
    table = _table()
    # Stored as 0..16; brought to the range that every uint8 image here has.
    images = torch.from_numpy(table[:, :-1]).view(-1, 1, _SIDE, _SIDE).mul(255 / 16).round().to(torch.uint8)
    targets = torch.from_numpy(table[:, -1]).to(torch.int64)
    train, test = hold_out(ImageSet(images, targets, tuple("0123456789")))
    return Dataset(request.name, train, test, Preprocess(request.resize_from(train.images.shape[-1])))


@cache
def _table() -> np.ndarray:
    """Return pixels and label of every image, ``[1797, 65]``, from scikit-learn's file.

    It is read without importing scikit-learn, which takes longer than everything else that loading needs.
    """
    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise UserError("the dataset 'digits' needs scikit-learn, which is not installed; install scikit-learn")
    file = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        with gzip.open(file, "rt", encoding="ascii") as lines:
            return np.loadtxt(lines, delimiter=",")
    except (OSError, ValueError) as error:
        raise UserError(f"the dataset 'digits' cannot be read from scikit-learn's file '{file}' ({error})") from error
