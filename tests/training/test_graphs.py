"""Steps that are recorded: structures of tensors go in, and a replay sees the values of the call."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from pymixunlearn.training import graphs
from pymixunlearn.training.graphs import WARM_UP, GraphedStep


class Pair(NamedTuple):
    images: Tensor
    features: Tensor | None


class Recorder:
    """Stands for a CUDA graph: what is recorded runs again, on the tensors it was recorded with, as one replays it."""

    def __init__(self) -> None:
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1


def step(pair: Pair, scale: Tensor, rest: dict[str, Tensor | None]) -> dict[str, Tensor]:
    assert pair.features is None and rest["none"] is None
    return {"scaled": pair.images * scale + rest["offset"]}


def arguments(value: float, count: int = 2) -> tuple[Pair, Tensor, dict[str, Tensor | None]]:
    return Pair(torch.full((count,), value), None), torch.tensor(3.0), {"offset": torch.tensor(value), "none": None}


def test_without_a_gpu_the_function_runs() -> None:
    graphed = GraphedStep(step, torch.device("cpu"))
    assert graphed(*arguments(2.0))["scaled"].tolist() == [8.0, 8.0] and not graphed.captured
    graphed.close()
    with pytest.raises(RuntimeError, match="has been closed"):
        graphed(*arguments(2.0))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> GraphedStep[Any, dict[str, Tensor]]:
    """A step that records although there is no GPU: streams and graphs do nothing."""
    graphed = GraphedStep(step, torch.device("cuda"))

    def run_aside(inputs: Any) -> dict[str, Tensor]:
        return step(*inputs)

    def capture(inputs: Any) -> None:
        graphed._inputs = graphs.tree_map(lambda leaf: leaf if leaf is None else leaf.clone(), inputs)
        graphed._result, graphed._graph = step(*graphed._inputs), Recorder()  # type: ignore[assignment]

    monkeypatch.setattr(graphed, "_run_aside", run_aside)
    monkeypatch.setattr(graphed, "_capture", capture)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    return graphed


def test_a_replay_gets_the_values_of_every_tensor_in_the_structure(recorded: Any) -> None:
    for call in range(WARM_UP):
        assert recorded(*arguments(float(call)))["scaled"].tolist() == [4.0 * call] * 2
        assert not recorded.captured
    result = recorded(*arguments(7.0))
    assert recorded.captured and recorded._graph.replays == 1
    assert recorded(*arguments(9.0)) is result and recorded._graph.replays == 2
    pair, _, rest = recorded._inputs
    assert pair.images.tolist() == [9.0, 9.0] and rest["offset"].item() == 9.0


@pytest.mark.parametrize("change", ["shape", "dtype", "structure"])
def test_a_call_of_another_form_runs_unrecorded(change: str, recorded: Any) -> None:
    for _ in range(WARM_UP + 1):
        recorded(*arguments(1.0))
    pair, scale, rest = arguments(1.0, count=3 if change == "shape" else 2)
    if change == "dtype":
        scale = scale.double()
    if change == "structure":
        rest = {"none": None, "offset": rest["offset"], "more": torch.zeros(())}
    assert recorded(pair, scale, rest)["scaled"].tolist() == [4.0] * len(pair.images)
    assert recorded._graph.replays == 1


def test_arguments_have_no_names(recorded: Any) -> None:
    pair, scale, rest = arguments(1.0)
    with pytest.raises(TypeError, match="no named arguments"):
        recorded(pair, scale, rest=rest)
