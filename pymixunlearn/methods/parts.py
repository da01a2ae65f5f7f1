"""Parts of a loop that its snapshots include, beside networks and optimisers."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class Tensors(dict[str, Tensor]):
    """Named tensors on one device, as a part that snapshots include."""

    def state_dict(self) -> dict[str, Any]:
        """Return the tensors."""
        return dict(self)

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Take the tensors over, to where their namesakes are."""
        for name, value in state_dict.items():
            self[name] = value.to(self[name].device)


class Facts(dict[str, Any]):
    """What a resumed loop has to know besides its weights, as a part that snapshots include."""

    def state_dict(self) -> dict[str, Any]:
        """Return the facts."""
        return dict(self)

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Take the facts over."""
        self.update(state_dict)
