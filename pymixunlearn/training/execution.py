"""How a network is run: in which precision and memory layout, compiled or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_FIRST_WITH_BFLOAT16 = (8, 0)


class Execution:
    """Runs networks as the settings say.

    Args:
        device: Where the networks are.
        precision: "float32" or "bfloat16" (autocast: parameters and losses stay in float32); None takes bfloat16 on
            GPUs that compute in it, and float32 elsewhere.
        channels_last: Whether images and convolutions lie with the channels innermost; None does so on GPUs, whose
            tensor cores want it. On a CPU it made no difference to ResNet-18.
        compile: Whether networks go through ``torch.compile``.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        precision: str | None = None,
        channels_last: bool | None = None,
        compile: bool = False,
    ) -> None:
        """Settle what was left open."""
        on_gpu = device.type == "cuda"
        if precision is None:
            able = on_gpu and torch.cuda.get_device_capability(device) >= _FIRST_WITH_BFLOAT16
            precision = "bfloat16" if able else "float32"
        self.device = device
        self.precision = precision
        self.channels_last = on_gpu if channels_last is None else channels_last
        self._compile = compile
        self._compiled: dict[int, Callable[[Tensor], Any]] = {}

    def arrange(self, *networks: nn.Module) -> None:
        """Bring the networks' weights into the memory layout, in place."""
        if self.channels_last:
            for network in networks:
                network.to(memory_format=torch.channels_last)

    def inputs(self, images: Tensor) -> Tensor:
        """Return images [N, C, H, W] in the memory layout that the networks take."""
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images

    def autocast(self) -> torch.autocast:
        """Return the context that a forward pass runs in."""
        # A weight is cast once per pass, so a cache would save nothing, and a captured graph must not hold one.
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16", cache_enabled=False
        )

    def run(self, network: nn.Module, images: Tensor, *, compiled: bool = True) -> Tensor:
        """Return the network's logits [N, classes] for images [N, C, H, W], in float32 or better.

        Args:
            network: A network with its weights in the memory layout (:meth:`arrange`).
            images: Its inputs.
            compiled: False for shapes that come rarely, which are not worth the time that compiling takes.
        """
        call: Callable[[Tensor], Tensor] = self._compiled_call(network) if self._compile and compiled else network
        with self.autocast():
            logits = call(self.inputs(images))
        return self.widened(logits)

    @staticmethod
    def widened(output: Tensor) -> Tensor:
        """Return a network's output in float32 or better, whatever it was computed in."""
        return output.to(torch.promote_types(output.dtype, torch.float32))

    def _compiled_call(self, network: nn.Module) -> Callable[[Tensor], Any]:
        if id(network) not in self._compiled:
            self._compiled[id(network)] = torch.compile(network, dynamic=False)
        return self._compiled[id(network)]
