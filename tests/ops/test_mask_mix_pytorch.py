"""``mask_mix`` beside the rest of PyTorch: autograd, tracing, autocast, threads, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pymixunlearn import ops
from pymixunlearn.ops import reference
from tests.ops.agreement import second_gradients
from tests.ops.gpu import compare_graph_replays, needs_a_second_gpu, on_a_late_stream
from tests.ops.test_mask_mix import draw, operands, pixels
from tests.ops.tracing import check_compiled

registered = torch.ops.pymixunlearn
SHAPE = (3, (8, 6), (2, 3))
NO_NORMALISATION: tuple[float, ...] = ()
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


def leaves_of(
    n_forget: int, n_retain: int, size: tuple[int, int], mask: tuple[int, int], device: str, layout: str = "contiguous"
) -> list[Tensor]:
    inputs = operands(n_forget, n_retain, (3, size, mask), device=device, layout=layout)
    return [x.requires_grad_() for x in inputs]


class Calls(TorchDispatchMode):
    """Records the names of this package's operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "pymixunlearn":
            self.names.append(func.name().removeprefix("pymixunlearn::"))
        return func(*args, **(kwargs or {}))


# --- autograd --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_gradcheck(device: str, pairing: str) -> None:
    inputs = operands(2, 2 if pairing == "zip" else 3, SHAPE, torch.float64, device)
    leaves = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda *x: ops.mask_mix(*x, pairing=pairing), leaves)
    bytes_f, bytes_r = (pixels(2, 3, (4, 4), seed, device) for seed in (0, 1))
    mask = draw(2, 2, 2, seed=0, device=device).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda m: ops.mask_mix(bytes_f, bytes_r, m, mean=MEAN, std=STD, dtype=torch.float64), [mask]
    )


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ((False, False, True), ["mask_mix_backward_mask"]),
        ((True, False, False), ["mask_mix_backward_image"]),
        ((False, True, True), ["mask_mix_backward_image", "mask_mix_backward_mask"]),
        ((True, True, True), ["mask_mix_backward_image"] * 2 + ["mask_mix_backward_mask"]),
    ],
)
def test_gradients_only_where_asked(device: str, wanted: tuple[bool, ...], expected: list[str]) -> None:
    leaves = [x.requires_grad_(need) for x, need in zip(operands(2, 2, SHAPE, device=device), wanted, strict=True)]
    mixed = ops.mask_mix(*leaves)
    with Calls() as calls:
        mixed.backward(torch.ones_like(mixed))
    assert calls.names == expected
    assert [leaf.grad is not None for leaf in leaves] == list(wanted)
    assert not ops.mask_mix(*(leaf.detach() for leaf in leaves)).requires_grad
    with torch.no_grad():
        assert not ops.mask_mix(*leaves).requires_grad


@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_only_the_arguments_are_saved(device: str, pairing: str) -> None:
    inputs = [x.requires_grad_() for x in operands(2, 2 if pairing == "zip" else 3, SHAPE, device=device)]
    saved: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ops.mask_mix(*inputs, pairing=pairing)
    assert saved == [x.data_ptr() for x in inputs]


@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_second_derivatives(device: str, pairing: str) -> None:
    inputs = operands(2, 2 if pairing == "zip" else 3, (2, (4, 3), (2, 2)), torch.float64, device)
    leaves = [x.requires_grad_() for x in inputs]
    # The reference serves these: PyTorch's interpolation adds up in varying order on a GPU.
    check = partial(torch.autograd.gradgradcheck, nondet_tol=1e-12)
    assert check(lambda *x: ops.mask_mix(*x, pairing=pairing), leaves)
    x_f, x_r = (x.detach() for x in leaves[:2])
    assert check(lambda mask: ops.mask_mix(x_f, x_r, mask, pairing=pairing), leaves[2:])


def test_function_transforms(device: str) -> None:
    x_f, x_r, mask = operands(2, 2, SHAPE, device=device)
    tangent = draw(*mask.shape, seed=3, device=device)
    leaf = mask.clone().requires_grad_()
    mixed = ops.mask_mix(x_f, x_r, leaf)
    (grad,) = torch.autograd.grad(mixed.sum(), leaf)
    value, derivative = torch.func.jvp(lambda m: ops.mask_mix(x_f, x_r, m), (mask,), (tangent,))
    torch.testing.assert_close(value, mixed.detach())
    torch.testing.assert_close(derivative.sum(), (grad * tangent).sum())
    torch.testing.assert_close(torch.func.grad(lambda m: ops.mask_mix(x_f, x_r, m).sum())(mask), grad)
    stacked = torch.func.vmap(lambda m: ops.mask_mix(x_f, x_r, m))(torch.stack([mask, tangent]))
    torch.testing.assert_close(stacked, torch.stack([mixed.detach(), ops.mask_mix(x_f, x_r, tangent)]))


# --- the dispatcher --------------------------------------------------------------------------------------------------


def samples(device: str, dtype: torch.dtype, layout: str) -> list[tuple[Any, tuple[Any, ...]]]:
    none = NO_NORMALISATION
    zip_inputs = [x.requires_grad_() for x in operands(2, 2, SHAPE, dtype, device, layout)]
    grid_inputs = [x.requires_grad_() for x in operands(2, 3, SHAPE, dtype, device, layout)]
    last = layout == "channels_last"
    eight_bit = [pixels(2, 3, (8, 6), seed, device) for seed in (0, 1)]
    mask = zip_inputs[2]
    grad, grid_grad = (
        torch.ones_like(ops.mask_mix(*x, pairing=p)) for x, p in ((zip_inputs, "zip"), (grid_inputs, "grid"))
    )
    plain, grid_plain = ([x.detach() for x in inputs] for inputs in (zip_inputs, grid_inputs))
    norm = (list(MEAN), list(STD))
    return [
        (registered.mask_mix, (*zip_inputs, False, none, none, dtype)),
        (registered.mask_mix, (*grid_inputs, True, none, none, torch.float64)),
        (registered.mask_mix, (*eight_bit, mask, False, *norm, torch.bfloat16)),
        (registered.mask_mix_backward_mask, (grad, *plain, False, none, none)),
        (registered.mask_mix_backward_mask, (grad.float(), *eight_bit, plain[2], False, *norm)),
        (registered.mask_mix_backward_image, (grad, plain[2], False, False, 2, 2, dtype, last)),
        (registered.mask_mix_backward_image, (grid_grad, grid_plain[2], True, True, 2, 3, dtype, last)),
    ]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("index", range(7))
def test_opcheck(device: str, index: int, dtype: torch.dtype, layout: str) -> None:
    operator, arguments = samples(device, dtype, layout)[index]
    torch.library.opcheck(operator.default, arguments)


# The first sizes are all different: equal ones would be traced as one and the same.
SIZES = ((4, (12, 10), (6, 7)), (6, (16, 14), (8, 9)), (7, (20, 22), (5, 11)), (9, (31, 18), (12, 13)))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile_traces_one_graph_for_all_sizes(device: str, backend: str, layout: str) -> None:
    def mix(x_f: Tensor, x_r: Tensor, mask: Tensor) -> Tensor:
        return ops.mask_mix(2 * x_f, x_r, mask, pairing="grid").square()

    draws = (leaves_of(n, n + 1, size, mask_size, device, layout) for n, size, mask_size in SIZES[:3])
    check_compiled(mix, draws, graphs=1, backend=backend, dynamic=True)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compile_mixes_normalised_bytes(device: str, backend: str) -> None:
    def mix_bytes(x_f: Tensor, x_r: Tensor, mask: Tensor) -> Tensor:
        # Not MEAN and STD: dynamic=True makes symbols of global numbers at first, which is a graph more.
        mixed = ops.mask_mix(x_f, x_r, mask, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
        assert mixed.dtype == torch.float32
        return mixed.square()

    draws = (
        [*(pixels(n, 3, size, seed, device) for seed in (0, 1)), draw(n, *mask, seed=0, device=device).requires_grad_()]
        for n, size, mask in SIZES[:2]
    )
    check_compiled(mix_bytes, draws, graphs=1, backend=backend, dynamic=True)


@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_compile_settles_after_two_graphs(device: str, pairing: str) -> None:
    draws = (leaves_of(n, n + (pairing == "grid"), size, mask, device) for n, size, mask in SIZES)
    check_compiled(partial(ops.mask_mix, pairing=pairing), draws, graphs=2)


@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_export_keeps_the_operator_for_all_sizes(pairing: str) -> None:
    class Mix(torch.nn.Module):
        def forward(self, x_f: Tensor, x_r: Tensor, mask: Tensor) -> Tensor:
            return ops.mask_mix(x_f, x_r, mask, pairing=pairing, mean=MEAN, std=STD)

    def arguments(n: int, size: tuple[int, int], mask_size: tuple[int, int]) -> tuple[Tensor, ...]:
        n_retain = n + (pairing == "grid")
        pairs = n * n_retain if pairing == "grid" else n
        return *(pixels(m, 3, size, m) for m in (n, n_retain)), draw(pairs, *mask_size, seed=0)

    dynamic = torch.export.Dim.DYNAMIC
    images, masks = {0: dynamic, 2: dynamic, 3: dynamic}, {0: dynamic, 1: dynamic, 2: dynamic}
    program = torch.export.export(
        Mix(), arguments(3, (8, 6), (2, 5)), dynamic_shapes={"x_f": images, "x_r": images, "mask": masks}
    )
    assert "pymixunlearn.mask_mix.default" in {str(node.target) for node in program.graph.nodes}
    for sizes in ((3, (8, 6), (2, 5)), (5, (11, 14), (7, 4)), (2, (30, 9), (3, 3))):
        own = arguments(*sizes)
        torch.testing.assert_close(program.module()(*own), Mix()(*own))


def test_autocast_mixes_in_the_dtype_of_the_images(device: str) -> None:
    x_f, x_r, mask = operands(2, 2, SHAPE, device=device)
    half = mask.bfloat16().requires_grad_()
    with torch.autocast(device, dtype=torch.bfloat16):
        mixed = ops.mask_mix(x_f, x_r, half)
    mixed.sum().backward()
    assert mixed.dtype == torch.float32 and half.grad is not None and half.grad.dtype == torch.bfloat16
    assert torch.equal(mixed, ops.mask_mix(x_f, x_r, half.detach()))


# --- reproducibility -------------------------------------------------------------------------------------------------


def values_and_gradients(*inputs: Tensor, **extra: Any) -> list[Tensor]:
    """The mix, and gradients for what is floating among images and mask, of inputs that end with a cotangent."""
    *operands, cotangent = inputs
    arguments = [x.detach().requires_grad_(x.is_floating_point()) for x in operands]
    mixed = ops.mask_mix(*arguments, **extra)
    return [mixed.detach(), *torch.autograd.grad(mixed, [x for x in arguments if x.requires_grad], cotangent)]


def inputs_of(
    pairing: str, images: str, device: str, size: tuple[int, int] = (32, 32), seed: int = 0
) -> tuple[list[Tensor], dict[str, Any]]:
    """Images of a dtype or bytes, a mask and a cotangent, and the keywords that go with them."""
    shapes = [(n, 3, *size) for n in (4, 5 if pairing == "grid" else 4)]
    pairs = 20 if pairing == "grid" else 4
    extra: dict[str, Any] = {"pairing": pairing}
    if images == "bytes":
        both = [pixels(*shape[:2], size, seed + i, device) for i, shape in enumerate(shapes)]
        extra |= {"mean": MEAN, "std": STD}
        dtype = torch.float32
    else:
        dtype = torch.bfloat16 if images == "bfloat16" else torch.float32
        both = [draw(*shape, seed=seed + i, dtype=dtype, device=device) for i, shape in enumerate(shapes)]
    mask = draw(pairs, 8, 8, seed=seed + 2, device=device, scale=3)
    return [*both, mask, draw(pairs, 3, *size, seed=seed + 3, dtype=dtype, device=device)], extra


IMAGES = ["float32", "bfloat16", "bytes"]


@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_bitwise_equal_over_threads(pairing: str) -> None:
    inputs, extra = inputs_of(pairing, "float32", "cpu", (100, 90))
    expected = values_and_gradients(*inputs, **extra)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert all(map(torch.equal, values_and_gradients(*inputs, **extra), expected))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_bitwise_equal_over_a_hundred_runs(device: str, pairing: str, images: str) -> None:
    inputs, extra = inputs_of(pairing, images, device)
    expected = values_and_gradients(*inputs, **extra)
    assert all(all(map(torch.equal, values_and_gradients(*inputs, **extra), expected)) for _ in range(100))


@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_deterministic_mode_changes_nothing(device: str, pairing: str) -> None:
    """PyTorch's own interpolation refuses it on a GPU, or computes something else."""
    inputs, extra = inputs_of(pairing, "float32", device)
    expected = values_and_gradients(*inputs, **extra)
    torch.use_deterministic_algorithms(True)
    try:
        deterministic = values_and_gradients(*inputs, **extra)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(map(torch.equal, deterministic, expected))


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_agrees(isa: str) -> None:
    code = (
        "import torch; from pymixunlearn import ops; from tests.ops.test_mask_mix import operands;"
        "inputs = [x.double().requires_grad_() for x in operands(3, 3, (3, (37, 29), (9, 14)))];"
        "mixed = ops.mask_mix(*inputs); mixed.square().sum().backward();"
        "print(*(repr(x.square().sum().item()) for x in (mixed, *(i.grad for i in inputs))))"
    )
    environment = {**os.environ, "PYMIXUNLEARN_CPU_ISA": isa}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    inputs = [x.double().requires_grad_() for x in operands(3, 3, (3, (37, 29), (9, 14)))]
    mixed = reference.mask_mix(*inputs)
    mixed.square().sum().backward()
    expected = [x.square().sum().item() for x in (mixed, *(i.grad for i in inputs if i.grad is not None))]
    assert [float(value) for value in out.stdout.split()] == pytest.approx(expected, rel=1e-12)


# --- what is refused -------------------------------------------------------------------------------------------------

X, M = torch.zeros(2, 3, 8, 6), torch.zeros(2, 2, 3)
B = X.to(torch.uint8)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.mask_mix([1.0], X, M), TypeError, "x_forget must be a tensor, got list"),
        (lambda: ops.mask_mix(X.int(), X, M), TypeError, "x_forget must be float32, .* or uint8, got torch.int32"),
        (lambda: ops.mask_mix(X[0], X, M), ValueError, r"x_forget must have shape \[N, C, H, W\], got \[3, 8, 6\]"),
        (lambda: ops.mask_mix(X, X.double(), M), TypeError, "x_retain must have the dtype of x_forget"),
        (lambda: ops.mask_mix(X, B, M), TypeError, "x_retain must have the dtype of x_forget"),
        (lambda: ops.mask_mix(X, X[..., :5], M), ValueError, r"images of shape \[3, 8, 6\], got \[3, 8, 5\]"),
        (lambda: ops.mask_mix(X[..., :0], X[..., :0], M), ValueError, "x_forget must have C, H and W of at least 1"),
        (lambda: ops.mask_mix(X, X[:1], M), ValueError, "zip pairing needs as many .* got 2 and 1"),
        (lambda: ops.mask_mix(X, X, M, pairing="grid"), ValueError, "mask_logits must have 4 rows, .* got 2"),
        (lambda: ops.mask_mix(X, X, M, pairing="all"), ValueError, "pairing must be one of 'zip', 'grid', got 'all'"),
        (lambda: ops.mask_mix(X, X, M[0]), ValueError, r"mask_logits must have shape \[P, h, w\], got \[2, 3\]"),
        (lambda: ops.mask_mix(X, X, M.int()), TypeError, "mask_logits must be float32, .* got torch.int32"),
        (lambda: ops.mask_mix(X, X, M[:, :0]), ValueError, "mask_logits must have h and w of at least 1"),
        (lambda: ops.mask_mix(X, X, M.to("meta")), ValueError, "x_forget must be on the device of mask_logits"),
        (lambda: ops.mask_mix(X, X, M, mean=(0,) * 3), ValueError, "mean and std must be given together"),
        (lambda: ops.mask_mix(X, X, M, mean=(0,) * 3, std=(1,) * 3), TypeError, "mean and std are for uint8 images"),
        (lambda: ops.mask_mix(B, B, M, mean=(0, 0), std=(1,) * 3), ValueError, "mean must have 3 values, .* got 2"),
        (lambda: ops.mask_mix(B, B, M, mean=(0,) * 3, std=(1, 0, 1)), ValueError, r"std must be above 0, got \[1, 0"),
        (lambda: ops.mask_mix(B, B, M, mean=M[0, 0], std=(1,) * 3), TypeError, "mean must be a sequence of numbers"),
        (lambda: ops.mask_mix(B, B, M, mean=("a",) * 3, std=(1,) * 3), TypeError, "mean must be a sequence of numbers"),
        (lambda: ops.mask_mix(B, B, M, dtype=torch.uint8), TypeError, "dtype must be float32, .* got torch.uint8"),
    ],
)
def test_bad_arguments_are_named(call: Callable[[], Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_at_most_64_normalised_channels() -> None:
    wide = torch.zeros(2, 65, 2, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match="up to 64 channels, got 65"):
        ops.mask_mix(wide, wide, M, mean=(0.0,) * 65, std=(1.0,) * 65)
    assert ops.mask_mix(wide, wide, M).shape == wide.shape
    most = wide[:, :64]
    assert torch.equal(ops.mask_mix(most, most, M, mean=(0.5,) * 64, std=(0.5,) * 64), torch.full(most.shape, -1.0))


def test_images_of_unequal_layout_fit_the_backward_of_either(device: str) -> None:
    x_f, x_r, mask = operands(2, 2, SHAPE, device=device)
    leaves = [x_f.contiguous(memory_format=torch.channels_last).requires_grad_(), x_r.requires_grad_(), mask]
    mixed = ops.mask_mix(*leaves)
    grads = torch.autograd.grad(mixed, leaves[:2], mixed.detach().contiguous(memory_format=torch.channels_last))
    plain = [x_f.clone().requires_grad_(), x_r.detach().clone().requires_grad_(), mask]
    mixed = ops.mask_mix(*plain)
    assert all(
        torch.equal(a, b) for a, b in zip(grads, torch.autograd.grad(mixed, plain[:2], mixed.detach()), strict=True)
    )


def test_the_compiled_operator_is_what_runs(device: str) -> None:
    leaves = [x.requires_grad_() for x in operands(2, 2, SHAPE, device=device)]
    with patch.object(reference, "mask_mix", side_effect=AssertionError("the reference ran")):
        ops.mask_mix(*leaves).sum().backward()


# --- GPU only --------------------------------------------------------------------------------------------------------


@pytest.mark.cuda
@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_a_side_stream_without_synchronisation(pairing: str, images: str) -> None:
    inputs, extra = inputs_of(pairing, images, "cuda")
    expected, late = on_a_late_stream(partial(values_and_gradients, **extra), inputs)
    assert len(late) == (2 if images == "bytes" else 4) and all(map(torch.equal, late, expected))


@pytest.mark.cuda
@pytest.mark.parametrize("images", ["float64", "bytes"])
@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_second_derivatives_do_not_synchronise(pairing: str, images: str) -> None:
    (x_f, x_r, mask, _), extra = inputs_of(pairing, "bytes" if images == "bytes" else "float32", "cuda")
    mask = mask.double()

    def run_bytes(x_f: Tensor, x_r: Tensor, mask: Tensor) -> list[Tensor]:
        return second_gradients(lambda m: ops.mask_mix(x_f, x_r, m, dtype=torch.float64, **extra), [mask])

    def run(*x: Tensor) -> list[Tensor]:
        return second_gradients(lambda *x: ops.mask_mix(*x, **extra), x)

    inputs = [x_f, x_r, mask] if images == "bytes" else [x_f.double(), x_r.double(), mask]
    expected, late = on_a_late_stream(run_bytes if images == "bytes" else run, inputs)
    torch.testing.assert_close(late, expected)


@pytest.mark.cuda
@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("pairing", ["zip", "grid"])
def test_cuda_graph_replays_with_changed_inputs(pairing: str, images: str) -> None:
    (first, extra), (second, _), (third, _) = (inputs_of(pairing, images, "cuda", seed=seed) for seed in (0, 10, 20))
    compare_graph_replays(partial(values_and_gradients, **extra), [first, second, third])


@pytest.mark.cuda
@needs_a_second_gpu
def test_a_device_that_is_not_the_current_one() -> None:
    last = f"cuda:{torch.cuda.device_count() - 1}"
    leaves = [x.to(last).requires_grad_() for x in operands(2, 2, SHAPE)]
    with torch.cuda.device(0):
        mixed = ops.mask_mix(*leaves)
        mixed.sum().backward()
    assert str(mixed.device) == last
    torch.testing.assert_close(mixed.cpu(), ops.mask_mix(*(leaf.detach().cpu() for leaf in leaves)))


@pytest.mark.cuda
def test_mixed_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="x_forget must be on the device of mask_logits"):
        ops.mask_mix(X, X, M.cuda())
