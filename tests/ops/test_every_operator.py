"""What every operator promises beside the rest of PyTorch: autograd, tracing, GPUs, instruction sets, and refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pymixunlearn import ops
from pymixunlearn.ops import _OPERATORS, reference
from tests.ops.agreement import agree_with_truth, second_gradients
from tests.ops.gpu import compare_graph_replays, needs_a_second_gpu, on_a_late_stream
from tests.ops.problem import Problem
from tests.ops.problems import BAD_ARGUMENTS, BAD_VALUES, COMPILED, PROBLEMS
from tests.ops.tracing import check_compiled

every = pytest.mark.parametrize("problem", PROBLEMS, ids=[problem.name for problem in PROBLEMS])
DOUBLE = torch.float64


# --- autograd --------------------------------------------------------------------------------------------------------


@every
def test_gradcheck(device: str, problem: Problem) -> None:
    leaves, constants = problem.split(problem.draw(problem.sizes[0], DOUBLE, device))
    assert torch.autograd.gradcheck(problem.bound(ops, constants), leaves)


@every
def test_second_derivatives(device: str, problem: Problem) -> None:
    leaves, constants = problem.split(problem.draw(problem.sizes[0], DOUBLE, device))
    # The reference serves these: PyTorch's interpolation adds up in varying order on a GPU.
    assert torch.autograd.gradgradcheck(problem.bound(ops, constants), leaves, nondet_tol=1e-12)


@every
def test_gradients_only_where_asked(device: str, problem: Problem) -> None:
    tensors = problem.draw(problem.sizes[1], device=device, grad=False)
    expected = problem.results(*tensors)[1:]
    for wanted in range(2**problem.differentiable) if problem.differentiable < 6 else (0, 1, 2, 4, 16, 48, 25, 63):
        some = [x.clone().requires_grad_(bool(wanted >> i & 1)) for i, x in enumerate(tensors)]
        value = problem.call(ops, *some)
        assert value.requires_grad == bool(wanted)
        if wanted:
            value.backward(problem.cotangent(value))  # type: ignore[no-untyped-call]
        for i, grad in enumerate(expected):
            own = some[i].grad
            assert (own is not None) == bool(wanted >> i & 1)
            assert own is None or torch.equal(own, grad)
    with torch.no_grad():
        assert not problem.call(ops, *problem.draw(problem.sizes[1], device=device)).requires_grad


@every
def test_backward_twice_needs_retain_graph_and_agrees(device: str, problem: Problem) -> None:
    leaves, constants = problem.split(problem.draw(problem.sizes[1], device=device))
    total = problem.call(ops, *leaves, *constants).sum()
    first = torch.autograd.grad(total, leaves, retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(total, leaves)))
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(total, leaves)


@every
def test_function_transforms(device: str, problem: Problem) -> None:
    size = problem.sizes[0]
    inputs, constants = problem.split(problem.draw(size, device=device, grad=False))
    tangents, _ = problem.split(problem.draw(size, device=device, seed=1, grad=False))
    call = problem.bound(ops, constants)
    leaves = [x.clone().requires_grad_() for x in inputs]
    expected = call(*leaves)
    grads = torch.autograd.grad(expected.sum(), leaves)
    value, derivative = torch.func.jvp(call, tuple(inputs), tuple(tangents))
    torch.testing.assert_close(value, expected.detach())
    along = sum((grad * tangent).sum() for grad, tangent in zip(grads, tangents, strict=True))
    torch.testing.assert_close(derivative.sum(), along, rtol=1e-4, atol=1e-5)
    by_all = torch.func.grad(lambda *x: call(*x).sum(), argnums=tuple(range(len(inputs))))(*inputs)
    torch.testing.assert_close(by_all, grads)
    stacked = torch.func.vmap(call)(*(torch.stack(pair) for pair in zip(inputs, tangents, strict=True)))
    torch.testing.assert_close(stacked, torch.stack([expected.detach(), call(*tangents)]))


@every
def test_empty_batches(device: str, problem: Problem) -> None:
    for size in problem.empty:
        leaves, constants = problem.split(problem.draw(size, DOUBLE, device, grad=False))
        agree_with_truth(problem.bound(ops, constants), problem.bound(reference, constants), leaves, None)
        _, *grads = problem.results(*leaves, *constants)
        assert [grad.shape for grad in grads] == [x.shape for x in leaves]


# --- the dispatcher --------------------------------------------------------------------------------------------------


class Calls(TorchDispatchMode):
    """Records this package's operators that are called, with their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "pymixunlearn":
            self.made.append((func, args))
        return func(*args, **(kwargs or {}))


def calls_of(problem: Problem, dtype: torch.dtype, device: str) -> list[tuple[Any, tuple[Any, ...]]]:
    """What a call with and one without gradients, and a backward, reach in the dispatcher."""
    leaves, constants = problem.split(problem.draw(problem.sizes[0], dtype, device))
    with Calls() as calls:
        value = problem.call(ops, *leaves, *constants)
        torch.autograd.grad(value, leaves, problem.cotangent(value))
        with torch.no_grad():
            problem.call(ops, *leaves, *constants)
    return calls.made


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_opcheck(device: str, dtype: torch.dtype, problem: Problem) -> None:
    for operator, arguments in calls_of(problem, dtype, device):
        if "backward" in operator.name() or "gradient" in operator.name():  # these are not differentiated
            arguments = tuple(x.detach() if isinstance(x, Tensor) else x for x in arguments)
        torch.library.opcheck(operator, arguments)


def test_opcheck_reaches_every_operator() -> None:
    made = [calls_of(problem, dtype, "cpu") for problem in PROBLEMS for dtype in (torch.float32, torch.bfloat16)]
    names = {operator.name().removeprefix("pymixunlearn::") for calls in made for operator, _ in calls}
    assert names == {fake.__name__.removeprefix("_") for operator in _OPERATORS for fake in operator.FAKES}


compiled_together = pytest.mark.parametrize("problems", COMPILED.values(), ids=COMPILED)


def as_one_function(problems: list[Problem]) -> Callable[..., Tensor]:
    """The operator itself, or several added up."""
    if len(problems) == 1:
        return partial(problems[0].call, ops)
    counts = [len(problem.draw(problem.sizes[0])) for problem in problems]

    def total(*tensors: Tensor) -> Tensor:
        result, at = tensors[0].new_zeros(()), 0
        for problem, count in zip(problems, counts, strict=True):
            result = result + problem.call(ops, *tensors[at : at + count]).square().sum()
            at += count
        return result

    return total


def drawn_together(problems: list[Problem], sizes: range, device: str) -> list[list[Tensor]]:
    return [[x for problem in problems for x in problem.draw(problem.sizes[size], device=device)] for size in sizes]


@compiled_together
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile_traces_one_graph_for_all_sizes(device: str, backend: str, problems: list[Problem]) -> None:
    draws = drawn_together(problems, range(1, 4), device)
    check_compiled(as_one_function(problems), draws, graphs=1, backend=backend, dynamic=True)


@compiled_together
def test_compile_settles_after_two_graphs(device: str, problems: list[Problem]) -> None:
    check_compiled(as_one_function(problems), drawn_together(problems, range(1, 5), device), graphs=2)


@compiled_together
def test_export_keeps_the_operators_for_all_sizes(problems: list[Problem]) -> None:
    class Model(torch.nn.Module):
        def forward(self, *tensors: Tensor) -> Tensor:
            return as_one_function(problems)(*tensors)

    draws = [[x.detach() for x in draw] for draw in drawn_together(problems, range(1, 5), "cpu")]
    # Channels of images are fixed by the mean and std beside them; everything else must stay free for the other draws.
    sizes = tuple(dict.fromkeys(range(x.dim()), torch.export.Dim.AUTO) for x in draws[0])
    program = torch.export.export(Model(), tuple(draws[0]), dynamic_shapes=(sizes,))
    names = {str(node.target).split(".")[1] for node in program.graph.nodes if "pymixunlearn" in str(node.target)}
    with Calls() as calls:
        Model()(*draws[0])
    assert names == {operator.name().removeprefix("pymixunlearn::") for operator, _ in calls.made}
    for draw in draws:
        torch.testing.assert_close(program.module()(*draw), Model()(*draw))


# --- reproducibility -------------------------------------------------------------------------------------------------


@every
def test_bitwise_equal_over_threads(problem: Problem) -> None:
    tensors = problem.draw(problem.sizes[-1], grad=False)
    expected = problem.results(*tensors)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert all(map(torch.equal, problem.results(*tensors), expected))
    finally:
        torch.set_num_threads(threads)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bitwise_equal_over_a_hundred_runs_in_deterministic_mode(
    device: str, dtype: torch.dtype, problem: Problem
) -> None:
    tensors = problem.draw(problem.sizes[3], dtype, device, grad=False)
    expected = problem.results(*tensors)
    torch.use_deterministic_algorithms(True)
    try:
        assert all(all(map(torch.equal, problem.results(*tensors), expected)) for _ in range(100))
    finally:
        torch.use_deterministic_algorithms(False)


def sums_of_squares(module: Any) -> dict[str, list[float]]:
    """One number for each result of every operator, in float64."""
    draws = {problem: problem.draw(problem.sizes[4], DOUBLE, grad=False) for problem in PROBLEMS}
    return {
        problem.name: [x.square().sum().item() for x in problem.results(*tensors, module=module)]
        for problem, tensors in draws.items()
    }


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_agrees(isa: str) -> None:
    code = (
        "import json; from tests.ops.test_every_operator import *;"
        "print(json.dumps([ops.status().facts['cpu_isa'], sums_of_squares(ops)]))"
    )
    environment = {**os.environ, "PYMIXUNLEARN_CPU_ISA": isa}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    used, sums = json.loads(out.stdout)
    known = ("baseline", "avx2", "avx512")
    assert used in known[: known.index(isa) + 1]
    for name, expected in sums_of_squares(reference).items():
        assert sums[name] == pytest.approx(expected, rel=1e-11), name


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [ops, reference], ids=["compiled", "reference"])
@pytest.mark.parametrize(("call", "error", "message"), [*BAD_ARGUMENTS, *BAD_VALUES])
def test_bad_arguments_are_named(
    module: Any, call: Callable[[Any], Tensor], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(module)


@pytest.mark.parametrize(("call", "error", "message"), [case for case in BAD_ARGUMENTS if case[1] is ValueError])
def test_bad_arguments_are_named_in_compiled_graphs_too(
    call: Callable[[Any], Tensor], error: type[Exception], message: str
) -> None:
    torch._dynamo.reset()
    with pytest.raises(error, match=message) as caught:
        torch.compile(lambda: call(ops), backend="eager")()
    assert ".py" not in str(caught.value)


# --- GPU only --------------------------------------------------------------------------------------------------------


@every
@pytest.mark.cuda
@pytest.mark.parametrize("size", [1, -1])
def test_a_side_stream_without_synchronisation(problem: Problem, size: int) -> None:
    expected, late = on_a_late_stream(problem.results, problem.draw(problem.sizes[size], device="cuda", grad=False))
    assert len(late) == 1 + problem.differentiable and all(map(torch.equal, late, expected))


@every
@pytest.mark.cuda
def test_second_derivatives_do_not_synchronise(problem: Problem) -> None:
    def run(*tensors: Tensor) -> list[Tensor]:
        leaves, constants = problem.split(list(tensors))
        return second_gradients(problem.bound(ops, constants), leaves)

    expected, late = on_a_late_stream(run, problem.draw(problem.sizes[1], DOUBLE, "cuda", grad=False))
    torch.testing.assert_close(late, expected)


@every
@pytest.mark.cuda
@pytest.mark.parametrize("size", [1, -1])
def test_cuda_graph_replays_with_changed_inputs(problem: Problem, size: int) -> None:
    """Logits, targets, ratios, temperatures, images: all change between the replays."""
    draws = [problem.draw(problem.sizes[size], device="cuda", seed=seed, grad=False) for seed in (0, 10, 20)]
    compare_graph_replays(problem.results, draws)


@every
@pytest.mark.cuda
@needs_a_second_gpu
def test_work_goes_to_the_device_of_the_tensors(problem: Problem) -> None:
    last = torch.device("cuda", torch.cuda.device_count() - 1)
    tensors = problem.draw(problem.sizes[1], device=str(last), grad=False)
    with torch.cuda.device(last):
        expected = problem.results(*tensors)
    with torch.cuda.device(0):
        actual = problem.results(*tensors)
        assert torch.cuda.current_device() == 0
    assert all(result.device == last for result in actual) and all(map(torch.equal, actual, expected))


@pytest.mark.cuda
@pytest.mark.parametrize("problem", [p for p in PROBLEMS if p.name != "sharpen"], ids=lambda problem: problem.name)
def test_mixed_devices_are_refused(problem: Problem) -> None:
    first, *others = problem.draw(problem.sizes[1])
    with pytest.raises(ValueError, match="must be on the device of"):
        problem.call(ops, first.cuda(), *others)
