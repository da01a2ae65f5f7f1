from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pymixunlearn import models
from pymixunlearn.errors import UserError
from pymixunlearn.training import load_model, model_hash, read_metadata, save_model

CNN = {"name": "cnn", "num_classes": 3, "in_channels": 1, "image_size": 8}


def built(name: str = "cnn", **changes: int) -> nn.Module:
    return models.build(name, **{"num_classes": 3, "in_channels": 1, "image_size": 8, **changes})


class Executed(nn.Module):
    """A pickle that would write a file on loading."""

    def __init__(self, target: Path) -> None:
        super().__init__()
        self.target = str(target)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("name", models.available())
def test_a_saved_model_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    model = built(name, seed=3)
    for buffer in model.buffers():
        buffer.add_(1)
    path = tmp_path / "new folder" / "model.safetensors"
    save_model(path, model, metadata={"dataset": "digits", "seed": 3})
    loaded = load_model(path)
    assert model_hash(loaded) == model_hash(model)
    assert not loaded.training
    assert (loaded.architecture, loaded.feature_layer) == (model.architecture, model.feature_layer)
    assert all(parameter.requires_grad and not parameter.is_meta for parameter in loaded.parameters())
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(loaded(images), model.eval()(images))
    assert read_metadata(path) == {"dataset": "digits", "seed": 3}


def test_a_users_network_goes_into_a_module_of_the_same_structure(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.second = nn.Linear(4, 4)
            self.second.weight = self.first.weight

    model, other = Tied(), Tied()
    save_model(tmp_path / "tied.safetensors", model)
    with pytest.raises(UserError, match="does not say which network it holds"):
        load_model(tmp_path / "tied.safetensors")
    assert load_model(tmp_path / "tied.safetensors", into=other) is other
    assert model_hash(other) == model_hash(model)


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
@pytest.mark.parametrize("form", ["plain", "state_dict", "parallel"])
def test_state_dicts_of_pytorch(form: str, suffix: str, tmp_path: Path) -> None:
    model = built(seed=1)
    content: dict[str, object] = dict(model.state_dict())
    if form == "state_dict":
        content = {"state_dict": model.state_dict(), "epoch": 3}
    if form == "parallel":
        content = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save(content, tmp_path / f"model{suffix}")
    with pytest.raises(UserError, match="pass its architecture"):
        load_model(tmp_path / f"model{suffix}")
    assert model_hash(load_model(tmp_path / f"model{suffix}", architecture=CNN)) == model_hash(model)
    assert read_metadata(tmp_path / f"model{suffix}") == {}


def test_pickled_code_is_never_run(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    torch.save(Executed(target), tmp_path / "evil.pt")
    torch.save({"features.conv1.weight": Executed(target)}, tmp_path / "nested.pth")
    for name in ("evil.pt", "nested.pth"):
        with pytest.raises(UserError, match="corrupt or holds more than tensors"):
            load_model(tmp_path / name, architecture=CNN)
        # A name does not decide: a pickle called safetensors is not unpickled either.
        (tmp_path / name).rename(tmp_path / "evil.safetensors")
        with pytest.raises(UserError, match="corrupt or not a safetensors file"):
            load_model(tmp_path / "evil.safetensors", architecture=CNN)
    assert not target.exists()


def test_missing_and_corrupt_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent.safetensors' does not exist"):
        load_model(tmp_path / "absent.safetensors")
    with pytest.raises(UserError, match="does not exist"):
        load_model(tmp_path)
    path = tmp_path / "model.safetensors"
    save_model(path, built())
    content = path.read_bytes()
    for damaged in (b"", content[:100], content[:-1], b"\xff" * len(content)):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="corrupt or not a safetensors file"):
            load_model(path)
    for name, damaged in (("empty.pt", b""), ("short.pth", b"PK\x03\x04 no more"), ("text.pt", b"hello")):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(UserError, match="corrupt"):
            load_model(tmp_path / name, architecture=CNN)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match="does not hold a state dict"):
        load_model(tmp_path / "list.pt", architecture=CNN)


def test_another_architecture_names_the_tensor_that_differs(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, built())
    with pytest.raises(UserError, match="is not a vit of this shape: it has no tensor 'class_token'"):
        load_model(path, architecture={**CNN, "name": "vit"})
    with pytest.raises(UserError, match=r"tensor 'embedding.weight' is \[256, 128\], expected \[256, 1568\]"):
        load_model(path, architecture={**CNN, "image_size": 28})
    with pytest.raises(UserError, match="it has a tensor '0.bias' too many"):
        save_file({"weight": torch.zeros(1, 1), "0.bias": torch.zeros(1)}, tmp_path / "extra.safetensors")
        load_model(tmp_path / "extra.safetensors", into=nn.Linear(1, 1, bias=False))
    with pytest.raises(UserError, match="unknown model 'cmn'.*Did you mean 'cnn'"):
        load_model(path, architecture={**CNN, "name": "cmn"})


def test_another_number_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, built())
    with pytest.raises(UserError, match="has 3 classes; expected 10"):
        load_model(path, num_classes=10)
    with pytest.raises(UserError, match=r"\[3, 128\], expected \[10, 128\] \(3 classes instead of 10\)"):
        load_model(path, architecture={**CNN, "num_classes": 10}, num_classes=10)
    assert load_model(path, num_classes=3).architecture["num_classes"] == 3


@pytest.mark.parametrize(
    "architecture",
    [
        {**CNN, "num_classes": 10**6},
        {**CNN, "num_classes": 10**13},
        {"name": "cnn"},
        {**CNN, "colour": 1},
        {**CNN, "image_size": "8"},
        {**CNN, "name": []},
        "cnn",
    ],
)
def test_a_header_that_lies_is_refused_before_anything_is_allocated(architecture: object, tmp_path: Path) -> None:
    header = {"format": "pymixunlearn-model/1", "architecture": architecture, "metadata": {}}
    path = tmp_path / "lie.safetensors"
    save_file(
        {name: tensor.contiguous() for name, tensor in built().state_dict().items()},
        path,
        metadata={"pymixunlearn": json.dumps(header)},
    )
    with pytest.raises(UserError, match="lie.safetensors|expected an integer"):
        load_model(path)


@pytest.mark.parametrize("header", ["[]", "[1]", "7", "{", '{"format": "other/1"}', '{"metadata": [1]}'])
def test_a_header_of_another_form_is_refused(header: str, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "odd.safetensors", metadata={"pymixunlearn": header})
    with pytest.raises(UserError, match="header of another format|corrupt"):
        load_model(tmp_path / "odd.safetensors")


def test_writing_leaves_the_old_file_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, built(seed=1))
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_model(path, built(seed=2))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    assert stat.S_IMODE(path.stat().st_mode) & stat.S_IRUSR


def _interrupt(*paths: object) -> None:
    raise KeyboardInterrupt


def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        save_model(tmp_path / "file" / "model.safetensors", built())


def test_the_hash_sees_names_shapes_dtypes_and_bytes() -> None:
    def hashed(**tensors: torch.Tensor) -> str:
        module = nn.Module()
        for name, tensor in tensors.items():
            module.register_buffer(name, tensor)
        return model_hash(module)

    base = torch.zeros(2, 3)
    variants = [
        hashed(a=base),
        hashed(b=base),
        hashed(a=torch.zeros(3, 2)),
        hashed(a=torch.zeros(2, 3, dtype=torch.int32)),
        hashed(a=torch.ones(2, 3)),
        hashed(a=base, b=torch.tensor(1, dtype=torch.bfloat16)),
    ]
    assert len(set(variants)) == len(variants)
    assert hashed(a=torch.arange(6.0).view(2, 3).T.contiguous().T) == hashed(a=torch.arange(6.0).view(2, 3))
    assert hashed(a=base, b=base + 1) == hashed(b=base + 1, a=base)
