"""Points at which a network can be cut: everything after depends on the output of one layer and on nothing before.

One rule for every network, found by running it: a layer is a cut if every way from the image to the logits leads
through its output. Inside a residual block no layer is, since the shortcut goes past it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten

from pymixunlearn.divided import own_rows
from pymixunlearn.models.modes import evaluating

TRACED = 2
"""Images that a network is traced with."""


@dataclass(frozen=True)
class Cut:
    """A point to cut a network at.

    Attributes:
        layer: Name of the layer whose output is handed over.
        spec: The form of that output.
        skipped: Outputs of two images of the layers before, by name: they need not run.
        fresh: Names of the parameters after the cut.
        frozen_share: Share of all weights that lies before it.
    """

    layer: str
    spec: TreeSpec
    skipped: dict[str, Any]
    fresh: frozenset[str]
    frozen_share: float


@dataclass
class _Call:
    """A module's run: when it began and ended, how often it ran, what it returned, and the graph nodes of that."""

    began: int
    ended: int = -1
    count: int = 1
    output: Any = None
    nodes: frozenset[Any] = frozenset()


class _Reached(Exception):
    """Ends a forward pass at the cut."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


class Cuts:
    """The cuts of one network, read off the graph of one forward pass: no weights' values matter.

    Args:
        model: Maps images to logits; nothing about it is changed.
        example: Network inputs [2, C, H, W] (``TRACED`` of them), on its device.

    Example:
        >>> from pymixunlearn import models
        >>> network = models.build("cnn", num_classes=10, in_channels=1, image_size=28)
        >>> cut = Cuts(network, torch.rand(2, 1, 28, 28)).deepest(0.1)
        >>> cut.layer, round(cut.frozen_share, 3), len(cut.fresh)
        ('features', 0.029, 6)
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        """Run the network once."""
        self._model, self._example = model, example
        self._sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        with _every_gradient(model), torch.enable_grad():
            self._images = example.detach().clone().requires_grad_()
            self._calls, self._logits = _trace(model, self._images)
        self._cuts = list(self._all())

    def deepest(self, most: float, above: float = 0.0) -> Cut | None:
        """Return the cut with the largest frozen part of more than ``above`` and at most ``most`` of the weights.

        None where there is none.
        """
        fits = (cut for cut in self._cuts if above < cut.frozen_share <= most)
        return next(filter(self._holds, fits), None)

    def _all(self) -> Iterator[Cut]:
        """Yield the cuts, from the last on, that have a matrix of weights between them and the one before.

        So that a stage keeps its normalisation and activation, and of several layers without weights the last counts.
        """
        matrices = {name for name, parameter in self._model.named_parameters() if parameter.dim() > 1}
        later: frozenset[str] = frozenset()
        for name, call in sorted(self._calls.items(), key=lambda item: -item[1].ended):
            cut = self._cut(name) if call.count == 1 else None
            if cut is not None and (cut.fresh - later) & matrices:
                yield cut
                later = cut.fresh

    def _cut(self, name: str) -> Cut | None:
        """Return the cut at a layer, unless something goes past it: a shortcut, the image itself, shared weights."""
        call = self._calls[name]
        leaves, spec = tree_flatten(call.output)
        if not leaves or not call.nodes or not all(_by_image(leaf) for leaf in leaves):
            return None
        behind = _leaves({self._logits.grad_fn}, call.nodes)
        before = _leaves(call.nodes, frozenset())
        if id(self._images) in behind or behind & before:
            return None
        fresh = frozenset(self._names[leaf] for leaf in behind if leaf in self._names)
        if self._begun(fresh, name):
            return None
        frozen = 1 - sum(self._sizes[parameter] for parameter in fresh) / sum(self._sizes.values())
        return Cut(name, spec, self._skipped(call), fresh, frozen)

    def _begun(self, fresh: frozenset[str], name: str) -> bool:
        """Whether a layer behind the cut began before the cut's had ended.

        A shortcut that returns what it is given is a cut of the graph, but comes after part of what it cuts off.
        """
        layers = {parameter.rpartition(".")[0] for parameter in fresh} - {*_outer(name)}
        return any(run.began < self._calls[name].ended for layer, run in self._calls.items() if layer in layers)

    def _skipped(self, call: _Call) -> dict[str, Any]:
        """Return the outermost layers that had ended when the cut's began, with their outputs."""
        ended = {
            name: run.output
            for name, run in self._calls.items()
            if run.ended < call.began and run.count == 1 and _can_be_skipped(run.output)
        }
        return {name: output for name, output in ended.items() if not any(outer in ended for outer in _outer(name))}

    def _holds(self, cut: Cut) -> bool:
        """Whether what comes after the cut gives the same logits when nothing before it runs."""
        given = [leaf.detach() for leaf in tree_flatten(self._calls[cut.layer].output)[0]]
        with evaluating(self._model), Tail(self._model, cut, self._example.shape[1:]) as tail:
            try:
                logits = tail(given)
            except Exception:  # whatever a network does that cannot do with placeholders
                return False
        return logits.shape == self._logits.shape and torch.allclose(logits, self._logits, rtol=1e-4, atol=1e-5)


class Tail:
    """What comes after a cut, as a function: outputs at the cut to logits. Use it as a context manager.

    Meanwhile the layers before the cut return placeholders, and the cut's layer returns what is given.

    Args:
        model: The network.
        cut: Where it is cut.
        image: The shape [C, H, W] of its inputs.
    """

    def __init__(self, model: nn.Module, cut: Cut, image: torch.Size) -> None:
        """Change nothing yet."""
        self._model, self._cut, self._image = model, cut, image
        self._modules = dict(model.named_modules())
        self._given: Any = None
        self._placeholders: dict[tuple[str, int], Any] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Tail:
        """Put the placeholders in place."""
        names = (*self._cut.skipped, self._cut.layer)
        for name in names:
            module = self._modules[name]
            own = vars(module).get("forward")  # that of its class, unless someone set another one
            module.forward = partial(self._output, name)
            self._stack.callback(_put_back, module, own)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Put the layers back."""
        self._placeholders.clear()
        self._given = None
        self._stack.close()

    def __call__(self, leaves: list[Tensor]) -> Tensor:
        """Return logits [N, classes] for the tensors [N, ...] that make up the output at the cut."""
        self._given = tree_unflatten(list(leaves), self._cut.spec)
        like = next(self._model.parameters())
        logits: Tensor = self._model(torch.zeros(len(leaves[0]), *self._image, device=like.device, dtype=like.dtype))
        self._given = None
        return logits

    def _output(self, name: str, images: Any, *args: Any, **kwargs: Any) -> Any:
        given = tree_map(partial(own_rows, self._model), self._given)
        if name == self._cut.layer:
            return given
        count = len(tree_flatten(given)[0][0])
        if (name, count) not in self._placeholders:
            self._placeholders[name, count] = _placeholder(self._cut.skipped[name], count)
        return self._placeholders[name, count]


def outputs(model: nn.Module, layer: str, images: Tensor) -> list[Tensor]:
    """Return the tensors that make up the output of a layer, and run nothing that comes after it."""
    module = dict(model.named_modules())[layer]
    handle = module.register_forward_hook(_reached)
    try:
        model(images)
    except _Reached as reached:
        return tree_flatten(reached.output)[0]
    finally:
        handle.remove()
    raise AssertionError(f"'{layer}' did not run")  # it did in the trace


def _reached(module: nn.Module, args: Any, output: Any) -> None:
    raise _Reached(output)


def _trace(model: nn.Module, images: Tensor) -> tuple[dict[str, _Call], Tensor]:
    """Run a network once; return what each of its modules did, in order of their beginnings, and the logits."""
    calls: dict[str, _Call] = {}
    clock = count()

    def begin(name: str, module: nn.Module, args: Any) -> None:
        if name in calls:
            calls[name].count += 1
        else:
            calls[name] = _Call(next(clock))

    def end(name: str, module: nn.Module, args: Any, output: Any) -> None:
        call = calls[name]
        call.ended, call.output = next(clock), output
        parts = (leaf for leaf in tree_flatten(output)[0] if isinstance(leaf, Tensor))
        call.nodes = frozenset(leaf.grad_fn for leaf in parts if leaf.grad_fn is not None)

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name:
                stack.callback(module.register_forward_pre_hook(partial(begin, name)).remove)
                stack.callback(module.register_forward_hook(partial(end, name)).remove)
        logits: Tensor = model(images)
    return {name: call for name, call in calls.items() if call.ended >= 0}, logits


@contextmanager
def _every_gradient(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and all parameters in the graph, for a block."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    for parameter, _ in flags:
        parameter.requires_grad_(parameter.is_floating_point())
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        for module, mode in modes:
            module.training = mode


def _leaves(start: set[Any] | frozenset[Any], without: frozenset[Any]) -> set[int]:
    """Return the ids of the tensors that graph nodes were computed from, on ways that pass none of those left out."""
    seen, left, found = set(without), [node for node in start if node not in without], set()
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        left.extend(following for following, _ in node.next_functions)
    return found


def _outer(name: str) -> Iterator[str]:
    """Yield the names of the modules around a module, the network itself left out."""
    parts = name.split(".")
    return (".".join(parts[:length]) for length in range(1, len(parts)))


def _by_image(leaf: Any) -> bool:
    """Whether a part of an output has one entry per image."""
    return isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == TRACED and leaf.is_floating_point()


def _can_be_skipped(output: Any) -> bool:
    """Whether an output can be made up for another number of images: tensors with so many entries for each."""
    leaves = tree_flatten(output)[0]
    return bool(leaves) and all(isinstance(leaf, Tensor) and leaf.dim() and not len(leaf) % TRACED for leaf in leaves)


def _placeholder(output: Any, images: int) -> Any:
    leaves, spec = tree_flatten(output)
    made = [leaf.new_zeros(len(leaf) // TRACED * images, *leaf.shape[1:]) for leaf in leaves]
    return tree_unflatten(made, spec)


def _put_back(module: nn.Module, forward: Any) -> None:
    del module.forward
    if forward is not None:
        module.forward = forward
