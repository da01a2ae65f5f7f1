"""Every operator in every way that it is called, for the tests that all operators pass.

They are collected from where each operator has them: ``PROBLEMS`` and ``BAD_ARGUMENTS`` of ``test_OPERATOR.py``, or of
``OPERATOR_calls.py`` where they would fill that file.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from pymixunlearn.ops import _OPERATORS
from tests.ops.problem import Problem, Refusal


def _calls(operator: ModuleType) -> ModuleType:
    name = operator.__name__.rpartition("._")[2]
    own = f"tests.ops.{name}_calls"
    return import_module(own if find_spec(own) else f"tests.ops.test_{name}")


_CALLS = [_calls(operator) for operator in _OPERATORS]

PROBLEMS: list[Problem] = [problem for calls in _CALLS for problem in calls.PROBLEMS]
#: Compiled together, for compiling is slow; an operator that does not say so alone, for the strides of its maps.
COMPILED: dict[str, list[Problem]] = {
    name: problems
    for calls in _CALLS
    for name, problems in getattr(calls, "COMPILED", {one.name: [one] for one in calls.PROBLEMS}).items()
}
BAD_ARGUMENTS: list[Refusal] = [refusal for calls in _CALLS for refusal in calls.BAD_ARGUMENTS]
#: Refused for numbers in CPU tensors, which a traced graph, and a GPU, would have to wait for.
BAD_VALUES: list[Refusal] = [refusal for calls in _CALLS for refusal in getattr(calls, "BAD_VALUES", [])]
