"""Function of tensors that a GPU replays as a CUDA graph, and that every other device simply runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import PyTree, tree_leaves, tree_map, tree_structure

from pymixunlearn.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")

WARM_UP = 3
"""Calls that run as they are before the capture: optimisers make their state, libraries choose their kernels."""


class GraphedStep(Generic[P, R]):
    """Runs ``function``; on a CUDA device its launches are recorded once and then replayed as one.

    The first calls run like any other, so they count as work and nothing is done twice. A call whose arguments have
    other shapes than the first call's (the last batch of an epoch) is run and not replayed.

    Args:
        function: Takes and returns structures of tensors (``torch.utils._pytree``: tuples, named tuples, dicts), None
            among them. It may change tensors in place (parameters, statistics); whatever else it does to Python objects
            happens only in the calls that run. It must not wait for the device, and draws no randomness but from
            PyTorch's global generator.
        device: Where the tensors are.
        record: False to run every call, on GPUs too.

    Raises:
        UserError: When called: the function does what cannot be recorded.
    """

    def __init__(self, function: Callable[P, R], device: torch.device, *, record: bool = True) -> None:
        """Remember the function; nothing is captured yet."""
        self._function: Callable[..., R] = function
        self._captures = record and device.type == "cuda"
        self._device = device
        self._signature: tuple[object, ...] | None = None
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: PyTree = ()
        self._result: R | None = None

    @property
    def captured(self) -> bool:
        """Whether calls are replayed by now."""
        return self._graph is not None

    def __call__(self, *inputs: P.args, **named: P.kwargs) -> R:
        """Run or replay; what a replay returns is overwritten by the next one."""
        if not self._captures:
            return self._function(*inputs, **named)
        if named:
            raise TypeError("a step that is recorded takes no named arguments")
        leaves = tree_leaves(inputs)
        signature = (tree_structure(inputs), *(leaf if leaf is None else (leaf.shape, leaf.dtype) for leaf in leaves))
        if self._signature is None:
            self._signature = signature
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        if signature != self._signature:
            return self._function(*inputs)
        if self._calls < WARM_UP:
            self._calls += 1
            return self._run_aside(inputs)
        if self._graph is None:
            self._capture(inputs)
        return self._replay(inputs)

    def _run_aside(self, inputs: PyTree) -> R:
        """Run on the stream that will capture: autograd must not have tied the parameters to another one."""
        outside = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(outside)
        with torch.cuda.stream(self._stream), warnings.catch_warnings():
            # Optimisers that can be captured remark on steps that are not.
            warnings.filterwarnings("ignore", message=".*capturable.*")
            result = self._function(*inputs)
        outside.wait_stream(self._stream)
        return result

    def _capture(self, inputs: PyTree) -> None:
        self._inputs = tree_map(lambda leaf: leaf if leaf is None else leaf.clone(), inputs)
        graph = torch.cuda.CUDAGraph()
        cause: RuntimeError | None = None  # ending a broken capture raises once more
        try:
            # Only this thread's calls are watched: another one may be fetching the next batches meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                try:
                    self._result = self._function(*self._inputs)
                except RuntimeError as error:
                    cause = error
                    raise
        except RuntimeError as error:
            cause = cause or error
            if isinstance(cause, torch.OutOfMemoryError):
                raise
            reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
            raise UserError(
                f"the model's step cannot be recorded as a CUDA graph ({reason}); set cuda_graphs=false, or let the "
                "model wait for nothing and do the same in every step"
            ) from error
        self._graph = graph

    def close(self) -> None:
        """Give up the recording, its memory and the function, which may hold whoever holds this."""
        self._captures = False
        self._graph = self._result = None
        self._inputs = ()
        self._function = _closed

    def _replay(self, inputs: PyTree) -> R:
        assert self._graph is not None and self._result is not None
        recorded, given = (_tensors(structure) for structure in (self._inputs, inputs))
        torch._foreach_copy_(recorded, given)
        self._graph.replay()
        return self._result


def _tensors(structure: PyTree) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(structure) if leaf is not None]


def _closed(*_: object) -> Any:
    raise RuntimeError("this step has been closed")
