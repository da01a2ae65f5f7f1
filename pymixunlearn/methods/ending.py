"""How a loop may end before its last epoch: the settings, and several rules at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from pymixunlearn.errors import UserError
from pymixunlearn.methods.config import OURS, MethodConfig, setting
from pymixunlearn.training.loop import StateDict, Stop


@dataclass(frozen=True)
class EndingConfig(MethodConfig):
    """What the settings of every method have that trains the model it is given, in place and by epochs.

    Example:
        >>> from pymixunlearn import methods
        >>> methods.NegGradConfig(stop="accepted").stop
        'accepted'
    """

    stop: Literal["epochs", "accepted"] = setting(
        "epochs", "when to end: after all epochs, or when the acceptance test accepts the model", source=OURS
    )
    rollback: bool | None = setting(
        None,
        "end, and go back to the last good state, when held-out images of D_r are lost; none: where no labels are used "
        "and single samples are forgotten; true: with labels too, given a validation set",
        source=OURS,
    )

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UserError: A field is out of its range, or two settings choose the result.
        """
        super().__post_init__()
        for chosen, choice in ((self.stop == "accepted", "stop is accepted"), (self.rollback, "rollback is true")):
            if chosen and self.own_choice is not None:
                raise UserError(f"{choice}, but {self.own_choice} chooses a state itself; expected one of the two")

    @property
    def own_choice(self) -> str | None:
        """Setting by which the method chooses among its states; None where the result is the last of them."""
        return None

    @property
    def may_roll_back(self) -> bool:
        """Whether the rollback may end the run; not where the method chooses among its states itself."""
        return self.rollback is not False and self.own_choice is None


@runtime_checkable
class Staged(Protocol):
    """Rule that does not look before the last of the loop's stages."""

    last_stage: int
    """After how many steps that begins."""


class Endings:
    """Several rules as one: the loop ends where one of them says so. All are asked after every step.

    Args:
        rules: By name, in the order in which they are asked.
    """

    def __init__(self, rules: Mapping[str, Stop]) -> None:
        """Ask nothing yet."""
        self._rules = dict(rules)

    def enter_last_stage(self, step: int) -> None:
        """Say after how many steps the last of the loop's stages begins: what comes before may do harm on purpose."""
        for rule in self._rules.values():
            if isinstance(rule, Staged):
                rule.last_stage = step

    def begin(self, lengths: Sequence[int], saved: StateDict | None) -> bool:
        """Begin with every rule.

        Raises:
            UserError: ``saved`` is of a run with other rules.
        """
        if saved is not None and set(saved) != set(self._rules):
            raise UserError("resume is a snapshot of another run: that one was to end, or was watched, in another way")
        return any([rule.begin(lengths, None if saved is None else saved[name]) for name, rule in self._rules.items()])

    def after_step(self, step: int) -> bool:
        """Ask every rule until one ends the loop."""
        return any(rule.after_step(step) for rule in self._rules.values())

    def state(self) -> StateDict:
        """Return the states of all rules by name."""
        return {name: rule.state() for name, rule in self._rules.items()}
