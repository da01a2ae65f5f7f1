"""Where trainings that do not depend on each other run; nothing here imports PyTorch."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from pymixunlearn.experiments.common.bad_request import BadRequest
from pymixunlearn.experiments.common.options import option

LOCAL, RAY = "local", "ray"
_REMOTE = re.compile(r"ray://[^/\s:]+:\d{1,5}")


def require_ray() -> Any:
    """Import Ray.

    Raises:
        UserError: It is not installed.
    """
    from pymixunlearn.data.optional import require

    # Read when it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    return require("ray", purpose="--on ray", remedy="install it with: pip install 'pymixunlearn[ray]'")


@dataclass(frozen=True)
class Placement:
    """Where trainings run.

    Attributes:
        on: "local", in processes of this machine; "ray", on the cluster that ``RAY_ADDRESS`` names or on one that is
            started on this machine; or "ray://HOST:PORT", on the cluster there.
        gpus: GPUs of each, for Ray; a share below 1 lets several use one. None is 1 where a GPU computes, otherwise 0.

    Raises:
        BadRequest: ``on`` is none of these, or ``gpus`` no number of GPUs that Ray can give.

    Example:
        >>> Placement("ray").is_ray, Placement().is_ray
        (True, False)
        >>> Placement("rey")
        Traceback (most recent call last):
        pymixunlearn.experiments.common.bad_request.BadRequest: on is 'rey'; expected local, ray or ray://HOST:PORT
    """

    on: str = LOCAL
    gpus: float | None = None

    def __post_init__(self) -> None:
        """Check both."""
        if self.on not in (LOCAL, RAY) and _REMOTE.fullmatch(str(self.on)) is None:
            raise BadRequest(f"on is '{self.on}'; expected local, ray or ray://HOST:PORT")
        if self.gpus is None:
            return
        if not self.is_ray:
            raise BadRequest("gpus are declared for tasks of Ray; expected on=ray with them")
        if self.gpus <= 0 or (self.gpus > 1 and self.gpus != int(self.gpus)):
            raise BadRequest(f"gpus is {self.gpus:g}; expected a share above 0 and below 1, or a whole number")

    @property
    def is_ray(self) -> bool:
        """Whether the trainings are tasks of Ray."""
        return self.on != LOCAL

    @property
    def address(self) -> str | None:
        """The address of the cluster; None leaves it to Ray."""
        return None if self.on in (LOCAL, RAY) else self.on

    def check(self, device: str) -> None:
        """Check that tasks can be given ``device``, and that Ray is there if it is to be used.

        Raises:
            BadRequest: As of :meth:`gpus_on`.
            UserError: Ray is not installed.
        """
        if self.is_ray:
            self.gpus_on(device)
            require_ray()

    def gpus_on(self, device: str) -> float:
        """Return the GPUs that a task declares which computes on ``device``.

        Raises:
            BadRequest: The device is one certain GPU, or no GPU although some were asked for.
        """
        kind, _, number = device.partition(":")
        if kind == "cpu":
            if self.gpus is not None:
                raise BadRequest(f"gpus is {self.gpus:g}, and the device is cpu; expected one of them")
            return 0.0
        if number not in ("", "0"):
            raise BadRequest(f"device is '{device}'; with on={self.on} expected {kind}: Ray says which GPU a task has")
        return 1.0 if self.gpus is None else self.gpus


@dataclass(frozen=True, kw_only=True)
class PlacedInputs:
    """Inputs of commands that make many trainings.

    Attributes:
        on: As of :class:`Placement`.
        gpus: Likewise.
    """

    on: str = option(
        "--on",
        kind=str,
        default=LOCAL,
        show_default=True,
        metavar="local|ray|ray://HOST:PORT",
        help="Where to train. local: processes of this machine. ray: tasks of Ray, on the cluster that RAY_ADDRESS "
        "names or else on one that is started on this machine. ray://HOST:PORT: on the cluster there.",
    )
    gpus: float | None = option(
        "--gpus",
        kind=float,
        above=0,
        metavar="N",
        help="With --on ray: GPUs of each task; 0.25 lets four share one.  [default: 1 where --device is a GPU]",
    )

    @property
    def placement(self) -> Placement:
        """Both, checked.

        Raises:
            BadRequest: As of :class:`Placement`.
        """
        return Placement(self.on, self.gpus)
