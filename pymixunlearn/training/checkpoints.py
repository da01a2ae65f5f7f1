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
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pymixunlearn import models
from pymixunlearn.errors import UserError
from pymixunlearn.files import write_atomically

_FORMAT = "pymixunlearn-model/1"
_FIELD = "pymixunlearn"
_PICKLED = (".pt", ".pth")


def save_model(path: str | Path, model: nn.Module, *, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a model's weights as safetensors, with its architecture and ``metadata``.

    Args:
        path: The file to write; an existing one is replaced in one go.
        model: Any module. Those of ``models.build`` are written with their architecture, so that :func:`load_model`
            needs nothing else.
        metadata: JSON-able facts to keep with the weights (dataset, seed).

    Raises:
        UserError: The path cannot be written.
    """
    header = {
        "format": _FORMAT,
        "architecture": getattr(model, "architecture", None),
        "metadata": dict(metadata or {}),
    }
    # Copies: safetensors refuses tensors that share memory, as tied weights do.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    write_atomically(Path(path), save(tensors, metadata={_FIELD: json.dumps(header, sort_keys=True)}))


def load_model(
    path: str | Path,
    *,
    architecture: Mapping[str, Any] | None = None,
    into: nn.Module | None = None,
    num_classes: int | None = None,
) -> nn.Module:
    """Load a model onto the CPU, in evaluation mode.

    Args:
        path: A safetensors file, or a state dict saved by PyTorch (.pt, .pth; also inside a dict under "state_dict" or
            "model", also with DataParallel's "module." before the names).
        architecture: The arguments of ``models.build`` by name. Needed for files that do not say what they hold;
            ignored when ``into`` is given.
        into: A module of the same structure to fill instead, for networks that ``models.build`` does not know.
        num_classes: When given, the number of classes the model has to have.

    Raises:
        UserError: No such file, a file that cannot be read, an architecture that is not given or not the file's, or
            another number of classes.
    """
    path = Path(path)
    tensors, header = _read(path)
    if into is None:
        stored = header.get("architecture")
        chosen = dict(architecture or stored or {})
        if not chosen:
            raise UserError(f"model checkpoint '{path}' does not say which network it holds; pass its architecture")
        _check_classes(path, chosen.get("num_classes"), num_classes)
        into = _build(path, chosen)
    _check_tensors(path, tensors, into)
    # The checks above were on shapes alone; only now does a model on the meta device get memory.
    model = into.to_empty(device="cpu") if any(p.is_meta for p in into.parameters()) else into.cpu()
    model.load_state_dict(tensors)
    return model.eval()


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return what ``save_model`` was given as ``metadata``; empty for files of other origin.

    Raises:
        UserError: No such file, or a file that cannot be read.
    """
    return dict(_read(Path(path))[1].get("metadata") or {})


def model_hash(model: nn.Module) -> str:
    """Return the sha256, in hex, of a model's state: names, dtypes, shapes and bytes of every tensor in it."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a file's tensors by name and, for files of ours, the header."""
    if not path.is_file():
        raise UserError(f"model checkpoint '{path}' does not exist; expected a .safetensors, .pt or .pth file")
    if path.suffix.lower() in _PICKLED:
        return _read_pickled(path), {}
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            header = json.loads((file.metadata() or {}).get(_FIELD, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"model checkpoint '{path}' is corrupt or not a safetensors file: {_first_line(error)}"
        ) from error
    if not _is_header(header):
        raise UserError(f"model checkpoint '{path}' has a header of another format; expected {_FORMAT}")
    return tensors, header


def _is_header(header: Any) -> bool:
    """Tell whether a file's header has the form we write, or is empty as in files of other origin."""
    if not isinstance(header, dict) or header.get("format", _FORMAT) != _FORMAT:
        return False
    return all(isinstance(header.get(part) or {}, dict) for part in ("architecture", "metadata"))


def _read_pickled(path: Path) -> dict[str, Tensor]:
    """Read a state dict that PyTorch saved, without running anything that the file says to run."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A damaged pickle can fail in any way at all: as a missing key, a wrong type, an end of file.
        raise UserError(
            f"model checkpoint '{path}' is corrupt or holds more than tensors ({_first_line(error)}); "
            "expected a state dict"
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"model checkpoint '{path}' does not hold a state dict; expected tensors by name")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def _build(path: Path, architecture: dict[str, Any]) -> nn.Module:
    """Build the network on the meta device: what a file claims about itself must not claim memory."""
    try:
        with torch.device("meta"):
            return models.build(**architecture)
    except TypeError as error:
        raise UserError(
            f"model checkpoint '{path}' describes its architecture as {architecture}; "
            "expected name, num_classes, in_channels and image_size"
        ) from error


def _check_classes(path: Path, found: Any, expected: int | None) -> None:
    if expected is not None and found != expected:
        raise UserError(f"model checkpoint '{path}' has {found} classes; expected {expected}")


def _check_tensors(path: Path, found: Mapping[str, Tensor], model: nn.Module) -> None:
    """Compare names and shapes, and say which tensor differs first."""
    expected = model.state_dict()
    kind = getattr(model, "architecture", {}).get("name") or type(model).__name__
    intro = f"model checkpoint '{path}' is not a {kind} of this shape: "
    for name, tensor in expected.items():
        if name not in found:
            raise UserError(f"{intro}it has no tensor '{name}'")
        if found[name].shape != tensor.shape:
            shapes = f"{list(found[name].shape)}, expected {list(tensor.shape)}"
            raise UserError(f"{intro}tensor '{name}' is {shapes}{_classes_hint(model, name, found[name], tensor)}")
    extra = sorted(set(found) - set(expected))
    if extra:
        raise UserError(f"{intro}it has a tensor '{extra[0]}' too many")


def _classes_hint(model: nn.Module, name: str, found: Tensor, expected: Tensor) -> str:
    """Name the likely reason when it is the last layer alone that differs, and only in its number of rows."""
    head = list(model.state_dict())[-2:]
    same_inputs = found.dim() == expected.dim() and found.shape[1:] == expected.shape[1:]
    return f" ({len(found)} classes instead of {len(expected)})" if name in head and same_inputs else ""


def _first_line(error: BaseException) -> str:
    """Return an error's first line: PyTorch's explanations run over many."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
