"""Models by specification through the commands: unlearn, verify, evaluate, audit, compare, tune, train and retrain."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import Result
from PIL import Image
from torch import nn

import pymixunlearn
from pymixunlearn import models
from pymixunlearn.errors import UserError
from pymixunlearn.experiments.common.bad_request import AnswerIsNo, BadRequest
from pymixunlearn.training import CodeNotAllowed, load_model, model_hash

FEW: dict[str, Any] = {"epochs": 1, "initial.epochs": 1, "retrain.epochs": 1}
NETS = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes, width=4):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Linear(width, classes)

    def forward(self, images):
        return {"scores": self.head(self.stem(images).mean((2, 3)))}

def make(num_classes, width=4):
    return Net(num_classes, width)

def trained(num_classes):
    import torch
    torch.manual_seed(0)
    return Net(num_classes)
"""


def picture(label: int, index: int, side: int = 12) -> Image.Image:
    noise = torch.randint(0, 120, (side, side, 3), generator=torch.Generator().manual_seed(100 * label + index))
    noise[..., label % 3] += 100
    return Image.fromarray(noise.to(torch.uint8).numpy())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("given")
    for part, count in (("train", 16), ("test", 16)):
        for label, name in enumerate(("cat", "cow", "dog")):
            (root / "photos" / part / name).mkdir(parents=True)
            for index in range(count):
                picture(label, index + 50 * (part == "test")).save(root / "photos" / part / name / f"{index}.png")
    (root / "nets.py").write_text(NETS)
    return root


@pytest.fixture(autouse=True)
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def factory_run(folder: Path) -> Path:
    model = f"{folder / 'nets.py'}:make"
    out = folder / "factory-run"
    pymixunlearn.unlearn(model, str(folder / "photos"), out=out, settings=FEW, device="cpu")
    return out


def unlearned(out: Path, model: str | None = None, **options: Any) -> pymixunlearn.Run:
    given = {"retrain": False, **options}
    return pymixunlearn.unlearn(model, "photos", out=out, method="neggrad", settings=FEW, device="cpu", **given)


def test_a_factorys_model_is_unlearned_and_its_record_runs_no_code(folder: Path, tmp_path: Path) -> None:
    factory_run = unlearned(tmp_path / "run", "nets.py:make", retrain=True).folder
    config = json.loads((factory_run / "config.json").read_text())
    assert config["architecture"]["name"] == f"{folder / 'nets.py'}:make"
    found = pymixunlearn.verify(factory_run, device="cpu")
    assert found.holds
    assert any("runs it once you have read it" in sentence for sentence in found.not_checked)
    assert not any("metrics of" in check.subject for check in found)
    allowed = pymixunlearn.verify(factory_run, device="cpu", allow_code=True)
    assert allowed.holds
    subjects = [check.subject for check in allowed]
    assert {f"metrics of {row}" for row in ("initial", "unlearned", "Retrain")} <= set(subjects)


def test_retrain_is_built_anew_from_the_specification(factory_run: Path) -> None:
    config = json.loads((factory_run / "config.json").read_text())
    fresh = models.build(**config["architecture"], seed=3)
    assert type(fresh).__name__ == "Net" and fresh.head.weight.shape == (3, 4)


def test_a_factory_that_returns_trained_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nets.py:trained' has the same weights for every seed.*by --weights"):
        unlearned(tmp_path / "run", "nets.py:trained")
    assert not (tmp_path / "run").exists()


def test_an_audit_of_a_factorys_run_needs_leave_for_its_code(factory_run: Path, tmp_path: Path) -> None:
    with pytest.raises(CodeNotAllowed, match="--allow-code"):
        pymixunlearn.audit(factory_run, out=tmp_path, shadow_models=4, jobs=1, device="cpu")
    found = pymixunlearn.audit(factory_run, out=tmp_path, shadow_models=4, jobs=1, device="cpu", allow_code=True)
    assert set(found.record["attacks"]) == {"lira", "rmia"}


@pytest.mark.slow
def test_several_processes_and_ensembles_of_a_factorys_model(tmp_path: Path) -> None:
    settings = {"initial.epochs": 1, "retrain.epochs": 1}
    found = pymixunlearn.compare(
        ("sisa", "fine-tune"),
        "nets.py:make",
        "photos",
        seeds=(0,),
        out=tmp_path / "c",
        jobs=2,
        settings=settings,
        device="cpu",
    )
    assert {cell["status"] for cell in found.record["cells"].values()} == {"finished"}, found.record["cells"]


def test_a_model_config_of_a_run_builds_the_model_of_a_state_dict(factory_run: Path, tmp_path: Path) -> None:
    config = factory_run / "model.yaml"
    model = load_model(factory_run / "model.safetensors", allow_code=True)
    torch.save({"net": model.state_dict(), "epoch": 3}, tmp_path / "a.pt")
    with pytest.raises(UserError, match="does not say which network it holds; give the network by --model"):
        unlearned(tmp_path / "run", weights=tmp_path / "a.pt")
    with pytest.raises(CodeNotAllowed, match="expected --allow-code once you have read it, or --model"):
        unlearned(tmp_path / "run", weights=tmp_path / "a.pt", model_config=config)
    run = unlearned(tmp_path / "run", weights=tmp_path / "a.pt", model_config=config, allow_code=True)
    assert run.record["hashes"]["initial"] == model_hash(model)
    assert run.record["initial_accuracy"]["count"] == 48


def test_a_changed_model_config_is_found(factory_run: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(factory_run, tmp_path / "run")
    text = (tmp_path / "run" / "model.yaml").read_text().replace("num_classes: 3", "num_classes: 4")
    (tmp_path / "run" / "model.yaml").write_text(text)
    failed = [check.subject for check in pymixunlearn.verify(tmp_path / "run", hashes_only=True) if not check.holds]
    assert failed == ["model.yaml"]


def plain_accuracy(model: nn.Module, size: int, resize: int, mean: float, std: float) -> float:
    from torchvision import datasets, transforms

    steps = [transforms.Resize(resize), transforms.CenterCrop(size), transforms.ToTensor()]
    transform = transforms.Compose([*steps, transforms.Normalize((mean,) * 3, (std,) * 3)])
    test = datasets.ImageFolder("photos/test", transform)
    with torch.no_grad():
        hits = sum(int(model.eval()(image[None]).argmax() == label) for image, label in test)
    return 100 * hits / len(test)


def test_a_torchvision_checkpoint_has_the_accuracy_of_plain_pytorch(tmp_path: Path) -> None:
    from torchvision.models import mobilenet_v3_small

    torch.manual_seed(0)
    model = mobilenet_v3_small(num_classes=3)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "net.pt")
    config = {
        "preprocessing": {"size": 32, "resize": 36, "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.2] * 3}
    }
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(config))
    expected = plain_accuracy(model, 32, 36, 0.5, 0.2)
    given = {"weights": tmp_path / "net.pt", "model_config": tmp_path / "model.yaml"}
    run = unlearned(tmp_path / "run", "torchvision:mobilenet_v3_small", **given, expect_accuracy=expected)
    assert run.record["initial_accuracy"]["test"] == pytest.approx(expected, abs=0.01)
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())
    assert recorded["preprocess"]["resize"] == 36 and recorded["architecture"]["image_size"] == 32
    assert pymixunlearn.verify(tmp_path / "run", device="cpu").holds
    with pytest.raises(AnswerIsNo, match="expected .* within 0.5: most likely its images are prepared in another way"):
        unlearned(tmp_path / "no", "torchvision:mobilenet_v3_small", **given, expect_accuracy=(expected + 50) % 100)
    assert not (tmp_path / "no").exists()


def test_more_outputs_than_classes_are_mapped_by_name(tmp_path: Path) -> None:
    nets: Any = {}
    exec(NETS, nets)
    torch.manual_seed(1)
    model = nets["make"](5)
    torch.save(model.state_dict(), tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"\(5 classes instead of 3\)"):
        unlearned(tmp_path / "run", "nets.py:make", weights=tmp_path / "net.pt")
    names = ["dog", "horse", "cat", "sheep", "cow"]
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"classes": names}))
    given = {"weights": tmp_path / "net.pt", "model_config": tmp_path / "model.yaml"}
    run = unlearned(tmp_path / "run", "nets.py:make", **given)
    architecture = json.loads((tmp_path / "run" / "config.json").read_text())["architecture"]
    assert (architecture["class_map"], architecture["outputs"]) == ([2, 4, 0], 5)
    assert pymixunlearn.verify(tmp_path / "run", device="cpu", allow_code=True).holds
    again = unlearned(tmp_path / "again", str(run.folder), allow_code=True)
    assert again.record["hashes"]["initial"] == run.record["hashes"]["unlearned"]
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"classes": ["dog", "horse", "cat"]}))
    with pytest.raises(UserError, match="has no output for a class of the data: unknown class 'cow'"):
        unlearned(tmp_path / "no", "nets.py:make", **given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modell: cnn", "unknown entry of model config .* 'modell'.*Did you mean 'model'"),
        ("pretrained: 3", "pretrained in model config .* is 3; expected bool"),
        ("[1]", "holds a list"),
        ("preprocessing: {sise: 3}", "unknown preprocessing field .*'sise'.*Did you mean 'size'"),
        ("preprocessing: {augmentation: flop}", "unknown augmentation .*'flop'.*Did you mean 'flip'"),
        ("preprocessing: {size: big}", "preprocessing in model config"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_mistakes_in_a_model_config_are_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        unlearned(tmp_path / "run", "nets.py:make", model_config=tmp_path / "model.yaml")
    assert "\n" not in str(raised.value)


def test_choices_that_contradict_each_other_are_refused(factory_run: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="is a file or folder with weights, and --weights gives others"):
        unlearned(tmp_path / "run", str(factory_run), weights=tmp_path / "a.pt")
    with pytest.raises(BadRequest, match="names a file without a function in it; expected 'nets.py:FUNCTION'"):
        unlearned(tmp_path / "run", "nets.py")
    with pytest.raises(BadRequest, match="what the training starts from"):
        pymixunlearn.experiments.resolve_training(
            replace(
                pymixunlearn.experiments.TrainInputs(),
                model=pymixunlearn.experiments.ModelRequest(str(factory_run), allow_code=True),
                data=pymixunlearn.experiments.DataRequest("photos"),
            )
        )


def test_train_and_retrain_take_a_specification(tmp_path: Path) -> None:
    from click.testing import CliRunner
    from mixunlearn_cli.main import main

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments)

    few = ("--dataset", "photos", "--set", "epochs=1", "--device", "cpu", "--model", "nets.py:make")
    assert run("train", *few, "--out", str(tmp_path / "t")).exit_code == 0
    assert run("retrain", *few, "--out", str(tmp_path / "r")).exit_code == 0
    written = yaml.safe_load((tmp_path / "t" / "model.yaml").read_text())
    assert written["classes"] == ["cat", "cow", "dog"] and written["model"].endswith("nets.py:make")
    torch.save(load_model(tmp_path / "t" / "model.safetensors", allow_code=True).state_dict(), tmp_path / "s.pt")
    measured = ("evaluate", str(tmp_path / "s.pt"), "--model", "nets.py:make", "--dataset", "photos", "--device", "cpu")
    assert run(*measured).exit_code == 0
    wrong = run(*measured, "--expect-accuracy", "1")
    assert wrong.exit_code == 3 and "expected 1 % within 0.5" in wrong.stderr


def test_a_training_starts_from_weights_of_other_classes_and_so_does_retrain(tmp_path: Path) -> None:
    from click.testing import CliRunner
    from mixunlearn_cli.main import main

    start = models.build("nets.py:make", num_classes=7, seed=5)
    torch.save({"net": start.state_dict()}, tmp_path / "seven.pt")
    few = ("--dataset", "photos", "--set", "epochs=1", "--set", "lr=1e-9", "--device", "cpu", "--model", "nets.py:make")
    weights = ("--weights", str(tmp_path / "seven.pt"))
    result = CliRunner().invoke(main, ("train", *few, *weights, "--out", str(tmp_path / "t")))
    assert result.exit_code == 0, result.output
    assert "seven.pt', but for head, which are new" in " ".join(result.stdout.split())
    assert "1 epoch of adam with lr 1e-09" in " ".join(result.stdout.split())
    trained = load_model(tmp_path / "t" / "model.safetensors", allow_code=True)
    torch.testing.assert_close(trained.stem[0].weight, start.stem[0].weight, atol=1e-5, rtol=0)
    config = yaml.safe_load((tmp_path / "t" / "model.yaml").read_text())
    assert config["pretrained"].endswith("seven.pt") and len(config["pretrained_sha256"]) == 64
    again = models.build(**trained.architecture, seed=9)
    assert torch.equal(again.stem[0].weight, start.stem[0].weight) and again.new_layers == ("head",)
    run = unlearned(tmp_path / "run", str(tmp_path / "t"), allow_code=True, retrain=True)
    assert run.record["metrics"]["retrain"] is not None
    # Where weights are given to a model that unlearns, nothing of them is left out.
    with pytest.raises(UserError, match="7 classes instead of 3|is not a"):
        unlearned(tmp_path / "other", "nets.py:make", weights=tmp_path / "seven.pt")
    torch.save(start.state_dict(), tmp_path / "seven.pt")
    with pytest.raises(UserError, match="seven.pt' was changed since a training started from it"):
        models.build(**trained.architecture)
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "none.pt")
    with pytest.raises(UserError, match="have no tensor 'stem.0.weight'"):
        models.build("nets.py:make", num_classes=3, pretrained=tmp_path / "none.pt")


@pytest.mark.parametrize("form", ["pt", "safetensors", "parts"])
def test_the_unlearned_model_comes_back_in_the_form_it_came_in(form: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    nets: Any = {}
    exec(NETS, nets)
    torch.manual_seed(1)
    model = nets["make"](3).to(torch.float16)
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    given = (
        tmp_path / {"pt": "net.ckpt", "safetensors": "net.safetensors", "parts": "model.safetensors.index.json"}[form]
    )
    if form == "pt":
        optimizer = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
        ema = {name: tensor + 1 for name, tensor in state.items()}
        torch.save({"epoch": 7, "names": ["a"], "net": {"weights": state}, "ema": ema, "optimizer": optimizer}, given)
    elif form == "safetensors":
        save_file(state, given, metadata={"format": "pt"})
    else:
        names = [*state]
        parts = {"a.safetensors": names[:3], "b.safetensors": names[3:]}
        for file, inside in parts.items():
            save_file({name: state[name] for name in inside}, tmp_path / file)
        given.write_text(json.dumps({"weight_map": {name: file for file, part in parts.items() for name in part}}))
    if form == "pt":
        with pytest.raises(UserError, match="several sets of tensors, under 'net.weights', 'ema'"):
            unlearned(tmp_path / "run", "nets.py:make", weights=given)
        content = torch.load(given)
        torch.save({**content, "ema": {"decay": 0.9, "count": torch.tensor(3)}, "state_dict": state}, given)
    run = unlearned(tmp_path / "run", "nets.py:make", weights=given)
    folder = run.folder / "original-form"
    if form == "pt":
        written = torch.load(folder / "net.ckpt", weights_only=True)
        assert set(written) == {"epoch", "names", "state_dict"} and written["epoch"] == 7
        found = written["state_dict"]
    elif form == "safetensors":
        found = load_file(folder / "net.safetensors")
    else:
        found = {**load_file(folder / "a.safetensors"), **load_file(folder / "b.safetensors")}
    assert {name: tensor.dtype for name, tensor in found.items()} == {name: t.dtype for name, t in state.items()}
    plain = nets["make"](3).to(torch.float16)
    plain.load_state_dict({name.removeprefix("module."): tensor for name, tensor in found.items()})
    assert model_hash(plain) == run.record["hashes"]["unlearned"] != run.record["hashes"]["initial"]
    assert pymixunlearn.verify(run.folder, device="cpu").holds
    (next(iter(folder.iterdir()))).write_bytes(b"another")
    failed = [check.subject for check in pymixunlearn.verify(run.folder, hashes_only=True) if not check.holds]
    assert failed == [f"original-form/{min(path.name for path in folder.iterdir() if path.read_bytes() == b'another')}"]
