"""Execution of a network: in which precision and memory layout, compiled or not."""

from __future__ import annotations

import warnings
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

    def arrange(self, *networks: nn.Module, example: Tensor) -> None:
        """Bring the networks' weights into the memory layout, in place.

        A network that cannot process images with the channels innermost, since it views them as rows, gets contiguous
        ones from here on, and a warning says so.

        Args:
            *networks: Networks of one architecture, the first of them in evaluation mode.
            example: Images [N, C, H, W] for a trial run of the first.
        """
        if not self.channels_last:
            return
        for network in networks:
            network.to(memory_format=torch.channels_last)
        try:
            with torch.no_grad(), self.autocast():
                networks[0](self.inputs(example))
        except RuntimeError as error:
            if "view" not in str(error):
                raise
            self.channels_last = False
            for network in networks:
                network.to(memory_format=torch.contiguous_format)
            warnings.warn(
                "model calls view() on a tensor whose channels lie innermost, so its images are contiguous here; "
                "flatten(1) or reshape() instead of view() makes it faster, channels_last=false ends this warning",
                UserWarning,
                stacklevel=2,
            )

    def inputs(self, images: Tensor) -> Tensor:
        """Return images [N, C, H, W] in the memory layout that the networks take."""
        return images.contiguous(memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)

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
