"""Weights of a file in a network of the same structure; what does not fit is listed with the likely cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pymixunlearn.errors import UserError
from pymixunlearn.models.weight_files import read_tensors
from pymixunlearn.models.weight_names import aligned, fitting_prefixes

_PRECISIONS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_LISTED = 5
_HEADS = ("fc", "head", "classifier", "heads", "last_linear", "linear", "output")


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Fill a network with the weights of a file, in place, and return it.

    It takes the floating-point type that all of the file's weights have.

    Args:
        model: A network of the file's structure; on the meta device it gets memory on the CPU.
        path: A state dict as PyTorch saves it, of any suffix; safetensors; the index of safetensors in several files;
            or a folder with one of these under Hugging Face's names. The state dict may lie inside of dicts under any
            keys, and prefixes that all names share ("module.", "_orig_mod.", "model.") need not be the network's.

    Raises:
        UserError: The file cannot be read or holds more than tensors, or it belongs to another network: all tensors
            that are missing, left over or of another shape are counted, the first of them named.

    Example:
        >>> import tempfile, torch
        >>> from pymixunlearn import models
        >>> trained, net = (models.build("torchvision:squeezenet1_1", num_classes=4, seed=seed) for seed in (1, 2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"state_dict": trained.state_dict(), "epoch": 9}, f"{folder}/last.ckpt")
        ...     loaded = models.load_weights(net, f"{folder}/last.ckpt")
        >>> torch.equal(loaded.classifier[1].weight, trained.classifier[1].weight)
        True
    """
    path = Path(path).expanduser()
    return fill(model, read_tensors(path)[0], path)


def fill(model: nn.Module, tensors: Mapping[str, Tensor], path: Path, *, keep_type: bool = False) -> nn.Module:
    """Like :func:`load_weights` with the file's tensors at hand.

    Args:
        model: As there.
        tensors: The file's.
        path: The file, for messages.
        keep_type: Whether the network keeps its floating-point type.

    Raises:
        UserError: The tensors belong to another network.
    """
    fitted = _fitted(tensors, model)
    _check(path, fitted, model)
    kinds = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    if not keep_type and len(kinds) == 1 and kinds <= _PRECISIONS:
        model.to(kinds.pop())
    # The checks above were on shapes alone; only now does a model on the meta device get memory.
    filled = model.to_empty(device="cpu") if any(p.is_meta for p in model.parameters()) else model.cpu()
    filled.load_state_dict(fitted)
    return filled


def check_weights(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Check that a file's tensors fit a network, as :func:`load_weights` does; the network may be on any device.

    Raises:
        UserError: They belong to another network.
    """
    _check(path, _fitted(tensors, model), model)


def _fitted(found: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return a file's tensors under the model's names, with what old files, and files of tied weights, lack."""
    expected = model.state_dict()
    fitted = aligned(found, expected)
    tied: dict[int, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        first = tied.setdefault(id(tensor), name)
        # safetensors of other libraries hold tied weights once.
        if name not in fitted and first in fitted:
            fitted[name] = fitted[first]
        elif first not in fitted and name in fitted:
            fitted[first] = fitted[name]
    for name in expected:
        # BatchNorm has counted its batches since PyTorch 0.4.1; PyTorch itself starts them at 0 in older files.
        if name.endswith("num_batches_tracked") and name not in fitted:
            fitted[name] = torch.tensor(0)
    return fitted


def _check(path: Path, found: Mapping[str, Tensor], model: nn.Module) -> None:
    """Compare names and shapes.

    Raises:
        UserError: Some differ.
    """
    expected = model.state_dict()
    declared = getattr(model, "architecture", None)
    kind = declared["name"] if isinstance(declared, dict) and "name" in declared else type(model).__name__
    intro = f"model checkpoint '{path}' is not a {kind} of this shape: "
    missing = [name for name in expected if name not in found]
    extra = sorted(set(found) - set(expected))
    unlike = [
        name
        for name, tensor in expected.items()
        if name in found and not is_lazy(tensor) and found[name].shape != tensor.shape
    ]
    _check_values(path, found, expected)
    counts = _counts(missing, extra, unlike)
    # In the order of the network: what is first usually says why.
    first = next((name for name in expected if name in missing or name in unlike), None)
    if first is None:
        if extra:
            raise UserError(f"{intro}it has a tensor '{extra[0]}' too many{counts}{_cause(missing, extra)}")
        return
    if first in missing:
        other = next((name for name in found if name not in expected), None)
        hint = "" if other is None else f", but one called '{other}'"
        raise UserError(f"{intro}it has no tensor '{first}'{hint}{counts}{_cause(missing, extra)}")
    shapes = f"{list(found[first].shape)}, expected {list(expected[first].shape)}"
    hint = _classes_hint(expected, first, found[first])
    raise UserError(f"{intro}tensor '{first}' is {shapes}{hint}{counts}{_cause(missing, extra)}")


def _check_values(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse tensors whose values are no weights: copied into a network they would be others, or none.

    Raises:
        UserError: There are some.
    """
    for name, tensor in found.items():
        wanted = expected.get(name)
        if tensor.is_meta or tensor.layout is not torch.strided:
            kind = "has no values (device meta)" if tensor.is_meta else f"is sparse ({tensor.layout})"
            raise UserError(f"model checkpoint '{path}': tensor '{name}' {kind}; expected a plain tensor")
        if wanted is not None and wanted.is_floating_point() and not tensor.is_floating_point():
            raise UserError(
                f"model checkpoint '{path}': tensor '{name}' is {tensor.dtype}, as of a quantized or complex network; "
                "expected floating-point weights"
            )


def _counts(missing: Sequence[str], extra: Sequence[str], unlike: Sequence[str]) -> str:
    """List all that differs, unless the sentence names it anyway."""
    if len(missing) + len(extra) + len(unlike) <= 2:
        return ""
    parts = [
        f"{len(names)} {what} ({', '.join(names[:_LISTED])}{', …' if len(names) > _LISTED else ''})"
        for what, names in (("missing", missing), ("left over", extra), ("of another shape", unlike))
        if names
    ]
    return f"; {', '.join(parts)}"


def _cause(missing: Sequence[str], extra: Sequence[str]) -> str:
    """Name the likely reason, as far as names tell."""
    prefixes = fitting_prefixes(extra, missing) if missing else []
    if prefixes:
        those = " or ".join(f"'{prefix}'" for prefix in prefixes)
        return f"; the tensors below {those} fit, beside others: save them alone, without the prefix"
    if any("lora_" in name for name in extra):
        return "; it holds LoRA adapters: merge them (merge_and_unload), or give a factory that adds them"
    if any("lora_" in name for name in missing):
        return "; the network has LoRA adapters and the file none: give the file of the adapted network"
    heads = {name.partition(".")[0] for name in (*missing, *extra)}
    if missing and extra and heads <= {*_HEADS}:
        return "; only the head differs: a head that was replaced needs a factory (file.py:factory) that replaces it"
    if extra and not missing and heads <= {"AuxLogits", "aux1", "aux2"}:
        return "; these are auxiliary heads: the argument aux_logits=true builds them"
    return ""


def _classes_hint(expected: Mapping[str, Tensor], name: str, found: Tensor) -> str:
    """Name the likely reason when a last layer differs in its number of rows alone."""
    last = [*expected][-2:]
    tensor = expected[name]
    if name == next(iter(expected)) and found.dim() == 4 and found.shape[0] == tensor.shape[0]:
        if found.shape[1] == 3 and tensor.shape[1] == 1:
            return (
                " (colour images instead of grey ones: a mean and std of three values each, under preprocessing in "
                "--model-config, repeat grey images)"
            )
    same_inputs = found.dim() == tensor.dim() and found.shape[1:] == tensor.shape[1:]
    if same_inputs and (name in last or name.rpartition(".")[0].partition(".")[0] in _HEADS):
        return f" ({len(found)} classes instead of {len(tensor)})"
    return ""
