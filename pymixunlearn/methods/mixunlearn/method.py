"""MixUnlearn as a method: which of its two loops runs."""

from __future__ import annotations

from pymixunlearn.methods.loop import LoopMethod
from pymixunlearn.methods.mixunlearn.config import MixUnlearnConfig
from pymixunlearn.methods.mixunlearn.fast import FastMixUnlearnLoop
from pymixunlearn.methods.mixunlearn.step import MixUnlearnLoop
from pymixunlearn.methods.registry import method


@method(
    "mixunlearn",
    summary="adversarial mixup unlearning: a generator mixes forget and retain images against the unlearner",
)
class MixUnlearn(LoopMethod):
    """Unlearn with adversarial mixes of forget and retain images; needs no labels unless ``label_aware`` is set.

    Example:
        >>> from pymixunlearn import MixUnlearn, data, models, tasks
        >>> split = tasks.class_split(data.load("digits"), [0])
        >>> model = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
        >>> result = MixUnlearn(epochs=1, lr=2e-4).unlearn(model, split, device="cpu")
        >>> sorted(result.history[0])  # doctest: +NORMALIZE_WHITESPACE
        ['epoch', 'generator', 'generator_vanilla', 'mask', 'mask_between', 'mask_error', 'mask_within', 'mix', 'real',
         'seconds', 'total']
    """

    config_class = MixUnlearnConfig
    in_one_process = None
    config: MixUnlearnConfig

    @property
    def needs_labels(self) -> bool:
        """True in the label-aware variant only."""
        return self.config.label_aware

    def loop(self) -> MixUnlearnLoop:
        """Return the fast or the plain loop."""
        return (FastMixUnlearnLoop if self.config.fast else MixUnlearnLoop)(self.config)
