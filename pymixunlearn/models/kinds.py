"""Kinds of networks: those that can be copied, called and trained, and those that cannot."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from pymixunlearn.display import a_type
from pymixunlearn.errors import UserError


def check_kind(model: object) -> None:
    """Check that a model is a network that can be copied, called and trained.

    Raises:
        UserError: It is a TorchScript or exported program, has weights without values, or is no module at all.
    """
    way_out = "expected the torch.nn.Module that it was made from, with its weights loaded into it"
    if isinstance(model, torch.jit.ScriptModule):
        raise UserError(f"model is a TorchScript program, whose layers cannot be trained or reset; {way_out}")
    exported = isinstance(model, torch.fx.GraphModule) and not _switches(model)
    if exported or isinstance(model, torch.export.ExportedProgram):
        raise UserError(f"model is a program of torch.export, which has no training mode; {way_out}")
    if not isinstance(model, nn.Module):
        raise UserError(f"model is {a_type(model)}; expected a torch.nn.Module")
    empty = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]
    if empty:
        raise UserError(
            f"model has weights without values ('{empty[0]}' is on the device meta); expected loaded weights"
        )
    lazy = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if is_lazy(tensor)]
    if lazy:
        raise UserError(
            f"model has lazy layers without weights ('{lazy[0]}'); expected one that has processed a batch of images"
        )


def _switches(model: nn.Module) -> bool:
    """Tell whether a traced network can be put into training mode; those of torch.export refuse."""
    try:
        model.train(model.training)
    except NotImplementedError:
        return False
    return True
