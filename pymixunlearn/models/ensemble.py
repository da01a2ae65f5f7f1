"""Ensemble of networks whose predictions are combined into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pymixunlearn.errors import UserError, unknown_name
from pymixunlearn.models.logits import member_logits

Aggregate = Literal["mean", "majority"]

TIE_BREAK = 1e-3
"""Weight of the mean softmax in a majority vote: it decides between classes with equally many votes."""


class Ensemble(nn.Module):
    """Ensemble of networks for the same images and classes.

    The output is a logarithm of probabilities, so that ``softmax`` of it gives these: with "mean" the weighted mean of
    the members' softmax, with "majority" the weighted share of the members whose first choice a class is.

    Args:
        members: At least one network, each mapping images [N, C, H, W] to logits [N, classes], or to an object, tuple
            or dict with them.
        weights: How much each member counts, above 0; they are scaled to sum to 1. None counts all the same.
        aggregate: "mean" or "majority".

    Raises:
        UserError: No member, another number of weights than of members, a weight that is not above 0, or an unknown
            ``aggregate``.

    Example:
        >>> import torch
        >>> from pymixunlearn import models
        >>> members = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)) for _ in range(2)]
        >>> output = models.Ensemble(members, weights=[2, 1])(torch.rand(5, 1, 2, 2))
        >>> torch.allclose(output.exp().sum(1), torch.ones(5))
        True
    """

    weights: Tensor

    def __init__(
        self, members: Sequence[nn.Module], weights: Sequence[float] | None = None, aggregate: Aggregate = "mean"
    ) -> None:
        """Register the members and scale their weights."""
        super().__init__()
        if aggregate not in get_args(Aggregate):
            raise unknown_name("aggregate", aggregate, get_args(Aggregate))
        if not members:
            raise UserError("members is empty; expected at least one network")
        shares = [1.0] * len(members) if weights is None else list(weights)
        if len(shares) != len(members) or min(shares) <= 0:
            raise UserError(f"weights must be {len(members)} numbers above 0, one per member, got {shares}")
        self.members = nn.ModuleList(members)
        self.aggregate = aggregate
        self.register_buffer("weights", torch.tensor([share / sum(shares) for share in shares]))

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W] to log probabilities [N, classes]."""
        log_probabilities = torch.stack([member_logits(member, images) for member in self.members]).log_softmax(
            dim=2
        )  # [members, N, classes]
        weights = self.weights[:, None, None]
        mean = torch.logsumexp(log_probabilities + weights.log(), dim=0)
        if self.aggregate == "mean":
            return mean
        choices = F.one_hot(log_probabilities.argmax(dim=2), log_probabilities.shape[2])
        votes = (weights * choices).sum(dim=0)
        return ((1 - TIE_BREAK) * votes + TIE_BREAK * mean.exp()).log()


def first_member(model: nn.Module) -> nn.Module:
    """Return the first member of an ensemble, and any other network as it is: what a single network looks like.

    Example:
        >>> from pymixunlearn import models
        >>> networks = [models.build("cnn", num_classes=10, in_channels=1, image_size=8, seed=seed) for seed in (0, 1)]
        >>> first_member(models.ensemble_of(networks, None, "mean")) is networks[0]
        True
    """
    if isinstance(model, Ensemble):
        return first_member(model.members[0])
    return model
