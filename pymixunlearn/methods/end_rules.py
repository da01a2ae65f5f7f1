"""Which rules may end a method's loop before its last epoch, and what they hold out of D_r."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from pymixunlearn.errors import UserError
from pymixunlearn.methods.accepted import AcceptedStop
from pymixunlearn.methods.choosing import Chooser
from pymixunlearn.methods.ending import EndingConfig, Endings
from pymixunlearn.methods.rollback import FEWEST, MARGIN, Rollback, choose_held_out, memorised
from pymixunlearn.methods.stopping import AutoStop, StoppingConfig
from pymixunlearn.methods.view import SplitView
from pymixunlearn.tasks import Split
from pymixunlearn.training.loop import Stop


class EndRules(NamedTuple):
    """Rules of one run.

    Attributes:
        view: What the method may train on: without what the rules hold out.
        rollback: Puts the last good state back; None where it does not apply.
        stop: What ``stop`` of the settings says; None for "epochs".
    """

    view: SplitView
    rollback: Rollback | None
    stop: AutoStop | AcceptedStop | None

    @property
    def together(self) -> Endings | None:
        """All rules as one; None where there is none."""
        rules: dict[str, Stop] = {
            name: rule for name, rule in (("rollback", self.rollback), ("stop", self.stop)) if rule is not None
        }
        return Endings(rules) if rules else None


def end_rules(
    config: EndingConfig,
    model: nn.Module,
    split: Split,
    view: SplitView,
    chooser: Chooser | None,
    *,
    labels: bool,
    device: torch.device,
    seed: int,
) -> EndRules:
    """Make the rules that the settings ask for.

    Args:
        config: The settings.
        model: The initial model, on ``device``, which the method goes on to change in place.
        split: What to forget and what to retain.
        view: What the method may see of it.
        chooser: The acceptance test; needed for ``stop="accepted"``.
        labels: Whether the method is given labels.
        device: Where to compute.
        seed: Fixes what is held out.

    Raises:
        UserError: Nothing would be left to train on, or the rollback is asked for and cannot be.
    """
    rollback = None
    if config.may_roll_back:
        held_out = choose_held_out(model, view, split.forget_classes, device=device, seed=seed)
        margin = _margin(config, model, split, view, held_out, labels=labels, device=device, seed=seed)
        if margin is not None:
            rollback = Rollback(model, view, held_out, margin, device=device)
            view = view.without(held_out)
    stop: AutoStop | AcceptedStop | None = None
    if isinstance(config, StoppingConfig) and config.stop == "auto":
        stop = AutoStop(model, view, split.forget_classes, config, device=device, seed=seed)
        view = stop.split
    elif config.stop == "accepted":
        assert chooser is not None  # a split without a validation set was refused
        stop = AcceptedStop(model, chooser)
    return EndRules(view, rollback, stop)


def _margin(
    config: EndingConfig,
    model: nn.Module,
    split: Split,
    view: SplitView,
    held_out: torch.Tensor,
    *,
    labels: bool,
    device: torch.device,
    seed: int,
) -> float | None:
    """Return how many points may be lost; None where nothing is watched.

    Unless it is asked for, that is so with labels: there the held-out images cost accuracy. And where a class is
    forgotten: the others fall by more than the margin for a while, and most of it comes back.
    """
    if config.rollback is None and (labels or split.forget_classes):
        return None
    why = None
    if split.origin is not None:
        why = "wrong labels have taught the initial model wrong answers"
    elif len(held_out) == 0:
        why = f"fewer than {FEWEST} images of D_r can be held out"
    elif labels and split.validation_halves is None:
        why = "with labels it needs a validation set"
    extra: float | None = 0.0
    if why is None and labels:
        assert split.validation_halves is not None
        extra = memorised(model, view, held_out, split.validation_halves.choosing, device=device, seed=seed)
        why = None if extra is not None else "the validation set has no images of some class"
    if why is None and extra is not None:
        return MARGIN + extra
    if config.rollback:
        raise UserError(f"rollback is true, but {why}; expected rollback=none or false")
    return None
