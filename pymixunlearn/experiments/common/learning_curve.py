"""Learning curve: the accuracy on the test images after every epoch of a training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from pymixunlearn.data import ImageSet, Preprocess
from pymixunlearn.evaluation import accuracy, predict_logits
from pymixunlearn.training.loop import Callback, StateDict


class TestAccuracy(Callback):
    """Callback that adds the accuracy on the test images, in percent, to an epoch's record as "test".

    Args:
        network: A network of the kind that is trained; it takes over the weights of every epoch.
        images: The test images.
        preprocess: What turns stored images into network inputs.
        device: Where to compute.
    """

    __test__ = False  # it is no test of pytest's

    def __init__(self, network: nn.Module, images: ImageSet, preprocess: Preprocess, device: torch.device) -> None:
        """Measure nothing yet."""
        self._network = network.to(device)
        self._images, self._preprocess, self._device = images, preprocess, device

    def on_epoch_end(self, epoch: int, record: dict[str, float], state: Callable[[], StateDict]) -> None:
        """Measure the weights after the epoch."""
        self._network.load_state_dict(state()["state"]["model"])
        logits = predict_logits(self._network, self._images, self._preprocess, device=self._device)
        measured = accuracy(logits, self._images.targets)
        if measured is not None:  # there are test images
            record["test"] = measured
