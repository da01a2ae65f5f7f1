from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
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


@pytest.mark.parametrize(
    "name", ["a.pt", "a.pth", "0model_SA_best.pth.tar", "last.ckpt", "pytorch_model.bin", "weights"]
)
def test_the_content_of_a_file_decides_not_its_suffix(name: str, tmp_path: Path) -> None:
    model = built(seed=1)
    for save in (torch.save, functools.partial(torch.save, _use_new_zipfile_serialization=False)):
        save(model.state_dict(), tmp_path / name)
        with pytest.raises(UserError, match="pass its architecture"):
            load_model(tmp_path / name)
        assert model_hash(load_model(tmp_path / name, architecture=CNN)) == model_hash(model)
        assert read_metadata(tmp_path / name) == {}
    save_model(tmp_path / name, model)
    assert model_hash(load_model(tmp_path / name)) == model_hash(model)


OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize(
    "keys",
    [
        ["state_dict"],
        ["model_state_dict"],
        ["net"],
        ["ema_model"],
        ["model", "module"],
        ["checkpoint", "weights"],
    ],
    ids=".".join,
)
def test_a_state_dict_is_found_under_any_keys(keys: list[str], tmp_path: Path) -> None:
    model = built(seed=1)
    content: dict[str, object] = dict(model.state_dict())
    for key in reversed(keys):
        content = {"epoch": 3, key: content, "optimizer": OPTIMIZER, "best_acc": 0.5}
    torch.save(content, tmp_path / "a.pt")
    assert model_hash(load_model(tmp_path / "a.pt", architecture=CNN)) == model_hash(model)


def test_of_several_networks_in_a_file_one_must_be_meant(tmp_path: Path) -> None:
    model, other = built(seed=1), built(seed=2)
    torch.save({"state_dict_ema": other.state_dict(), "state_dict": model.state_dict()}, tmp_path / "timm.pt")
    assert model_hash(load_model(tmp_path / "timm.pt", architecture=CNN)) == model_hash(model)
    torch.save({"teacher": other.state_dict(), "student": {"net": model.state_dict()}}, tmp_path / "two.pt")
    with pytest.raises(UserError, match="several sets of tensors, under 'teacher', 'student.net'; expected one"):
        load_model(tmp_path / "two.pt", architecture=CNN)
    torch.save({"epoch": 3, "args": ["a"], "optimizer": OPTIMIZER}, tmp_path / "none.pt")
    with pytest.raises(UserError, match=r"but a dict with 'epoch' \(int\), 'args' \(list\), 'optimizer' \(dict\);"):
        load_model(tmp_path / "none.pt", architecture=CNN)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module.module.", "model.", "backbone.net.module."]
)
@pytest.mark.parametrize("kind", ["pickle", "safetensors"])
def test_prefixes_that_all_names_share_are_taken_off(prefix: str, kind: str, tmp_path: Path) -> None:
    model = built(seed=1)
    content = {prefix + name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    path = tmp_path / "model"
    torch.save(content, path) if kind == "pickle" else save_file(content, path)
    assert model_hash(load_model(path, architecture=CNN)) == model_hash(model)
    # A prefix that is the network's own stays.
    wrapped = nn.ModuleDict({"model": built()})
    save_file({f"model.{name}": tensor for name, tensor in content.items()}, path)
    assert model_hash(load_model(path, into=wrapped).model) == model_hash(model)


def test_prefixes_that_are_not_common_to_all_names_are_told(tmp_path: Path) -> None:
    content = {f"model.{name}": tensor for name, tensor in built().state_dict().items()}
    torch.save({**content, "loss.weight": torch.ones(3)}, tmp_path / "a.pt")
    with pytest.raises(
        UserError,
        match="no tensor 'features.conv1.weight', but one called 'model.features.conv1.weight'.*below 'model.' fit",
    ):
        load_model(tmp_path / "a.pt", architecture=CNN)
    teacher = {name.replace("model.", "teacher.", 1): tensor for name, tensor in content.items()}
    torch.save({**content, **teacher}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="the tensors below 'model.' or 'teacher.' fit, beside others: save them alone"):
        load_model(tmp_path / "a.pt", architecture=CNN)


def test_an_average_of_models_is_read_without_its_counter(tmp_path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(built(seed=1))
    torch.save(averaged.state_dict(), tmp_path / "swa.pt")
    assert model_hash(load_model(tmp_path / "swa.pt", architecture=CNN)) == model_hash(averaged.module)
    torch.save(averaged.module.state_dict(), tmp_path / "plain.pt")
    with pytest.raises(UserError, match="has no tensor 'n_averaged'"):  # the network's own
        load_model(tmp_path / "plain.pt", into=torch.optim.swa_utils.AveragedModel(built()))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda tensor: tensor.to(torch.int8), "'features.conv1.weight' is torch.int8, as of a quantized or complex"),
        (lambda tensor: tensor.to(torch.complex64), "'features.conv1.weight' is torch.complex64"),
        (lambda tensor: tensor.to_sparse(), "'features.conv1.weight' is sparse .torch.sparse_coo.; expected a plain"),
        (lambda tensor: tensor.to("meta"), "'features.conv1.weight' has no values .device meta."),
    ],
)
def test_tensors_that_are_no_weights_are_refused(
    changed: Callable[[torch.Tensor], torch.Tensor], message: str, tmp_path: Path
) -> None:
    torch.save({name: changed(tensor) for name, tensor in built().state_dict().items()}, tmp_path / "a.pt")
    model = built(seed=1)
    before = model_hash(model)
    with pytest.raises(UserError, match=message):
        load_model(tmp_path / "a.pt", into=model)
    with pytest.raises(UserError, match=message):
        load_model(tmp_path / "a.pt", architecture=CNN)
    assert model_hash(model) == before


def test_what_is_beside_tensors_in_a_state_dict_is_named(tmp_path: Path) -> None:
    torch.save({**built().state_dict(), "head.packed": (1, 2)}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"a dict with 10 tensors and 'head.packed' \(tuple\); save"):
        load_model(tmp_path / "a.pt", architecture=CNN)


def test_wrappers_around_the_network_or_a_layer_come_and_go(tmp_path: Path) -> None:
    model = built(seed=1)
    plain, compiled = tmp_path / "plain.pt", tmp_path / "compiled.pt"
    torch.save(model.state_dict(), plain)
    inner = {name.replace("features.", "features._orig_mod."): value for name, value in model.state_dict().items()}
    torch.save(inner, compiled)
    assert model_hash(load_model(compiled, architecture=CNN)) == model_hash(model)
    for wrapped in (nn.DataParallel(built()), torch.compile(built(), backend="eager")):
        load_model(plain, into=wrapped)
        assert all(map(torch.equal, wrapped.parameters(), model.parameters()))


def test_counters_that_old_files_lack_start_at_zero(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    model[1].num_batches_tracked += 7
    state = model.state_dict()
    torch.save({name: value for name, value in state.items() if "tracked" not in name}, tmp_path / "old.pt")
    loaded = load_model(tmp_path / "old.pt", into=nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)))
    assert int(loaded[1].num_batches_tracked) == 0
    assert torch.equal(loaded[0].weight, model[0].weight)
    torch.save({name: value for name, value in state.items() if "mean" not in name}, tmp_path / "old.pt")
    with pytest.raises(UserError, match="no tensor '1.running_mean'"):
        load_model(tmp_path / "old.pt", into=model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_type_of_the_weights_comes_back(dtype: torch.dtype, tmp_path: Path) -> None:
    model = built(seed=1).to(dtype)
    save_model(tmp_path / "a.safetensors", model)
    torch.save(model.state_dict(), tmp_path / "a.pt")
    assert model_hash(load_model(tmp_path / "a.safetensors")) == model_hash(model)
    assert model_hash(load_model(tmp_path / "a.pt", architecture=CNN)) == model_hash(model)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of TorchScript itself
def test_programs_are_refused_with_the_way_out(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    torch.jit.script(model).save(str(tmp_path / "script.pt"))
    torch.export.save(torch.export.export(model, (torch.rand(1, 2),)), tmp_path / "exported.pt2")
    for name, kind in (("script.pt", "TorchScript program"), ("exported.pt2", "program of torch.export")):
        with pytest.raises(UserError, match=rf"is a {kind}.*torch.save\(model.state_dict\(\), FILE\)"):
            load_model(tmp_path / name, into=model)


def test_an_archive_of_a_later_zip_version_is_left_to_pytorch(tmp_path: Path) -> None:
    """Python's reader of ZIP archives raises NotImplementedError at such a one."""
    torch.save(built().state_dict(), tmp_path / "a.pt")
    content = bytearray((tmp_path / "a.pt").read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 255
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(NotImplementedError):
        zipfile.ZipFile(tmp_path / "a.pt")
    before = model_hash(model := built(seed=1))
    load_model(tmp_path / "a.pt", into=model)
    assert model_hash(model) != before


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
        (b"\x89HDF\r\n", "an HDF5 file"),
        (b"\x1f\x8b\x08", "compressed with gzip"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"\n<HTML><head>", "a web page"),
        (b'{"weight_map": {}}', "a JSON file without the weight_map of an index"),
        (b"PK\x03\x04 no more", "corrupt"),
    ],
    ids=["lfs", "hdf5", "gzip", "html", "HTML", "index", "zip"],
)
def test_files_of_other_kinds_are_named(content: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(UserError, match=f"model.pt' is {kind}"):
        load_model(tmp_path / "model.pt", architecture=CNN)


def test_state_that_is_no_tensor_or_has_no_values_is_refused(tmp_path: Path) -> None:
    class Counting(nn.Linear):
        def get_extra_state(self) -> object:
            return {"seen": 3}

        def set_extra_state(self, state: object) -> None: ...

    for model, message in ((Counting(1, 1), "'_extra_state' .* is a dict"), (nn.LazyLinear(2), "lazy layer")):
        with pytest.raises(UserError, match=message):
            save_model(tmp_path / "a.safetensors", model)
    assert not list(tmp_path.iterdir())


def test_a_changed_network_is_not_saved_as_the_one_it_was(tmp_path: Path) -> None:
    model = built()
    model.head = nn.Linear(128, 5)
    save_model(tmp_path / "a.safetensors", model)
    with pytest.raises(UserError, match="does not say which network it holds"):
        load_model(tmp_path / "a.safetensors")
    other = built()
    other.head = nn.Linear(128, 5)
    assert model_hash(load_model(tmp_path / "a.safetensors", into=other)) == model_hash(model)


def test_pickled_code_is_never_run(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    torch.save(Executed(target), tmp_path / "evil.pt")
    torch.save({"features.conv1.weight": Executed(target)}, tmp_path / "nested.pth")
    torch.save(Executed(target), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("evil.pt", "nested.pth", "old.pt"):
        # A name does not decide: a pickle called safetensors is not unpickled either.
        for file in (tmp_path / name, shutil.copy(tmp_path / name, tmp_path / "evil.safetensors")):
            with pytest.raises(UserError, match=f"holds more than tensors: objects of {os.mkdir.__module__}.mkdir"):
                load_model(file, architecture=CNN)
    assert not target.exists()


class Options:
    """What training scripts put into their checkpoints."""


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("beside", "named"),
    [(argparse.Namespace(lr=0.1), "argparse.Namespace"), (np.float64(0.5), "scalar"), (Options(), "Options")],
    ids=["namespace", "numpy", "own class"],
)
def test_objects_beside_the_tensors_are_named_with_the_way_out(
    beside: object, named: str, legacy: bool, tmp_path: Path
) -> None:
    content = {"state_dict": built().state_dict(), "args": beside}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match=rf"objects of .*{named}.*torch.save\(model.state_dict\(\), FILE\)$") as raised:
        load_model(tmp_path / "a.pt", architecture=CNN)
    # PyTorch's own message is coloured, has many lines, and advises to read the file without protection.
    assert not any(word in str(raised.value) for word in ("\x1b", "\n", "weights_only", "two options"))


def test_missing_and_corrupt_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent.safetensors' does not exist"):
        load_model(tmp_path / "absent.safetensors")
    with pytest.raises(UserError, match="is a folder without model.safetensors or pytorch_model.bin"):
        load_model(tmp_path)
    path = tmp_path / "model.safetensors"
    save_model(path, built())
    content = path.read_bytes()
    for damaged, kind in (
        (b"", "is empty"),
        (content[:100], "corrupt or not a safetensors file"),
        (content[:-1], "corrupt or not a safetensors file"),
        (b"\xff" * len(content), "corrupt or not a model file"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=kind):
            load_model(path)
    for name, damaged in (("cut.pt", b"\x80\x02\x8a"), ("short.pth", b"PK\x03\x04 no more"), ("text.pt", b"hello")):
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
        {**CNN, "members": 1000},
        {**CNN, "name": "torchvision:resnet18", "image_size": None, "in_channels": 3, "num_classes": 10**6},
        {"name": "torchvision:vgg11", "num_classes": 3, "in_channels": 3, "image_size": None},
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
