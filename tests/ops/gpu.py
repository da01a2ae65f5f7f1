"""What the tests that need a GPU share: a stream whose inputs come late, CUDA graphs, and a second GPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

#: Some 50 to 100 ms: far longer than the host takes to queue what a test runs.
SLEEP_CYCLES = 100_000_000

Run = Callable[..., list[Tensor]]

needs_a_second_gpu = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs a second GPU")


def on_a_late_stream(run: Run, inputs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Results of ``run(*inputs)`` on the default stream, and on another one, on which the inputs are written late.

    Until then they are NaN (0, where there is none), so whatever is queued elsewhere reads that. Synchronising, which
    would hide it, is an error.
    """
    buffers = [torch.empty_like(tensor).copy_(tensor) for tensor in inputs]
    expected = run(*buffers)
    late: list[Tensor] = []
    stream = torch.cuda.Stream()
    for attempt in range(5):
        late.clear()
        for buffer in buffers:
            buffer.fill_(math.nan if buffer.is_floating_point() else 0)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.cuda.stream(stream):
                torch.cuda._sleep(SLEEP_CYCLES << attempt)  # a busy host gets ever more time
                for buffer, tensor in zip(buffers, inputs, strict=True):
                    buffer.copy_(tensor)
                written = stream.record_event()
                late += run(*buffers)
                in_time = not written.query()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        stream.synchronize()
        if attempt > 0 and in_time:  # the first one may wait by itself: to load kernels, to allocate memory
            return expected, late
    raise AssertionError("the inputs were always written before everything was queued: the test says nothing")


def compare_graph_replays(run: Run, draws: Sequence[Sequence[Tensor]]) -> None:
    """A CUDA graph of ``run``, recorded on the first inputs, gives on the others what calls give on them."""
    buffers = [torch.empty_like(tensor).copy_(tensor) for tensor in draws[0]]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run(*buffers)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run(*buffers)
    for inputs in draws[1:]:
        for buffer, tensor in zip(buffers, inputs, strict=True):
            buffer.copy_(tensor)
        graph.replay()
        expected = run(*buffers)
        assert captured and all(map(torch.equal, captured, expected))
