from __future__ import annotations

import copy
import io
import json
import os
import pickle
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pymixunlearn import models
from pymixunlearn.errors import UserError
from pymixunlearn.models.adapter import adapted
from pymixunlearn.models.class_map import check_class_map, map_of
from pymixunlearn.models.origins.expected_inputs import expected_preprocess
from pymixunlearn.models.registry import model_runs_code
from pymixunlearn.models.specification import parse_specification
from pymixunlearn.models.weight_forms import in_form_of
from pymixunlearn.training import CodeNotAllowed, fresh_weights, load_model, model_hash, save_model
from pymixunlearn.user_files import import_file

MOBILE = "torchvision:mobilenet_v3_small"
FACTORY = """
import torch
from torch import nn
from beside import WIDTH

class Net(nn.Module):
    def __init__(self, classes, width):
        super().__init__()
        self.body = nn.Conv2d(3, width, 3)
        self.head = nn.Linear(width, classes)

    def forward(self, images):
        return {"scores": self.head(self.body(images).mean((2, 3)))}

def make(num_classes, width=WIDTH):
    return Net(num_classes, width)

def fixed(num_classes):
    return torch.manual_seed(0) and Net(num_classes, 4)

def broken():
    return 1 / 0

def nothing():
    return "a network"
"""


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("WIDTH = 4\n")
    (tmp_path / "nets.py").write_text(FACTORY)
    return tmp_path / "nets.py"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("cnn", "built-in"),
        ("torchvision:resnet50", "torchvision"),
        ("timm:vit_base_patch16_224.augreg_in21k", "timm"),
        ("hf:google/vit-base-patch16-224", "hf"),
        ("hf:/a/folder", "hf"),
        ("nets.mine:make", "module"),
        ("nets.mine:Net.build", "module"),
        ("a/b c/nets.py:make", "file"),
    ],
)
def test_a_specification_says_where_a_model_comes_from(text: str, kind: str) -> None:
    assert parse_specification(text).kind == kind
    assert model_runs_code({"name": text}) == (kind in ("module", "file"))


@pytest.mark.parametrize("text", ["torchvision:", "nets.py", "a b:c", "nets.py:", "nets.py:1x", "nowhere:"])
def test_what_is_no_specification_is_told_with_the_forms(text: str) -> None:
    with pytest.raises(UserError, match=f"model '{text}' .*expected"):
        models.build(text, num_classes=3)


def test_torchvision_gives_its_own_initialisation_by_the_seed() -> None:
    from torchvision.models import mobilenet_v3_small

    first, same, other = (models.build(MOBILE, num_classes=3, seed=seed) for seed in (1, 1, 2))
    assert model_hash(first) == model_hash(same) != model_hash(other)
    assert [*first.state_dict()] == [*mobilenet_v3_small(num_classes=3).state_dict()]
    expected = {"name": MOBILE, "num_classes": 3, "in_channels": 3, "image_size": None}
    assert models.architecture_of(first) == models.architecture_of(copy.deepcopy(first)) == expected
    grey = models.build(MOBILE, num_classes=3, in_channels=1)
    assert grey.eval()(torch.rand(2, 1, 32, 32)).shape == (2, 3)
    wide = models.build("torchvision:vit_b_16", num_classes=3, arguments={"image_size": 32})
    assert wide.eval()(torch.rand(1, 3, 32, 32)).shape == (1, 3)


def test_what_a_library_does_not_have_is_told_with_the_nearest() -> None:
    with pytest.raises(
        UserError, match="unknown model of torchvision 'resnet81'; expected one of its 8., for example resnet18"
    ):
        models.build("torchvision:resnet81", num_classes=3)
    with pytest.raises(UserError, match="cannot be built with depth=3 .TypeError") as raised:
        models.build("torchvision:resnet18", num_classes=3, arguments={"depth": 3})
    assert "\n" not in str(raised.value)
    for arguments in ({"weights": "DEFAULT"}, {"num_classes": 4}):
        with pytest.raises(UserError, match="of model 'torchvision:resnet18' is set by pymixunlearn itself"):
            models.build("torchvision:resnet18", num_classes=3, arguments=arguments)
    with pytest.raises(UserError, match="unknown model 'resnet81'.*Others are written torchvision:NAME"):
        models.build("resnet81", num_classes=3)


@pytest.mark.parametrize(
    ("name", "library"), [("timm:resnet18", "timm"), ("hf:google/vit", "transformers")], ids=["timm", "hf"]
)
def test_a_library_that_is_missing_is_named_with_the_command(
    name: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=rf"model '{name}' needs {library}.*pip install 'pymixunlearn\[\w+\]'$"):
        models.build(name, num_classes=3)


def test_pretrained_weights_without_a_network_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **named: object) -> None:
        raise OSError("no route\nto host")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", unreachable)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    for name, size in ((MOBILE, 32), ("resnet18", 224)):
        with pytest.raises(UserError, match="cannot be fetched .no route.; expected a network, or files") as raised:
            models.build(name, num_classes=3, in_channels=3, image_size=size, pretrained=True)
        assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match="'cnn' has no pretrained weights"):
        models.build("cnn", num_classes=3, in_channels=3, image_size=32, pretrained=True)


def test_pretrained_weights_get_a_new_head(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import mobilenet_v3_small, resnet18

    for name, make in ((MOBILE, mobilenet_v3_small), ("resnet18", resnet18)):
        state = make(num_classes=1000).state_dict()
        for module in ("torchvision_models", "../resnet"):
            path = "pymixunlearn.models.resnet" if module == "../resnet" else f"pymixunlearn.models.origins.{module}"
            monkeypatch.setattr(f"{path}.pretrained_state", lambda _, state=state: dict(state))
        models_of = [
            models.build(name, num_classes=3, in_channels=3, image_size=224, seed=seed, pretrained=True)
            for seed in (0, 1)
        ]
        moved = [
            key
            for key, value in models_of[0].state_dict().items()
            if not torch.equal(value, models_of[1].state_dict()[key])
        ]
        head = "classifier.3" if name == MOBILE else "fc"
        assert moved and all(key.startswith(head) for key in moved)
        first = next(iter(state))
        assert torch.equal(models_of[0].state_dict()[first], state[first])
        assert models_of[0].architecture["pretrained"] is True


def test_a_factory_in_a_file_is_called_with_what_it_has_parameters_for(factory: Path) -> None:
    model = models.build(f"{factory}:make", num_classes=3, seed=1)
    assert model.head.weight.shape == (3, 4)
    again, other = (models.build(f"{factory}:make", num_classes=3, seed=seed) for seed in (1, 2))
    assert model_hash(model) == model_hash(again) != model_hash(other)
    wide = models.build(f"{factory}:make", num_classes=3, arguments={"width": 6})
    assert wide.head.weight.shape == (3, 6)
    assert models.architecture_of(wide)["arguments"] == {"width": 6}
    wide.head = nn.Linear(6, 3, bias=False)
    assert models.architecture_of(wide) is None
    with adapted(model, torch.rand(2, 3, 8, 8), 3):
        assert model(torch.rand(2, 3, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("maek", "unknown function of model .*'maek'.*Did you mean 'make'"),
        ("broken", r"cannot be built by broken\(\): ZeroDivisionError: division by zero, line 22$"),
        ("nothing", "is a str; expected a function that returns a torch.nn.Module"),
        ("WIDTH", "is an int; expected a function"),
    ],
)
def test_a_factory_that_fails_is_one_sentence_with_the_place(factory: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        models.build(f"{factory}:{name}", num_classes=3)


def test_files_and_modules_that_cannot_be_imported_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("x = 1\nimport nothing_of_that_name\n")
    with pytest.raises(UserError, match="bad.py' cannot be imported .ModuleNotFoundError: .*, line 2"):
        models.build(f"{tmp_path / 'bad.py'}:make", num_classes=3)
    with pytest.raises(UserError, match="gone.py' does not exist"):
        models.build(f"{tmp_path / 'gone.py'}:make", num_classes=3)
    with pytest.raises(UserError, match="module 'nothing_of_that_name' of model cannot be imported"):
        models.build("nothing_of_that_name:make", num_classes=3)


def test_a_module_is_a_factory_too() -> None:
    model = models.build("torchvision.models:squeezenet1_1", num_classes=3)
    assert len(model.architecture["code_sha256"]) == 64


def test_a_file_that_changed_builds_no_model_of_a_record(factory: Path, tmp_path: Path) -> None:
    model = models.build(f"{factory}:make", num_classes=3)
    save_model(tmp_path / "a.safetensors", model)
    with pytest.raises(CodeNotAllowed, match="code that a file names is not run unasked; expected --allow-code"):
        load_model(tmp_path / "a.safetensors")
    assert model_hash(load_model(tmp_path / "a.safetensors", allow_code=True)) == model_hash(model)
    factory.write_text(FACTORY + "# another\n")
    with pytest.raises(UserError, match="nets.py' was changed since the model was made with it"):
        load_model(tmp_path / "a.safetensors", allow_code=True)


def test_a_module_that_changed_builds_no_model_of_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "changing_nets.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    model = models.build("changing_nets:make", num_classes=3)
    save_model(tmp_path / "a.safetensors", model)
    assert model_hash(load_model(tmp_path / "a.safetensors", allow_code=True)) == model_hash(model)
    (tmp_path / "changing_nets.py").write_text(f"raise SystemExit\n{FACTORY}")
    monkeypatch.delitem(sys.modules, "changing_nets")
    with pytest.raises(UserError, match="changing_nets.py' was changed since the model was made with it"):
        load_model(tmp_path / "a.safetensors", allow_code=True)


def test_a_compiled_copy_of_a_file_is_not_run(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def make(num_classes):\n    return 'other'\n")
    py_compile.compile(str(file))
    state = file.stat()
    file.write_text("def make(num_classes):\n    return 'right'\n")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert import_file(file).make(3) == "right"


def test_another_process_finds_what_is_defined_in_a_file(factory: Path, tmp_path: Path) -> None:
    model = models.build(f"{factory}:make", num_classes=3)
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    code = "import pickle, sys; print(type(pickle.load(open(sys.argv[1], 'rb'))).__name__)"
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.pickle")], capture_output=True, text=True, timeout=120
    )
    assert found.stdout == "Net\n", found.stderr


def test_retraining_builds_the_network_anew_with_the_seed(factory: Path) -> None:
    for name in (MOBILE, f"{factory}:make"):
        model = models.build(name, num_classes=3, seed=1)
        fresh = fresh_weights(model, 7)
        assert model_hash(fresh) == model_hash(models.build(name, num_classes=3, seed=7))
        assert models.architecture_of(fresh) == models.architecture_of(model)


@pytest.mark.parametrize("members", [None, 2])
def test_a_saved_model_of_a_specification_comes_back(factory: Path, members: int | None, tmp_path: Path) -> None:
    for name in (MOBILE, f"{factory}:make"):
        model = models.build(name, num_classes=2, members=members, outputs=3, class_map=[2, 0])
        save_model(tmp_path / "a.safetensors", model.eval())
        loaded = load_model(tmp_path / "a.safetensors", allow_code=True)
        images = torch.rand(2, 3, 32, 32)
        with adapted(loaded, images, 2), adapted(model):
            assert torch.equal(loaded(images), model(images))
        assert models.architecture_of(loaded) == models.architecture_of(model)


def test_a_class_map_picks_the_logits_of_the_classes() -> None:
    model = models.build(MOBILE, num_classes=2, outputs=5, class_map=[4, 1]).eval()
    images = torch.rand(3, 3, 32, 32)
    every = model(images)
    with adapted(model, images, 2):
        assert torch.equal(model(images), every[:, [4, 1]])
    assert model(images).shape == (3, 5)


def test_probabilities_are_found_before_the_class_map_picks() -> None:
    class Softmax(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 5)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(images.flatten(1)).softmax(1)

    model = Softmax()
    model.class_map = [3, 0]
    images = torch.rand(3, 1, 2, 2)
    with pytest.warns(UserWarning, match="returns probabilities"), adapted(model, images, 2):
        expected = model.head(images.flatten(1)).log_softmax(1)[:, [3, 0]]
        torch.testing.assert_close(model(images), expected)


def test_a_class_map_that_does_not_fit_is_refused() -> None:
    for class_map, outputs in (([0, 1, 1], 5), ([0, 5], 5), ([0, 1], 5), ([-1, 0, 1], 5)):
        with pytest.raises(UserError, match="class_map of model 'net' is .*expected 3 different indices from 0 to 4"):
            check_class_map("net", class_map, 3, outputs)
    with pytest.raises(UserError, match="has 5 outputs and the data 3 classes; expected a class map"):
        models.build(MOBILE, num_classes=3, outputs=5)
    with pytest.raises(UserError, match="class_map lacks the class 'dog'"):
        map_of({"cat": 1}, ["cat", "dog"], None)
    with pytest.raises(UserError, match="names the output 'tabby'"):
        map_of({"cat": "tabby"}, ["cat"], None)
    with pytest.raises(UserError, match="class_map has no output for a class of the data: unknown class 'taby'.*tabby"):
        map_of(["taby"], ["cat"], ["tabby", "beagle"])


def test_a_model_with_fewer_outputs_than_its_class_map_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    model.class_map = [0, 7]
    with (
        pytest.raises(UserError, match="class_map names output 7, and the model has 3"),
        adapted(model, torch.rand(2, 1, 2, 2), 2),
    ):
        model(torch.rand(2, 1, 2, 2))


def test_weights_in_parts_with_an_index(tmp_path: Path) -> None:
    model = models.build(MOBILE, num_classes=3, seed=1)
    state = model.state_dict()
    names = [*state]
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: state[name] for name in part}, tmp_path / file)
    places = {name: file for file, part in parts.items() for name in part}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    for given in (index, tmp_path):
        assert model_hash(models.build(MOBILE, num_classes=3, weights=given)) == model_hash(model)
    index.write_text(json.dumps({"weight_map": {**places, names[0]: "../a.safetensors"}}))
    with pytest.raises(UserError, match="names the part '../a.safetensors'; expected files beside it"):
        models.build(MOBILE, num_classes=3, weights=index)
    index.write_text(json.dumps({"weight_map": {**places, "more": "a.safetensors"}}))
    with pytest.raises(UserError, match="names a tensor 'more' that its parts do not hold"):
        models.build(MOBILE, num_classes=3, weights=index)


def test_parts_of_pytorch_are_written_as_they_came(tmp_path: Path) -> None:
    net, other = nn.Linear(2, 1), nn.Linear(2, 1)
    places = {"weight": "part-1.bin", "bias": "part-2.bin"}
    for name, file in places.items():
        torch.save({name: net.state_dict()[name]}, tmp_path / file)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    written = dict(in_form_of(tmp_path, other))
    assert set(written) == {index.name, *places.values()}
    for name, file in places.items():
        found = torch.load(io.BytesIO(written[file]), weights_only=True)
        assert set(found) == {name} and torch.equal(found[name], other.state_dict()[name])


def test_what_does_not_fit_is_counted_with_the_likely_cause(tmp_path: Path) -> None:
    model = models.build(MOBILE, num_classes=3)
    state = model.state_dict()

    def refusal(content: dict[str, torch.Tensor]) -> str:
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(UserError) as raised:
            models.build(MOBILE, num_classes=3, weights=tmp_path / "a.pt")
        return str(raised.value)

    other = models.build(MOBILE, num_classes=1000).state_dict()
    assert "tensor 'classifier.3.weight' is [1000, 1024], expected [3, 1024] (1000 classes instead of 3)" in refusal(
        other
    )
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(UserError, match="colour images instead of grey ones: a mean and std of three values each"):
        models.build(MOBILE, num_classes=3, in_channels=1, weights=tmp_path / "a.pt")
    replaced = {name.replace("classifier.3.", "classifier.3.1."): value for name, value in state.items()}
    message = refusal(replaced)
    assert "2 missing (classifier.3.weight, classifier.3.bias), 2 left over (classifier.3.1.bias" in message
    assert message.endswith("needs a factory (file.py:factory) that replaces it")
    lora = {**state, **{f"features.0.{i}.lora_A.weight": torch.zeros(1) for i in range(3)}}
    assert refusal(lora).endswith("or give a factory that adds them")


@pytest.mark.parametrize("content", [[], {"size": {"height": 8, "width": 8}}])
def test_an_image_processor_of_another_form_is_one_sentence(content: object, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="has not the form of an image classifier's.*say the preprocessing in"):
        expected_preprocess(f"hf:{tmp_path}")


@pytest.mark.extras
def test_a_description_of_a_file_fetches_no_kernel() -> None:
    small = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "patch_size": 4,
    }
    kernel = {"attn_implementation": "kernels-community/flash-attn"}
    description = {"model_type": "vit", "image_size": 8, **small, **kernel}
    model = models.build("hf:anyone/small", num_classes=3, description=description)
    assert "kernels" not in str(model.config._attn_implementation)
    with pytest.raises(UserError, match="argument 'attn_implementation' of model 'hf:anyone/small' is set by"):
        models.build("hf:anyone/small", num_classes=3, description=description, arguments=kernel)


def test_tied_weights_that_a_file_holds_once(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight

    model, other = Tied(), Tied()
    for left_out in ("first.weight", "second.weight"):
        save_file({n: t.clone() for n, t in model.state_dict().items() if n != left_out}, tmp_path / "a.safetensors")
        assert model_hash(models.load_weights(other, tmp_path / "a.safetensors")) == model_hash(model)
