from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from pymixunlearn.errors import UserError
from pymixunlearn.training import resolve_device, seeded_layers

CPU = torch.device("cpu")


def test_names() -> None:
    assert resolve_device("cpu") == resolve_device(torch.device("cpu", 0)) == CPU
    assert resolve_device() == resolve_device("auto")
    assert resolve_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_nonsense_and_missing_devices_are_named() -> None:
    with pytest.raises(UserError, match="device is 'gpu', which PyTorch does not know"):
        resolve_device("gpu")
    with pytest.raises(UserError, match="device is 'cuda:63', which is not available here; available: cpu"):
        resolve_device("cuda:63")


def test_layers_draw_from_their_stream_and_the_global_generator_is_put_back() -> None:
    ones = torch.ones(64)
    torch.manual_seed(0)
    expected_after = torch.rand(3)
    torch.manual_seed(0)
    with seeded_layers(CPU, 1, "layers", 0):
        first = F.dropout(ones)
    assert torch.equal(torch.rand(3), expected_after)
    with seeded_layers(CPU, 1, "layers", 0):
        assert torch.equal(F.dropout(ones), first)
    with seeded_layers(CPU, 1, "layers", 1):
        assert not torch.equal(F.dropout(ones), first)


@pytest.mark.cuda
def test_the_same_on_cuda() -> None:
    device = torch.device("cuda")
    ones = torch.ones(64, device=device)
    before = torch.cuda.get_rng_state(device)
    with seeded_layers(device, 1, "layers"):
        first = F.dropout(ones)
        assert torch.backends.cudnn.deterministic
    with seeded_layers(device, 1, "layers"):
        assert torch.equal(F.dropout(ones), first)
    assert torch.equal(torch.cuda.get_rng_state(device), before)
    assert not torch.backends.cudnn.deterministic
