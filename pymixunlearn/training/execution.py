"""Execution of a network: in which memory layout, compiled or not."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


class Execution:
    """Runs networks as the settings say.

    Args:
        device: Where the networks are.
        channels_last: Whether images and convolutions lie with the channels innermost; None does so on GPUs, whose
            tensor cores want it. On a CPU it made no difference to ResNet-18.
        compile: Whether networks go through ``torch.compile``.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        channels_last: bool | None = None,
        compile: bool = False,
    ) -> None:
        """Settle what was left open."""
        self.channels_last = device.type == "cuda" if channels_last is None else channels_last
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
            with torch.no_grad():
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

    def run(self, network: nn.Module, images: Tensor, *, compiled: bool = True) -> Tensor:
        """Return the network's logits [N, classes] for images [N, C, H, W].

        Args:
            network: A network with its weights in the memory layout (:meth:`arrange`).
            images: Its inputs.
            compiled: False for shapes that come rarely, which are not worth the time that compiling takes.
        """
        with self._compiled_forward(network) if self._compile and compiled else nullcontext():
            logits: Tensor = network(self.inputs(images))
        return logits

    @contextmanager
    def _compiled_forward(self, network: nn.Module) -> Iterator[None]:
        """Let the network's own hooks run as they are around what is compiled: they may open and close contexts."""
        if id(network) not in self._compiled:
            self._compiled[id(network)] = torch.compile(network.forward, dynamic=False)
        own = vars(network).get("forward")  # that of its class, unless someone set another one
        network.forward = self._compiled[id(network)]
        try:
            yield
        finally:
            if own is None:
                del network.forward
            else:
                network.forward = own
