"""The digits data set that comes inside scikit-learn: 1797 images of 8 x 8, nothing to download."""

from __future__ import annotations

import torch

from pymixunlearn.data.dataset import Dataset, hold_out
from pymixunlearn.data.image_set import ImageSet
from pymixunlearn.data.optional import require
from pymixunlearn.data.preprocess import Preprocess
from pymixunlearn.data.registry import Request, register
from pymixunlearn.errors import UserError


@register("digits")
def load_digits(request: Request) -> Dataset:
    """Load scikit-learn's digits; a fixed fifth of every class is the test set."""
    if request.data_dir is not None:
        raise UserError(
            f"data_dir has no meaning for the dataset 'digits', which comes with scikit-learn; got '{request.data_dir}'"
        )
    bunch = require("sklearn.datasets", purpose="the dataset 'digits'", remedy="install scikit-learn").load_digits()
    # Stored as 0..16; brought to the range that every uint8 image here has.
    images = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
    targets = torch.from_numpy(bunch.target).to(torch.int64)
    train, test = hold_out(ImageSet(images, targets, tuple("0123456789")))
    return Dataset(request.name, train, test, Preprocess(request.resize_from(train.images.shape[-1])))
