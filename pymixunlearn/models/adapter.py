"""One way to call every classifier: float32 images in, float32 logits [N, classes] out.

Hooks on the network itself do it, so that its type, its names and its copies stay what they are. They cast images to
the network's floating-point type, take the logits out of what it returns (:mod:`pymixunlearn.models.logits`), and turn
probabilities into their logarithms.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pymixunlearn.errors import UserError
from pymixunlearn.models.copying import Precision, private_copy
from pymixunlearn.models.kinds import check_kind
from pymixunlearn.models.logits import Found, OutputHook, are_probabilities, find_logits, log_probabilities
from pymixunlearn.models.modes import evaluating
from pymixunlearn.models.registry import architecture_of, available


class Adapter(OutputHook):
    """The hooks of one network.

    Args:
        num_classes: How many logits it has to give; None takes any number.
        class_map: For every class the index of its logit, where a model has more of them or another order.
    """

    def __init__(self, num_classes: int | None, class_map: Sequence[int] | None = None) -> None:
        """Start without having seen an output."""
        self.class_map = None if class_map is None else torch.tensor([*class_map])
        # What is looked for before the map picks from it has another number of logits.
        self.num_classes = num_classes if class_map is None else None
        self.given = torch.float32
        """The images' type in the current call."""
        self.probabilities = False
        self.ignored: tuple[str, ...] = ()
        self.trying = False
        self.seen: Tensor | None = None
        """Logits of a trial run, before the class map."""

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Cast the images."""
        self.given = args[0].dtype
        # Looked up in each call: a copy may have been widened meanwhile.
        return (args[0].to(input_dtype(module)), *args[1:])

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor:
        """Return the logits in the images' type, in float32 at least."""
        # The number of classes chooses among several tensors; a method may have changed it, which is its own affair.
        found = Found(output, ()) if isinstance(output, Tensor) else find_logits(output, len(args[0]), self.num_classes)
        if found.ignored and found.ignored != self.ignored:
            self.ignored = found.ignored
            say(f"model has further outputs, {', '.join(found.ignored)}; they are ignored, in training too")
        if not found.logits.is_floating_point():
            raise UserError(f"model returns {found.logits.dtype}; expected logits of a floating-point type")
        logits = found.logits.to(torch.promote_types(self.given, torch.float32))
        self.seen = logits.detach() if self.trying else None
        if self.probabilities:
            logits = log_probabilities(logits)
        return logits if self.class_map is None else logits[:, self._chosen(logits)]

    def _chosen(self, logits: Tensor) -> Tensor:
        """Return the class map on the logits' device."""
        assert self.class_map is not None
        if int(self.class_map.max()) >= logits.shape[1]:
            raise UserError(
                f"class_map names output {int(self.class_map.max())}, and the model has {logits.shape[1]}; expected "
                "indices of its outputs"
            )
        if self.class_map.device != logits.device:
            self.class_map = self.class_map.to(logits.device)
        return self.class_map


def input_dtype(model: nn.Module) -> torch.dtype:
    """Return the floating-point type of a network's first weight, which its images have to have.

    Example:
        >>> import torch
        >>> from pymixunlearn.models.adapter import input_dtype
        >>> input_dtype(torch.nn.Linear(2, 2).half()), input_dtype(torch.nn.Flatten())
        (torch.float16, torch.float32)
    """
    tensors = (tensor for group in (model.parameters(), model.buffers()) for tensor in group)
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)


@contextmanager
def adapted(
    model: nn.Module, example: Tensor | None = None, num_classes: int | None = None, *, finite: bool = False
) -> Iterator[None]:
    """Within the block, ``model`` and its copies map float32 images to float32 logits.

    Networks of ``models.build`` in float32 do so by themselves and are left alone. Others come out as they went in;
    :func:`release` frees copies that outlive the block.

    Args:
        model: Any classifier.
        example: Images [N, C, H, W] for a trial run, float32, on the model's device; None makes none.
        num_classes: How many logits it has to give; None takes any number.
        finite: Whether all weights, and the logits of the example, have to be finite, as for training.

    Raises:
        UserError: The network is a program (TorchScript, torch.export), has lazy layers, cannot process the example,
            gives no logits for these classes, or is not finite where it has to be.
    """
    check_kind(model)
    adapter = None
    inside = any(_is_ours(hook) for hook in model._forward_hooks.values())
    if not inside and (input_dtype(model) != torch.float32 or not _is_built_in(model)):
        adapter = Adapter(num_classes, getattr(model, "class_map", None))
        model.register_forward_pre_hook(adapter.before)
        model.register_forward_hook(adapter.after)
    try:
        if example is not None:
            if adapter is not None:
                adapter.trying = True
            logits = _trial(model, example, num_classes)
            if finite:
                _check_finite(model, logits)
                _check_gradient(model, example)
                # Last a pass without a graph: a network that keeps an activation keeps that one.
                _check_training(model, example)
            if adapter is not None:
                adapter.trying, seen = False, adapter.seen
            if adapter is not None and seen is not None and len(seen) > 1:
                adapter.probabilities = are_probabilities(seen)
                if adapter.probabilities:
                    say(
                        f"model returns probabilities: its outputs for {len(logits)} images lie in [0, 1] and sum to "
                        "1; their logarithms are used as logits (return what goes into the softmax to avoid this)"
                    )
                elif bool(((seen >= 0) & (seen <= 1)).all()):
                    say(
                        f"model returns numbers from 0 to 1 for {len(logits)} images, as a sigmoid does; they are used "
                        "as logits as they are (return what goes into the sigmoid if there is one)"
                    )
        yield
    finally:
        if adapter is not None:
            release(model)


@contextmanager
def trainable(model: nn.Module) -> Iterator[None]:
    """Like :func:`adapted` without an example, in float32 where the network has a narrower type, for training it."""
    precision = Precision(model)
    try:
        with adapted(model):
            yield
    finally:
        precision.restore(model)


@contextmanager
def explained(model: nn.Module, example: Callable[[], Tensor]) -> Iterator[None]:
    """Within the block, an error of a network that cannot process its images is said in the sentence of a trial run.

    Args:
        model: The network that the block trains.
        example: Makes images [N, C, H, W] of the training, on the model's device; called once something failed.

    Raises:
        UserError: The block failed, and so does the network on the example. What has other causes is raised as it is.
    """
    try:
        yield
    except UserError:
        raise
    except Exception:
        with adapted(model, example()):
            raise


def release(model: nn.Module) -> None:
    """Take the hooks of :func:`adapted` off a network that was copied within its block, in place."""
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if _is_ours(hook)]:
                del hooks[key]


def carry_over(model: nn.Module, other: nn.Module) -> None:
    """Put the hooks that ``model`` has from :func:`adapted` on ``other`` too."""
    for hook in model._forward_pre_hooks.values():
        if _is_ours(hook):
            other.register_forward_pre_hook(hook)
    for hook in model._forward_hooks.values():
        if _is_ours(hook):
            other.register_forward_hook(hook)


def check_predictions(model: nn.Module, logits: Tensor) -> None:
    """Check logits [N, classes] that are to be judged; a class masked with -inf is accepted.

    Raises:
        UserError: NaN or +inf is among them, or an image has nothing else than -inf.
    """
    # The largest is NaN where one is, and -inf where every class is masked.
    wrong = ~logits.amax(dim=1).isfinite()
    if bool(wrong.any()):
        raise UserError(
            f"the model's logits are NaN or infinite for {int(wrong.sum())} of {len(logits)} images "
            f"({bad_weights(model) or 'its parameters are finite'}); expected finite logits, or -inf for a class that "
            "is masked"
        )


def say(note: str) -> None:
    """Warn of something about the user's model that does not stop the work."""
    warnings.warn(note, UserWarning, stacklevel=2)


def _trial(model: nn.Module, example: Tensor, num_classes: int | None) -> Tensor:
    """Return the logits of the example in evaluation mode; the network's state stays as it is."""
    try:
        with evaluating(model):
            output = model(example)
    except UserError as error:
        raise UserError(f"{error}{_class_hint(model, num_classes)}") from error
    except Exception as error:
        first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if first is not None and first.in_channels != example.shape[1]:
            cause = f"its first convolution takes {first.in_channels} channels, the images have {example.shape[1]}"
        raise UserError(
            f"model cannot process images {list(example.shape)} of {input_dtype(model)}: {cause}"
        ) from error
    try:
        return find_logits(output, len(example), num_classes).logits
    except UserError as error:
        raise UserError(f"{error}{_class_hint(model, num_classes)}") from error


def _check_gradient(model: nn.Module, example: Tensor) -> None:
    """Check that the logits' gradient can reach the weights.

    Raises:
        UserError: It cannot.
    """
    for name, layer in model.named_modules():
        if ".quantized." in f"{type(layer).__module__}.":
            raise UserError(
                f"model has a quantized layer '{name}', whose weights cannot be trained; expected the network that was "
                "quantized, in floating-point numbers"
            )
    with evaluating(model), torch.enable_grad():
        logits = model(example)
    if not logits.requires_grad and any(weight.requires_grad for weight in model.parameters()):
        raise UserError(
            "model returns logits without a gradient; expected a forward pass that neither detaches them nor runs "
            "under torch.no_grad"
        )


def _check_training(model: nn.Module, example: Tensor) -> None:
    """Run a copy in training mode if it has layers that evaluation leaves out: those may need larger images."""
    used: set[nn.Module] = set()
    layers = [module for module in model.modules() if next(module.parameters(recurse=False), None) is not None]
    handles = [layer.register_forward_pre_hook(lambda layer, _: used.add(layer)) for layer in layers]
    try:
        with evaluating(model):
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    if used.issuperset(layers):
        return
    devices = [example.device] if example.is_cuda else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        try:
            private_copy(model).train()(example)
        except (RuntimeError, ValueError) as error:  # a ValueError of a batch norm with one value for each channel
            unused = next(name for name, layer in model.named_modules() if layer in layers and layer not in used)
            raise UserError(
                f"model cannot process images {list(example.shape)} in training mode, where '{unused}' runs too: "
                f"{str(error).strip().splitlines()[0]}; expected larger images, or a model without its auxiliary heads"
            ) from error


def _class_hint(model: nn.Module, num_classes: int | None) -> str:
    """Say how a network of other classes is brought to these, where its last linear layer has another size."""
    last = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1:]
    if num_classes is None or not last or last[0][1].out_features == num_classes:
        return ""
    name, head = last[0]
    return (
        f"; the last linear layer '{name}' has {head.out_features} outputs: replace it by one with {num_classes}, "
        "for example by its rows for these classes"
    )


def _check_finite(model: nn.Module, logits: Tensor) -> None:
    cause = bad_weights(model)
    if cause:
        raise UserError(f"model has diverged: {cause}; expected neither NaN nor infinity in the weights")
    check_predictions(model, logits)
    if not bool(logits.isfinite().all()):
        masked = (~logits.isfinite()).any(0).nonzero().flatten().tolist()
        raise UserError(
            f"model gives the logit -inf for class {', '.join(map(str, masked[:5]))}; expected finite logits to train "
            "with: mask the class with a large negative number"
        )


def bad_weights(model: nn.Module) -> str:
    """Name the first weight or buffer that is not finite; an empty string where all are."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            count = int((~tensor.isfinite()).sum())
            return f"its parameter '{name}' holds such values, {count} of {tensor.numel()}"
    return ""


def _is_built_in(model: nn.Module) -> bool:
    architecture = architecture_of(model)
    return architecture is not None and architecture["name"] in available() and "class_map" not in architecture


def _is_ours(hook: Any) -> bool:
    return isinstance(getattr(hook, "__self__", None), Adapter)
