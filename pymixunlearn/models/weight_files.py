"""Tensors by name out of a model file, whatever its suffix says it is.

The content decides: safetensors begins with the length of its header and a brace, PyTorch's files are ZIP archives or
pickles. Nothing here runs code that a file brings along: safetensors holds none, and pickles are read with
``weights_only=True``.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pymixunlearn.display import a_type
from pymixunlearn.errors import UserError

HEADER = "pymixunlearn"
"""The key of our own header among the metadata of a safetensors file."""

_OTHER_FORMATS = {
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself; fetch it with 'git lfs pull'",
    b"\x89HDF": "an HDF5 file, as Keras writes it",
    b"\x93NUMPY": "a NumPy array",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"<!doctype": "a web page, not the file that was to be downloaded",
    b"<html": "a web page, not the file that was to be downloaded",
}
_USUAL_KEYS = ("state_dict", "model", "model_state_dict")
"""Where several sets of tensors lie in one file, the first of these is the network."""
_FOLDER_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_DEEPEST = 4
_SAVE_AGAIN = "save the network's weights alone, torch.save(model.state_dict(), FILE)"


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Return a file's tensors by name, on the CPU, and the content of our header ({} in files of other origin).

    Raises:
        UserError: No such file, a file of another format, a damaged one, or one that holds more than tensors.
    """
    path = (weights_in(path) or path) if path.is_dir() else path
    if path.is_dir():
        raise UserError(f"model checkpoint '{path}' is a folder without {' or '.join(_FOLDER_NAMES[::2])}")
    if not path.is_file():
        raise UserError(f"model checkpoint '{path}' does not exist; expected a safetensors file or one of PyTorch")
    with path.open("rb") as file:
        start = file.read(64)
    if start[8:9] == b"{":
        return _read_safetensors(path)
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return _read_pickled(path), {}
    for magic, what in _OTHER_FORMATS.items():
        if start.startswith(magic) or start.lstrip().lower().startswith(magic):
            raise UserError(f"model checkpoint '{path}' is {what}; expected a state dict of PyTorch or safetensors")
    if start.lstrip().startswith(b"{"):
        return _read_parts(path), {}
    what = "empty" if not start else "corrupt or not a model file"
    raise UserError(f"model checkpoint '{path}' is {what}; expected a state dict of PyTorch or safetensors")


def weights_in(folder: Path) -> Path | None:
    """Return the file of weights in a folder of Hugging Face's form, None where there is none."""
    return next((folder / name for name in _FOLDER_NAMES if (folder / name).is_file()), None)


def _read_parts(path: Path) -> dict[str, Tensor]:
    """Read the files that an index names, all beside it."""
    try:
        places = json.loads(path.read_text("utf-8"))["weight_map"]
        files = sorted({str(file) for file in places.values()})
        if not files:
            raise ValueError("it names no part")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"model checkpoint '{path}' is a JSON file without the weight_map of an index; expected a state dict of "
            "PyTorch or safetensors, or the index of safetensors in several parts"
        ) from error
    tensors: dict[str, Tensor] = {}
    for file in files:
        if Path(file).name != file or file.endswith(".json"):
            raise UserError(f"index '{path}' names the part '{file}'; expected files beside it")
        tensors |= read_tensors(path.parent / file)[0]
    lacking = sorted(set(places) - set(tensors))
    if lacking:
        raise UserError(f"index '{path}' names a tensor '{lacking[0]}' that its parts do not hold")
    return tensors


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    try:
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return tensors, json.loads((file.metadata() or {}).get(HEADER, "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"model checkpoint '{path}' is corrupt or not a safetensors file: {_first_line(error)}"
        ) from error


def _read_pickled(path: Path) -> dict[str, Tensor]:
    """Read a state dict that PyTorch saved, without running anything that the file says to run."""
    content = load_content(path)
    state = content
    for key in network_place(path, content):
        state = state[key]
    return {str(name): tensor for name, tensor in state.items()}


def load_content(path: Path) -> Any:
    """Return all that a file of PyTorch holds, as far as it is tensors and plain values.

    Raises:
        UserError: It holds more, or is damaged.
    """
    _check_archive(path)
    try:
        # Opened here: given a path, PyTorch goes by the suffix.
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # A damaged pickle can fail in any way at all: as a missing key, a wrong type, an end of file.
        foreign = _foreign_objects(path, error)
        if foreign:
            raise UserError(
                f"model checkpoint '{path}' holds more than tensors: objects of {', '.join(foreign)}, which are not "
                f"read because reading them could run code; {_SAVE_AGAIN}"
            ) from error
        raise UserError(
            f"model checkpoint '{path}' is corrupt or no file of torch.save ({type(error).__name__}); "
            "expected a state dict"
        ) from error


def _check_archive(path: Path) -> None:
    """Refuse archives that hold a program: TorchScript and torch.export."""
    try:
        with zipfile.ZipFile(path) as archive:
            inner = {name.partition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return
    kind = None
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        kind = "a TorchScript program"
    elif "models/model.json" in inner:
        kind = "a program of torch.export"
    elif "data.pkl" not in inner:
        raise UserError(f"model checkpoint '{path}' is corrupt or a ZIP archive of something else; {_SAVE_AGAIN}")
    if kind:
        raise UserError(
            f"model checkpoint '{path}' is {kind}, whose code this package does not run; {_SAVE_AGAIN}, where model "
            "is the module that the program was made from"
        )


def _foreign_objects(path: Path, error: Exception) -> list[str]:
    """Name the classes and functions that the pickle would use, other than those of tensors."""
    try:
        with path.open("rb") as file:
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except Exception:
        # Files from before PyTorch 1.6, and damaged ones: PyTorch's message names the first.
        return re.findall(r"GLOBAL (\S+)", str(error))[:1]


def network_place(path: Path, content: Any) -> tuple[str, ...]:
    """Return the keys of the state dict in ``content``, which may lie anywhere, beside an optimizer's state.

    Raises:
        UserError: There is none, or more than one that could be meant.
    """
    if isinstance(content, Mapping) and _is_state(content):
        return ()
    found = dict(_states(content, ()))
    for usual in _USUAL_KEYS:
        for place in found:
            if place and place[0] == usual:
                return place
    if len(found) == 1:
        return next(iter(found))
    keys = ", ".join(repr(".".join(place)) for place in found)
    if found:
        raise UserError(
            f"model checkpoint '{path}' holds several sets of tensors, under {keys}; expected one: {_SAVE_AGAIN}"
        )
    raise UserError(f"model checkpoint '{path}' does not hold a state dict but {_describe(content)}; {_SAVE_AGAIN}")


def _states(content: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Tensor]]]:
    if not isinstance(content, Mapping) or len(place) > _DEEPEST:
        return
    if _is_state(content):
        yield place, content
        return
    for key, value in content.items():
        # An optimizer's state has numbers for keys, and tensors below them that are no weights.
        if isinstance(key, str):
            yield from _states(value, (*place, key))


def _is_state(content: Mapping[Any, Any]) -> bool:
    return bool(content) and all(isinstance(value, Tensor) for value in content.values())


def _describe(content: Any) -> str:
    """Say what a file holds, with a dict's first keys and the kinds of their values."""
    if isinstance(content, Mapping):
        tensors = sum(isinstance(value, Tensor) for value in content.values())
        others = {key: value for key, value in content.items() if not isinstance(value, Tensor)}
        parts = [f"{tensors} tensors and"] if tensors else []
        parts.append(", ".join(f"{key!r} ({type(value).__name__})" for key, value in list(others.items())[:5]))
        return f"a dict with {' '.join(parts) or 'nothing'}" + (" and more" if len(others) > 5 else "")
    return f"{a_type(content)}"


def _first_line(error: BaseException) -> str:
    """Return an error's first line: some explanations run over many."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
