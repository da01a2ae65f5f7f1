"""Export to ONNX, which has none of the operators: the graph is made of PyTorch's own."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pymixunlearn import ops
from tests.ops.problem import Problem
from tests.ops.problems import PROBLEMS

pytestmark = pytest.mark.extras


class Model(nn.Module):
    """An operator as a network."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.problem.call(ops, *tensors)


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_every_operator_is_exported_as_pytorchs_own(problem: Problem, tmp_path: Path) -> None:
    # Imported here: collecting the tests needs neither it nor onnxscript, which the export itself imports.
    onnx, evaluator = import_module("onnx"), import_module("onnx.reference")
    tensors = tuple(x.detach() for x in problem.draw(problem.sizes[1]))
    model = Model(problem)
    program: Any = torch.onnx.export(model, tensors, dynamo=True, verbose=False)
    program.save(tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert len(graph.node) > 1 and all(not node.domain for node in graph.node)
    inputs = dict(zip((value.name for value in graph.input), (x.numpy() for x in tensors), strict=True))
    (result,) = evaluator.ReferenceEvaluator(str(tmp_path / "model.onnx")).run(None, inputs)
    torch.testing.assert_close(torch.tensor(result), model(*tensors), rtol=1e-4, atol=1e-4)


def test_an_export_to_torch_keeps_the_operators_after_one_to_onnx() -> None:
    problem = next(problem for problem in PROBLEMS if problem.name.startswith("mask_mix"))
    tensors = tuple(x.detach() for x in problem.draw(problem.sizes[1]))
    torch.onnx.export(Model(problem), tensors, dynamo=True, verbose=False)
    program = torch.export.export(Model(problem), tensors)
    assert any("pymixunlearn.mask_mix" in str(node.target) for node in program.graph.nodes)
