"""Weights in the form of another file: its keys, its types and what is around them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pymixunlearn.errors import UserError
from pymixunlearn.models.weight_files import load_content, network_place, read_tensors, weights_in
from pymixunlearn.models.weight_names import aligned


def in_form_of(path: Path, model: nn.Module) -> Iterator[tuple[str, bytes]]:
    """Yield the files (name, content) that hold the weights of ``model`` as the file ``path`` holds those of another.

    Keys, types and order are the file's, and so are the dicts around a state dict of PyTorch, with their numbers, texts
    and lists of these. Other tensors in them (an optimizer's state, averaged weights) are left out: they belong to the
    other model, and remember what this one has forgotten.

    Args:
        path: A file that :func:`pymixunlearn.models.load_weights` takes for the network, or a folder with one.
        model: The network.

    Raises:
        UserError: The file cannot be read or is of another network.

    Example:
        >>> import tempfile
        >>> net, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
        >>> state = {f"module.{name}": tensor for name, tensor in net.state_dict().items()}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"net": state, "epoch": 3}, f"{folder}/a.pt")
        ...     [(name, content)] = in_form_of(Path(folder, "a.pt"), other)
        >>> written = torch.load(io.BytesIO(content), weights_only=True)
        >>> name, written["epoch"], torch.equal(written["net"]["module.weight"], other.weight)
        ('a.pt', 3, True)
    """
    file = (weights_in(path) or path) if path.is_dir() else path
    found, _ = read_tensors(file)
    state = model.state_dict()
    places = aligned({name: name for name in found}, state)
    if not set(places) <= set(state):
        raise UserError(f"'{path}' is of another network than {type(model).__name__}; expected the same tensors")
    # Keys of the file, in its order; safetensors cannot hold tensors that share memory.
    new = {
        name: state[own].detach().cpu().to(found[name].dtype).contiguous().clone()
        for own, name in sorted(places.items(), key=lambda item: list(found).index(item[1]))
    }
    start = _start(file)
    if start[8:9] == b"{" or not start.lstrip().startswith(b"{"):
        yield file.name, _rewritten(file, new)
        return
    parts: dict[str, str] = json.loads(file.read_text("utf-8"))["weight_map"]
    yield file.name, file.read_bytes()
    for part in sorted(set(parts.values())):
        inside = {name: new[name] for name, where in parts.items() if where == part and name in new}
        yield part, _rewritten(file.parent / part, inside)


def _rewritten(file: Path, new: Mapping[str, Tensor]) -> bytes:
    """Return what a file of safetensors or of PyTorch is with other tensors."""
    start = _start(file)
    if start[8:9] == b"{":
        return save(dict(new), metadata=_metadata(file))
    content = load_content(file)
    written = io.BytesIO()
    torch.save(
        _replaced(content, network_place(file, content), new),
        written,
        _use_new_zipfile_serialization=start.startswith(b"PK"),
    )
    return written.getvalue()


def _start(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(64)


def _replaced(content: Any, place: tuple[str, ...], new: Mapping[str, Tensor]) -> Any:
    """Return dicts as they are around the state dict at ``place``, with another one there and no other tensors."""
    if not place:
        return {key: new.get(str(key), value) for key, value in content.items()}  # a wrapper's counter stays
    kept = {key: value for key, value in content.items() if key == place[0] or _is_plain(value)}
    return {**kept, place[0]: _replaced(content[place[0]], place[1:], new)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(part) for part in value)
    if isinstance(value, dict):
        return all(_is_plain(part) for part in value.values())
    return value is None or isinstance(value, (bool, int, float, str))


def _metadata(file: Path) -> dict[str, str] | None:
    with safe_open(str(file), framework="pt") as opened:
        found: dict[str, str] | None = opened.metadata()
    return found
