"""Model files: safetensors that say which network they hold, and plain state dicts.

Nothing here unpickles code: safetensors holds no code, and PyTorch's own files are read with ``weights_only=True``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pymixunlearn import models
from pymixunlearn.display import a_type
from pymixunlearn.errors import UserError
from pymixunlearn.files import write_atomically
from pymixunlearn.models.bounded import bounded
from pymixunlearn.models.specification import parse_specification
from pymixunlearn.models.weight_files import HEADER, read_tensors
from pymixunlearn.models.weights import check_weights, fill

_FORMAT = "pymixunlearn-model/1"


class CodeNotAllowed(UserError):
    """A file names a user's function as the maker of its model, which is not run unless that is asked for.

    Example:
        >>> from pymixunlearn.errors import UserError
        >>> issubclass(CodeNotAllowed, UserError)
        True
    """


def save_model(path: str | Path, model: nn.Module, *, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a model's weights as safetensors, with its architecture and ``metadata``.

    Args:
        path: The file to write; an existing one is replaced in one go.
        model: Any module. Those of ``models.build`` are written with their architecture, so that :func:`load_model`
            needs nothing else.
        metadata: JSON-able facts to keep with the weights (dataset, seed).

    Raises:
        UserError: The path cannot be written, or part of the model's state is no tensor or has no values yet.

    Example:
        >>> import tempfile
        >>> from pymixunlearn import models, training
        >>> network = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     training.save_model(f"{folder}/cnn.safetensors", network, metadata={"seed": 0})
        ...     loaded = training.load_model(f"{folder}/cnn.safetensors")
        ...     training.read_metadata(f"{folder}/cnn.safetensors")
        {'seed': 0}
        >>> training.model_hash(loaded) == training.model_hash(network)
        True
    """
    header = {
        "format": _FORMAT,
        "architecture": models.architecture_of(model),
        "metadata": dict(metadata or {}),
    }
    # Copies: safetensors refuses tensors that share memory, as tied weights do.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in _state(model).items()}
    write_atomically(Path(path), save(tensors, metadata={HEADER: json.dumps(header, sort_keys=True)}))


def load_model(
    path: str | Path,
    *,
    architecture: Mapping[str, Any] | None = None,
    into: nn.Module | None = None,
    num_classes: int | None = None,
    allow_code: bool = False,
) -> nn.Module:
    """Load a model onto the CPU, in evaluation mode.

    Args:
        path: A safetensors file, or a state dict saved by PyTorch, of any suffix. It may lie inside dicts under any
            keys; prefixes that all names share ("module.", "_orig_mod.", "model.") are taken off where the network
            has none.
        architecture: The arguments of ``models.build`` by name. Needed for files that do not say what they hold;
            ignored when ``into`` is given.
        into: A module of the same structure to fill instead, for networks that ``models.build`` does not know.
        num_classes: When given, the number of classes the model has to have.
        allow_code: Whether to run a user's function (``file.py:factory``) that the file names as its network's maker.

    Returns:
        The network. One that is built here has the floating-point type that all of the file's weights have.

    Raises:
        CodeNotAllowed: The file names a user's function, and ``allow_code`` is not given.
        UserError: No such file, a file that cannot be read or holds more than tensors, an architecture that is not
            given or not the file's, or another number of classes.

    Example:
        >>> import tempfile, torch
        >>> from pymixunlearn import models, training
        >>> cnn = {"name": "cnn", "num_classes": 10, "in_channels": 1, "image_size": 8}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"net": models.build(**cnn).state_dict(), "epoch": 3}, f"{folder}/last.ckpt")
        ...     model = training.load_model(f"{folder}/last.ckpt", architecture=cnn)
        >>> model(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    path = Path(path)
    tensors, header = _read(path)
    if into is None:
        stored = header.get("architecture")
        chosen = dict(architecture or stored or {})
        if not chosen:
            raise UserError(f"model checkpoint '{path}' does not say which network it holds; pass its architecture")
        _check_classes(path, chosen.get("num_classes"), num_classes)
        into = _build(path, chosen, tensors, allow_code or architecture is not None)
        return fill(into, tensors, path).eval()
    return fill(into, tensors, path, keep_type=True).eval()


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return what ``save_model`` was given as ``metadata``; empty for files of other origin.

    Raises:
        UserError: No such file, or a file that cannot be read.

    Example:
        >>> import tempfile
        >>> from pymixunlearn import models, training
        >>> network = models.build("cnn", num_classes=10, in_channels=1, image_size=8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     training.save_model(f"{folder}/model.safetensors", network, metadata={"seed": 3})
        ...     training.read_metadata(f"{folder}/model.safetensors")
        {'seed': 3}
    """
    return dict(_read(Path(path))[1].get("metadata") or {})


def read_architecture(path: str | Path) -> dict[str, Any] | None:
    """Return the arguments of ``models.build`` that a file says its network is built with; None where it says nothing.

    Raises:
        UserError: No such file, or a file that cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(nn.Linear(2, 2).state_dict(), f"{folder}/a.pt")
        ...     read_architecture(f"{folder}/a.pt") is None
        True
    """
    found: dict[str, Any] | None = _read(Path(path))[1].get("architecture")
    return found


def model_hash(model: nn.Module) -> str:
    """Return the sha256, in hex, of a model's state: names, dtypes, shapes and bytes of every tensor in it.

    Raises:
        UserError: Part of the state is no tensor or has no values yet.

    Example:
        >>> import torch
        >>> from pymixunlearn import training
        >>> training.model_hash(torch.nn.ReLU()) == training.model_hash(torch.nn.Tanh())  # neither has a state
        True
    """
    return tensors_hash(_state(model))


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return the :func:`model_hash` of a model whose state these tensors are.

    Example:
        >>> import torch
        >>> tensors_hash({"a": torch.zeros(2)}) == tensors_hash({"a": torch.ones(2)})
        False
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's state by name, having checked that it is made of tensors with values."""
    state: dict[str, Any] = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"'{name}' in the state of {type(model).__name__} is {a_type(value)}; "
                "expected tensors only, since a model file holds nothing else"
            )
        if is_lazy(value):
            raise UserError(
                f"'{name}' of {type(model).__name__} belongs to a lazy layer and has no shape yet; "
                "expected a model that has processed an image once"
            )
    return state


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a file's tensors by name and, for files of ours, the header."""
    tensors, header = read_tensors(path)
    if not _is_header(header):
        raise UserError(f"model checkpoint '{path}' has a header of another format; expected {_FORMAT}")
    return tensors, header


def _is_header(header: Any) -> bool:
    """Tell whether a file's header has the form we write, or is empty as in files of other origin."""
    if not isinstance(header, dict) or header.get("format", _FORMAT) != _FORMAT:
        return False
    return all(isinstance(header.get(part) or {}, dict) for part in ("architecture", "metadata"))


def _build(path: Path, architecture: dict[str, Any], tensors: Mapping[str, Tensor], allow_code: bool) -> nn.Module:
    """Build a network, on the meta device first: what a file claims about itself must not claim memory."""
    name = architecture.get("name")
    try:
        if not isinstance(name, str):
            raise TypeError("no name")
        specification = parse_specification(name)
        if specification.runs_code and not allow_code:
            raise CodeNotAllowed(
                f"model checkpoint '{path}' holds a model that '{name}' makes, and code that a file names is not run "
                "unasked; expected --allow-code (allow_code=True) once you have read it"
            )
        # Its weights are the file's; what Retrain starts from stays part of what it is.
        start = {key: architecture[key] for key in ("pretrained", "pretrained_sha256") if architecture.get(key)}
        fresh = {key: value for key, value in architecture.items() if key not in start}
        try:
            with torch.device("meta"), bounded(tensors, path):
                sketch = models.build(**fresh)
        except (RuntimeError, UserError):
            if specification.kind == "built-in":
                raise
            sketch = None  # a network that computes while it is built; what else is wrong is told below
        if sketch is not None:
            check_weights(sketch, tensors, path)
        # Built in earnest where it has tensors that no file holds.
        network = sketch
        if specification.kind != "built-in" or network is None:
            with bounded(tensors, path):
                network = models.build(**fresh)
        for part in (network, *getattr(network, "members", ())) if start else ():
            part.architecture = {**part.architecture, **start}
        return network
    except TypeError as error:
        raise UserError(
            f"model checkpoint '{path}' describes its architecture as {architecture}; "
            "expected name, num_classes, in_channels and image_size"
        ) from error


def _check_classes(path: Path, found: Any, expected: int | None) -> None:
    if expected is not None and found != expected:
        raise UserError(f"model checkpoint '{path}' has {found} classes; expected {expected}")
