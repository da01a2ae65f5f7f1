"""A batch divided among processes: each computes its own rows of it, and gets the rows of all.

A network that :func:`divide` has prepared takes its own rows of a batch and gives back the rows of all. So losses see
the whole batch, whatever they are, and the gradients of all processes are averaged before an optimiser's step. The
functions here do nothing where there is one process.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pymixunlearn.parallel import State, dividing, processes


class _Rows(torch.autograd.Function):
    """Rows of one process to the rows of all."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, start: int, total: int) -> Tensor:
        ctx.rows = start, len(own)
        # A sum with zeros is exact, and rows need not be equally many.
        every = own.new_zeros(total, *own.shape[1:])
        every[start : start + len(own)] = own
        dist.all_reduce(every)
        return every

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        start, count = ctx.rows
        # Averaging over the processes makes this the sum over the parts of the batch.
        return grad[start : start + count] * processes(), None, None


class _Sum(torch.autograd.Function):
    """Sum over the processes; the gradient of one process's part is that of the sum in all of them."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone()
        dist.all_reduce(total)
        return total


class Division:
    """The hooks of one network that :func:`divide` has prepared.

    Attributes:
        start: First row of this process in the present batch.
        count: How many it has.
        total: How many the batch has; 0 where it is not divided.
    """

    def __init__(self) -> None:
        """Start outside of a forward pass."""
        self.start = self.count = self.total = 0

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Take this process's rows of the images."""
        self.total = 0
        if not dividing():
            return None
        images = args[0]
        total, rank = len(images), dist.get_rank()
        self.start, end = (total * part // processes() for part in (rank, rank + 1))
        self.count, self.total = end - self.start, total
        return (self.own(images), *args[1:])

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Return the logits of the whole batch."""
        return self.whole(output) if isinstance(output, Tensor) else output

    def own(self, rows: Tensor) -> Tensor:
        """Return the rows of this process, of those of the whole batch."""
        # Without a row of its own a process computes one all the same, so that its gradients are there, as zeros.
        return rows[self.start : self.start + max(self.count, 1)] if self.total else rows

    def whole(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes, for those that this one got in the present pass."""
        if not self.total:
            return rows
        found: Tensor = _Rows.apply(rows[: self.count], self.start, self.total)
        return found


class BatchNoise:
    """Dropout of a divided batch: the noise is drawn for the whole batch, as one process draws it."""

    def __init__(self, division: Division) -> None:
        """Remember whose rows they are."""
        self.division = division
        self.inputs: Tensor | None = None

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Have the layer make the noise alone."""
        division, inputs = self.division, args[0]
        if not (division.total and module.training):
            return None
        self.inputs = inputs
        whole = len(inputs) // max(division.count, 1) * division.total  # windows of an image are rows too
        return (torch.ones(whole, *inputs.shape[1:], dtype=inputs.dtype, device=inputs.device), *args[1:])

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """Apply this process's rows of it."""
        if self.inputs is None:
            return output
        inputs, self.inputs = self.inputs, None
        first = len(inputs) // max(self.division.count, 1) * self.division.start
        return inputs * output[first : first + len(inputs)]


class BatchStatistics:
    """Batch normalisation by the statistics of the whole batch.

    PyTorch's SyncBatchNorm does the same on GPUs alone, as a layer of another type.
    """

    def __init__(self, division: Division) -> None:
        """Remember whose rows they are."""
        self.division = division
        self.active = False

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Keep the layer from normalising by its own rows."""
        inputs, total = args[0], self.division.total
        lone = total == 1 and inputs.numel() == len(inputs) * inputs.shape[1]
        if total and module.training and not lone:
            self.active, module.training = True, False

    def after(self, module: Any, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """Normalise, and let the running statistics follow."""
        if not self.active:
            return output
        self.active, module.training = False, True
        inputs = args[0].to(torch.promote_types(args[0].dtype, torch.float32))  # bfloat16 cannot add up many values
        own = inputs[: self.division.count]
        axes = [axis for axis in range(inputs.dim()) if axis != 1]
        values = self.division.total * inputs[0, 0].numel()
        mean = _Sum.apply(own.sum(axes)) / values
        shape = [1, -1, *[1] * (inputs.dim() - 2)]
        variance = _Sum.apply((own - mean.view(shape)).square().sum(axes)) / values
        if module.track_running_stats:
            with torch.no_grad():
                module.num_batches_tracked.add_(1)
                share = module.momentum if module.momentum is not None else 1 / float(module.num_batches_tracked)
                module.running_mean.lerp_(mean, share)
                module.running_var.lerp_(variance * values / max(values - 1, 1), share)
        found: Tensor = (inputs - mean.view(shape)) * (variance + module.eps).rsqrt().view(shape)
        if module.affine:
            found = found * module.weight.view(shape) + module.bias.view(shape)
        return found.to(args[0].dtype)


def divide(model: nn.Module, *, frozen: Iterable[str] = ()) -> None:
    """Have a network, and its copies, work on a part of every batch, in place, until :func:`undivide`.

    Args:
        model: Maps images [N, ...] to one tensor with N rows, each of its own image alone. Dropout and batch
            normalisation are of the whole batch; what other layers draw differs from one process's draws.
        frozen: Names of batch normalisations that always use their running statistics.
    """
    if not State.working or _division(model) is not None:
        return
    division = Division()
    model.register_forward_pre_hook(division.before, prepend=True)
    model.register_forward_hook(division.after)
    fixed = set(frozen)
    for name, layer in model.named_modules():
        hook: BatchNoise | BatchStatistics
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and name not in fixed:
            hook = BatchStatistics(division)
        elif _makes_noise(layer):
            hook = BatchNoise(division)
        else:
            continue
        layer.register_forward_pre_hook(hook.before, prepend=True)
        layer.register_forward_hook(hook.after)


def undivide(model: nn.Module) -> None:
    """Take the hooks of :func:`divide` off a network or a copy of one, in place."""
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [
                key for key, hook in hooks.items() if isinstance(_owner(hook), (Division, BatchNoise, BatchStatistics))
            ]:
                del hooks[key]


def whole_batch(model: nn.Module, rows: Tensor) -> Tensor:
    """Return what a layer of ``model`` gave for all rows of the batch, for what it gave in this process.

    Example:
        >>> whole_batch(nn.Linear(2, 2), torch.ones(3, 2)).shape
        torch.Size([3, 2])
    """
    division = _division(model)
    return rows if division is None else division.whole(rows)


def own_rows(model: nn.Module, rows: Tensor) -> Tensor:
    """Return the rows that a layer of ``model`` has in this process, of those of the whole batch.

    Example:
        >>> own_rows(nn.Linear(2, 2), torch.ones(3, 2)).shape
        torch.Size([3, 2])
    """
    division = _division(model)
    return rows if division is None else division.own(rows)


@torch.no_grad()
def average_gradients(groups: Sequence[dict[str, Any]]) -> None:
    """Replace the gradients of an optimiser's parameters by their mean over the processes."""
    if not dividing():
        return
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for group in groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                kinds.setdefault((parameter.grad.dtype, parameter.grad.device), []).append(parameter.grad)
    for gradients in kinds.values():
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= processes()
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, part in zip(gradients, torch.split(flat, sizes), strict=True):
            gradient.copy_(part.view_as(gradient))


def _makes_noise(layer: nn.Module) -> bool:
    alpha = (nn.AlphaDropout, nn.FeatureAlphaDropout)  # they do more than multiply
    dropout = isinstance(layer, nn.modules.dropout._DropoutNd) and not isinstance(layer, alpha)
    return dropout or type(layer).__name__ in ("StochasticDepth", "DropPath")


def _division(model: nn.Module) -> Division | None:
    owners = (_owner(hook) for hook in model._forward_pre_hooks.values())
    return next((owner for owner in owners if isinstance(owner, Division)), None)


def _owner(hook: Any) -> Any:
    return getattr(hook, "__self__", None)
