"""Settings that are published for each network: those left at none get them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

from pymixunlearn.methods.config import MethodConfig

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing itself from Python 3.11 on

SMALL = "cnn"
"""The network whose settings every other gets that has none of its own."""

UNLEARNING: dict[str, dict[str, Any]] = {
    "cnn": {"epochs": 20, "lr": 5e-5},
    "resnet18": {"epochs": 40, "lr": 1e-5},
}
"""MixUnlearn's own (Appendix A.1): the cnn's for the two MNISTs, the resnet18's for CIFAR-10 and SVHN."""


@dataclass(frozen=True)
class NetworkConfig(MethodConfig):
    """Settings of a method some of which are published for each network.

    Example:
        >>> from pymixunlearn import methods
        >>> config = methods.RandLabelConfig(epochs=3)
        >>> config.lr, config.for_network("resnet18").lr, config.for_network("vit").lr
        (None, 1e-05, 5e-05)
        >>> config.for_network("resnet18").epochs
        3
    """

    by_network: ClassVar[Mapping[str, Mapping[str, Any]]]
    """A network's name to its settings."""

    def for_network(self, name: str | None) -> Self:
        """Return the settings with those of a network in place of none; None is a network without a name."""
        published = self.by_network.get(name or SMALL, self.by_network[SMALL])
        open_names = {field.name for field in fields(self) if getattr(self, field.name) is None}
        return replace(self, **{key: value for key, value in published.items() if key in open_names})
